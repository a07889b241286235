//! `recover`: what a ring can go on with after it has lost the majority of some keys' copies for good.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::Method;

use super::client::{Answer, Ask, Client};
use super::failure::{Failure, say};
use super::table::{Align, Table};
use super::text::one_line;
use crate::node::report::{CopiesLeft, RecoverReport};

#[derive(Clone, Debug, Args)]
pub(super) struct RecoverArgs {
    /// Go on without these nodes: they are gone for good. All that are missing must be named
    #[arg(long, value_name = "ADDR,..", value_delimiter = ',')]
    pub lost: Vec<String>,
    /// Print the node's JSON document
    #[arg(long)]
    pub json: bool,
}

pub(super) const RECOVER_EXAMPLES: &str = "\
Without --lost nothing is changed: it says which keys cannot be served, which nodes they miss
and what would be lost without those. If you can, start those nodes again instead: then nothing
is lost. A node that was named and comes back later gives up what it had.

Examples:
  chordkv recover
  chordkv recover --lost 10.0.0.4:4000,10.0.0.5:4000";

/// `chordkv recover`.
pub(super) fn recover(client: &Client, args: &RecoverArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let answer =
        if args.lost.is_empty() { client.ask(&Ask::new(Method::GET, "/v1/recover"))? } else { go_on(client, args)? };
    if answer.status != 200 {
        return Err(client.refusal(&answer));
    }
    let report: RecoverReport = client.read(&answer.body)?;
    if args.json {
        out.write_all(&answer.body)?;
        return Ok(writeln!(out)?);
    }
    Ok(show(&report, out)?)
}

/// Until it is over: the node answers after a while in any case.
fn go_on(client: &Client, args: &RecoverArgs) -> Result<Answer, Failure> {
    let target = format!("/v1/recover?lost={}", utf8_percent_encode(&args.lost.join(","), NON_ALPHANUMERIC));
    let begin = Instant::now();
    loop {
        let answer = client.ask(&Ask::new(Method::POST, &target))?;
        if answer.status != 503 || begin.elapsed() >= TRY_FOR {
            return Ok(answer);
        }
        say(&client.refusal(&answer).to_string());
        thread::sleep(PAUSE);
    }
}

fn show(report: &RecoverReport, out: &mut dyn Write) -> io::Result<()> {
    if report.unavailable == 0 {
        return writeln!(out, "nothing to recover: all {} slots have the majority of their copies", report.slots);
    }
    let percent = f64::from(report.unavailable) * 100.0 / f64::from(report.slots.max(1));
    let (were, are) = if report.recovered.is_some() { ("had", "were") } else { ("have", "are") };
    writeln!(
        out,
        "{} of {} slots {were} lost the majority of their copies, about {percent:.1}% of all keys {are} out of reach:",
        report.unavailable, report.slots,
    )?;
    let mut table = Table::new(&[("copies left", Align::Left), ("slots", Align::Right), ("may be lost", Align::Left)]);
    for left in &report.copies_left {
        table.push([format!("{} of {}", left.left, left.of), left.slots.to_string(), at_stake(left)]);
    }
    table.write(out)?;
    writeln!(out)?;
    for node in &report.missing {
        let why = if node.is_another { " (another node answers there, without its data)" } else { "" };
        writeln!(out, "missing: {}{why}", one_line(&node.addr))?;
    }
    if let Some(recovered) = report.recovered {
        return writeln!(out, "{recovered} slots go on with what was left of them");
    }
    let missing: Vec<String> = report.missing.iter().map(|node| one_line(&node.addr)).collect();
    writeln!(out, "Start the missing nodes again if you can: then nothing is lost. If they are gone for good:")?;
    writeln!(out, "  chordkv recover --lost {}", missing.join(","))
}

fn at_stake(left: &CopiesLeft) -> String {
    match (left.left, left.behind) {
        (0, _) => "everything".to_owned(),
        (_, 0) => "the latest writes, where no copy that is left had them yet".to_owned(),
        (_, behind) => format!("all writes of long: what is left was a copy {behind} changes of members ago"),
    }
}

const TRY_FOR: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::report::Missing;

    fn shown(recovered: Option<u32>) -> String {
        let missing = ["10.0.0.4:4000", "10.0.0.5:4000"].map(|addr| Missing {
            addr: addr.to_owned(),
            incarnation: Some("0".to_owned()),
            is_another: addr.contains(".5"),
        });
        let copies_left = vec![
            CopiesLeft { left: 0, of: 2, behind: 0, slots: 3 },
            CopiesLeft { left: 1, of: 3, behind: 0, slots: 124 },
            CopiesLeft { left: 1, of: 3, behind: 9, slots: 1 },
        ];
        let report = RecoverReport { slots: 1_024, unavailable: 128, missing: missing.into(), copies_left, recovered };
        let mut out = Vec::new();
        show(&report, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_dry_run_says_what_may_be_lost_and_what_to_do() {
        let expected = "\
128 of 1024 slots have lost the majority of their copies, about 12.5% of all keys are out of reach:
copies left  slots  may be lost
0 of 2           3  everything
1 of 3         124  the latest writes, where no copy that is left had them yet
1 of 3           1  all writes of long: what is left was a copy 9 changes of members ago

missing: 10.0.0.4:4000
missing: 10.0.0.5:4000 (another node answers there, without its data)
Start the missing nodes again if you can: then nothing is lost. If they are gone for good:
  chordkv recover --lost 10.0.0.4:4000,10.0.0.5:4000
";
        assert_eq!(shown(None), expected);
        let done = shown(Some(128));
        assert!(done.ends_with("128 slots go on with what was left of them\n"), "{done}");
        assert!(done.starts_with("128 of 1024 slots had lost the majority"), "{done}");
    }
}
