//! The command line: arguments, environment and a config file to checked settings; the commands; their tables.
//!
//! ```text
//!  flags ──────┐
//!  environment ┼─▶ NodeArgs ──settings──▶ NodePlan ──▶ driver::run
//!  config file ┘
//!  other commands ──client──▶ HTTP interface of a node ──▶ table, or JSON with --json
//! ```
//!
//! Data goes to standard output, messages to standard error. The exit code is 0 only on success, 1 for an operation
//! that failed, 2 for wrong usage. `sim` asks no node: it simulates a ring. Deliberately not here: anything a node does;
//! secrets in flags.

mod args;
mod backup;
mod bench;
mod client;
mod config;
mod env;
mod failure;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod keygen;
mod kv;
mod leave;
mod list;
mod log;
mod node;
mod progress;
mod recover;
mod ring;
mod said;
mod settings;
mod sim;
mod status;
mod table;
mod text;
mod trace;
mod url;
mod values;
mod watch;

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

pub use args::Cli;
pub use env::Env;
pub use failure::Failure;

use args::{Command, ConfigCommand};
use client::Client;
use failure::say;

/// Runs the program: `args` begin with its name.
pub fn run(args: impl IntoIterator<Item = OsString>, env: &Env) -> ExitCode {
    let cli = match Cli::parse_from_args(args) {
        Ok(cli) => cli,
        Err(shown) => {
            // Help and version are such "errors" too.
            let code = u8::try_from(shown.exit_code()).unwrap_or(1);
            return ended(match shown.print().map_err(Failure::from) {
                // Whoever closed the pipe may have missed why it is wrong, but wrong it is.
                Ok(()) | Err(Failure::PipeClosed) => Ok(code),
                Err(failure) => Err(failure),
            });
        }
    };
    let mut out = BufWriter::new(io::stdout());
    let result = dispatch(cli, env, &mut out);
    // What was printed before a failure stands before it.
    let flushed = out.flush().map_err(Failure::from);
    ended(result.and(flushed).map(|()| 0))
}

/// The exit code, after the message that goes with it.
fn ended(result: Result<u8, Failure>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        // Whoever reads standard output has read enough, as in `chordkv ls | head`.
        Err(Failure::PipeClosed) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn dispatch(cli: Cli, env: &Env, out: &mut dyn Write) -> Result<(), Failure> {
    let client = || Client::to_node(cli.ask.clone(), env);
    match cli.command {
        Command::Node(command) => node::run(*command, env),
        Command::Config(ConfigCommand::Check(args)) => config::check(&args, out),
        Command::Keygen(args) => keygen::keygen(&args),
        Command::Leave(args) => leave::leave(&client()?, &args),
        Command::Health(args) => leave::health(&client()?, &args, out),
        Command::Get(args) => kv::get(&client()?, &args, out),
        Command::Put(args) => kv::put(&client()?, &args, out),
        Command::Del(args) => kv::del(&client()?, &args),
        Command::Ls(args) => list::ls(&client()?, &args, out),
        Command::Watch(args) => watch::watch(&client()?, &args, out),
        Command::Export(args) => backup::export(&client()?, &args, out),
        Command::Import(args) => backup::import(&client()?, &args),
        Command::Ring(args) => ring::ring(&client()?, &args, out),
        Command::Status(args) => status::status(&client()?, &args, out),
        Command::Trace(args) => trace::trace(&client()?, &args, out),
        Command::Recover(args) => recover::recover(&client()?, &args, out),
        Command::Bench(args) => bench::bench(&client()?, &args, out),
        Command::Sim(args) => sim::sim(&args, out),
    }
}
