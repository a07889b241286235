//! `node`: runs a node.

use super::args::NodeCommand;
use super::env::Env;
use super::failure::Failure;
use super::log;
use super::settings;
use crate::driver;

/// Runs a node until it is told to stop.
pub(super) fn run(command: NodeCommand, env: &Env) -> Result<(), Failure> {
    let plan = settings::plan(command, env)?;
    log::start(plan.log);
    driver::run(&plan.settings).map_err(|error| Failure::Failed(error.to_string()))
}
