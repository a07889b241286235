//! Tables for terminals: columns of text as wide as their widest cell, two spaces between them.

use std::io::{self, Write};

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows that wait to be written. The head is written once, before the first rows; columns only grow, so that a long
/// listing can be written in parts.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
    head_written: bool,
}

impl Table {
    /// An empty table.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        let widths = columns.iter().map(|(head, _)| width(head)).collect();
        Self { columns: columns.to_vec(), widths, rows: Vec::new(), head_written: false }
    }

    /// Adds a row; it has as many cells as there are columns.
    pub fn push<const N: usize>(&mut self, row: [String; N]) {
        assert_eq!(N, self.columns.len(), "a row has a cell for every column");
        for (widest, cell) in self.widths.iter_mut().zip(&row) {
            *widest = (*widest).max(width(cell));
        }
        self.rows.push(row.into());
    }

    /// Writes the rows that were added since the last time.
    pub fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if !self.head_written {
            let head: Vec<String> = self.columns.iter().map(|(head, _)| (*head).to_owned()).collect();
            self.line(&head, out)?;
            self.head_written = true;
        }
        for row in std::mem::take(&mut self.rows) {
            self.line(&row, out)?;
        }
        Ok(())
    }

    fn line(&self, cells: &[String], out: &mut dyn Write) -> io::Result<()> {
        let mut line = String::new();
        for ((cell, (_, align)), widest) in cells.iter().zip(&self.columns).zip(&self.widths) {
            let gap = " ".repeat(widest.saturating_sub(width(cell)));
            match align {
                Align::Left => line.extend([cell, &gap, GAP]),
                Align::Right => line.extend([&gap, cell.as_str(), GAP]),
            }
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// Characters, which is what most terminals show in one cell each.
fn width(text: &str) -> usize {
    text.chars().count()
}

const GAP: &str = "  ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_lines_have_no_trailing_spaces() {
        let mut table = Table::new(&[("NAME", Align::Left), ("KEYS", Align::Right), ("NOTE", Align::Left)]);
        let mut out = Vec::new();
        table.push(["ключ".into(), "7".into(), String::new()]);
        table.push(["a".into(), "12345".into(), "x".into()]);
        table.write(&mut out).unwrap();
        table.push(["longer".into(), "1".into(), "y".into()]);
        table.write(&mut out).unwrap();
        let expected = "NAME   KEYS  NOTE\nключ      7\na     12345  x\nlonger      1  y\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
