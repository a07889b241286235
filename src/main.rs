//! The program: see `chordkv --help`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use chordkv::cli::{self, Env};

fn main() -> ExitCode {
    cli::run(std::env::args_os(), &Env::of_process())
}
