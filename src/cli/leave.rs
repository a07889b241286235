//! `leave` and `health`: what scripts and containers ask of a node.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::Method;

use super::args::{HealthArgs, LeaveArgs};
use super::client::{Ask, Client, NoAnswer};
use super::failure::{Failure, say};
use super::text::one_line;

/// `chordkv leave`: asks, then waits until nothing answers any more.
pub(super) fn leave(client: &Client, args: &LeaveArgs) -> Result<(), Failure> {
    let answer = client.ask(&Ask::new(Method::POST, "/v1/node/leave"))?;
    if answer.status != 202 {
        return Err(client.refusal(&answer));
    }
    if args.no_wait {
        say(&format!("{} has begun to leave", client.node()));
        return Ok(());
    }
    say(&format!("{} hands its keys over", client.node()));
    wait_until_gone(client, args.timeout)?;
    say(&format!("{} has left", client.node()));
    Ok(())
}

/// `chordkv health`.
pub(super) fn health(client: &Client, args: &HealthArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let client = client.within(args.timeout);
    let answer = client.ask(&Ask::new(Method::GET, "/readyz"))?;
    let Ok(health) = client.read::<Health>(&answer.body) else { return Err(client.refusal(&answer)) };
    if args.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
    }
    let failed: Vec<_> = health.checks.iter().filter(|check| !check.ok).collect();
    if answer.status == 200 && health.ok {
        return if args.json { Ok(()) } else { Ok(writeln!(out, "ok")?) };
    }
    for check in failed.iter().filter(|_| !args.json) {
        let detail = check.detail.as_deref().unwrap_or("failed");
        writeln!(out, "{}", one_line(&format!("{}: {detail}", check.name)))?;
    }
    Err(Failure::Failed(format!(
        "{} is not ready: {} of {} checks failed",
        client.node(),
        failed.len(),
        health.checks.len()
    )))
}

fn wait_until_gone(client: &Client, timeout: Duration) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut silences = 0;
    loop {
        let left = timeout.saturating_sub(begin.elapsed());
        if left.is_zero() {
            let text = format!(
                "{} still hands its keys over after {} s; it goes on without you",
                client.node(),
                timeout.as_secs_f64()
            );
            return Err(Failure::Failed(text));
        }
        // A connection of its own for each question: a kept one would end with the process and look like a failure.
        let poll = client.within(left.min(POLL_TIMEOUT));
        match poll.try_ask(&Ask::new(Method::GET, "/livez")) {
            // Connected and without an answer is a node that is busy, or just ending: the next question tells.
            Ok(_) | Err(NoAnswer::Lost(_)) => silences = 0,
            Err(NoAnswer::Refused(_)) => return Ok(()),
            // Its host may be gone with it, as containers are; a lossy network is silent once, not again and again.
            Err(NoAnswer::Unreachable(_)) => silences += 1,
        }
        if silences >= SILENCES_MAX {
            return Ok(());
        }
        thread::sleep(POLL_INTERVAL.min(timeout.saturating_sub(begin.elapsed())));
    }
}

#[derive(Deserialize)]
struct Health {
    ok: bool,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    name: String,
    ok: bool,
    detail: Option<String>,
}

const POLL_INTERVAL: Duration = Duration::from_millis(200);
const POLL_TIMEOUT: Duration = Duration::from_secs(3);
const SILENCES_MAX: u32 = 3;
