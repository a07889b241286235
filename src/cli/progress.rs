//! A bar on standard error while something long runs, if a person is looking.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;

/// A bar that is drawn again and again on one line.
#[derive(Debug)]
pub struct Bar {
    shown: bool,
    // Tenths of a percent that are drawn.
    drawn: Mutex<u64>,
}

const CELLS: usize = 30;

impl Bar {
    /// Draws nothing unless standard error is a terminal.
    pub fn new() -> Self {
        Self { shown: io::stderr().is_terminal(), drawn: Mutex::new(0) }
    }

    /// So many thousandths are done, and this is going on.
    pub fn show(&self, per_mille: u64, doing: &str) {
        // Whoever else draws at the moment draws almost the same.
        let Ok(mut drawn) = self.drawn.try_lock() else { return };
        if self.shown && per_mille != *drawn {
            *drawn = per_mille;
            // A bar that cannot be drawn is not worth a failure.
            let _ = write!(io::stderr(), "\r{}", line(per_mille, doing));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(per_mille: u64, doing: &str) -> String {
    let per_mille = per_mille.min(1_000);
    let full = usize::try_from(per_mille).unwrap_or(0) * CELLS / 1_000;
    format!("[{}{}] {:>3} % {doing:<30}", "#".repeat(full), ".".repeat(CELLS - full), per_mille / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_keeps_its_width() {
        let lines = [0, 333, 1_000, 5_000].map(|at| line(at, "growing"));
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{lines:?}");
        assert!(lines[1].starts_with("[#########....") && lines[2].contains("] 100 % growing"));
    }
}
