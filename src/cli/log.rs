//! Where log lines go and how they look.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::LevelFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// The least important level that is written.
    pub level: LevelFilter,
    /// Colours, if standard error is a terminal.
    pub color: bool,
}

/// Sends log lines to standard error from here on. The first call in a process counts.
pub fn start(settings: LogSettings) {
    let lines = tracing_subscriber::fmt()
        .with_max_level(settings.level)
        .with_writer(io::stderr)
        .with_ansi(settings.color && io::stderr().is_terminal())
        // It would complain on standard error that standard error cannot be written, and panic on that.
        .log_internal_errors(false);
    let started = match settings.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // Someone who embeds this library may have set up logging already; theirs stays.
    let _ = started;
}
