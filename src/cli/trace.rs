//! `trace`: where a key lives and how a lookup gets there, hop by hop.

use std::io::{self, Write};

use super::args::TraceArgs;
use super::client::Client;
use super::failure::Failure;
use super::table::{Align, Table};
use super::text::{escaped, micros, one_line, short_id};
use super::url::encode;
use crate::node::report::{NodeName, TraceReport};

/// `chordkv trace KEY`.
pub(super) fn trace(client: &Client, args: &TraceArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let target = format!("/v1/lookup/{}", encode(args.key.as_bytes()));
    let (json, report): (_, TraceReport) = client.document(&target)?;
    if args.json {
        out.write_all(&json)?;
        return Ok(writeln!(out)?);
    }
    Ok(show(&escaped(args.key.as_bytes()), &report, out)?)
}

fn show(key: &str, report: &TraceReport, out: &mut dyn Write) -> io::Result<()> {
    let named = |node: &NodeName| one_line(&format!("{} {}", short_id(&node.id), node.addr));
    let replicas: Vec<String> = report.replicas.iter().map(named).collect();
    writeln!(out, "key       {key}")?;
    writeln!(out, "key id    {}", one_line(&report.key_id))?;
    writeln!(out, "slot      {}", report.slot)?;
    writeln!(out, "owner     {}", named(&report.owner))?;
    let epoch = report.epoch.map(|epoch| format!(" (epoch {epoch})")).unwrap_or_default();
    match replicas.as_slice() {
        [] => writeln!(out, "replicas  not known here")?,
        some => writeln!(out, "replicas  {}{epoch}", some.join(", "))?,
    }
    writeln!(out)?;
    let mut hops =
        Table::new(&[("HOP", Align::Right), ("NODE", Align::Left), ("ADDRESS", Align::Left), ("TIME", Align::Right)]);
    for (n, hop) in report.hops.iter().enumerate() {
        let time = match (hop.silent, n) {
            (true, _) => "silent".to_owned(),
            (false, 0) => "-".to_owned(),
            (false, _) => micros(hop.rtt_us),
        };
        hops.push([n.to_string(), short_id(&hop.id), one_line(&hop.addr), time]);
    }
    hops.write(out)?;
    writeln!(out, "\n{} hops in {}", report.hops.len().saturating_sub(1), micros(report.total_us))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::report::TraceHop;

    #[test]
    fn hops_are_numbered_and_the_silent_are_named() {
        let hop = |n: u8, rtt_us, silent| TraceHop {
            id: format!("{n:02x}").repeat(20),
            addr: format!("127.0.0.1:{}", 4_000 + u16::from(n)),
            rtt_us,
            silent,
        };
        let owner = NodeName { id: "03".repeat(20), addr: "127.0.0.1:4003".to_owned() };
        let report = TraceReport {
            key: "a".to_owned(),
            key_id: "86f7".to_owned(),
            slot: 539,
            owner: owner.clone(),
            replicas: vec![owner],
            epoch: Some(2),
            hops: vec![hop(1, 0, false), hop(2, 0, true), hop(3, 412, false)],
            total_us: 1_650,
        };
        let mut out = Vec::new();
        show("a", &report, &mut out).unwrap();
        let expected = "\
key       a
key id    86f7
slot      539
owner     0303030303 127.0.0.1:4003
replicas  0303030303 127.0.0.1:4003 (epoch 2)

HOP  NODE        ADDRESS           TIME
  0  0101010101  127.0.0.1:4001       -
  1  0202020202  127.0.0.1:4002  silent
  2  0303030303  127.0.0.1:4003  412 µs

2 hops in 1.65 ms
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
