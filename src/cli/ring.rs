//! `ring`: every node of the ring as a table, and whether the ring is whole.

use std::io::{self, Write};

use super::args::JsonArgs;
use super::client::Client;
use super::failure::Failure;
use super::table::{Align, Table};
use super::text::{bytes, one_line, seconds, short_addr, short_id};
use crate::node::report::{RingNode, RingReport};

/// `chordkv ring`.
pub(super) fn ring(client: &Client, args: &JsonArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let (json, report): (_, RingReport) = client.document("/v1/ring")?;
    if args.json {
        out.write_all(&json)?;
        return Ok(writeln!(out)?);
    }
    Ok(show(&report, out)?)
}

fn show(report: &RingReport, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&COLUMNS);
    for node in &report.nodes {
        table.push(row(node));
    }
    table.write(out)?;
    writeln!(out)?;
    writeln!(
        out,
        "ring {}: {} slots, {} of each key, ids of {} bits, values of at most {}",
        short_id(&report.ring),
        report.slots,
        copies(report),
        report.capacity,
        bytes(report.max_value as u64),
    )?;
    writeln!(out, "{}", verdict(report))
}

/// How many copies there are, or are to be; fewer than the ring was created for where there are fewer nodes.
fn copies(report: &RingReport) -> String {
    match (report.replicas.min(report.nodes.len()), report.replicas) {
        (1, 1) => "1 copy".to_owned(),
        (now, wanted) if now < wanted => format!("{now} of {wanted} copies"),
        (now, _) => format!("{now} copies"),
    }
}

fn row(node: &RingNode) -> [String; COLUMNS.len()] {
    let missing = || "-".to_owned();
    [
        short_id(&node.id),
        one_line(&node.addr),
        node.http.as_deref().map_or_else(missing, one_line),
        node.predecessor.as_deref().map_or_else(missing, |addr| short_addr(addr, &node.addr)),
        node.successor.as_deref().map_or_else(missing, |addr| short_addr(addr, &node.addr)),
        format!("{:.1}%", node.share * 100.0),
        node.slots.to_string(),
        node.keys.to_string(),
        bytes(node.bytes),
        seconds(node.uptime_seconds),
        one_line(&node.version),
        state(node),
    ]
}

/// What is special about a node.
fn state(node: &RingNode) -> String {
    let standing = (node.standing != "member").then(|| one_line(&node.standing));
    let weight = (node.weight != 1).then(|| format!("weight {}", node.weight));
    standing.into_iter().chain(weight).collect::<Vec<String>>().join(", ")
}

/// The closing line: whole, or what is wrong.
fn verdict(report: &RingReport) -> String {
    let mut wrong: Vec<String> =
        report.unreachable.iter().map(|node| format!("{} does not answer", node.addr)).collect();
    let nodes = &report.nodes;
    for (node, next) in nodes.iter().zip(nodes.iter().cycle().skip(1)) {
        if node.successor.as_ref().is_some_and(|successor| *successor != next.addr) {
            wrong.push(format!("{} is not followed by {}", node.addr, next.addr));
        }
        if next.predecessor.as_ref().is_some_and(|predecessor| *predecessor != node.addr) {
            wrong.push(format!("{} does not come after {}", next.addr, node.addr));
        }
    }
    if !report.settled {
        let moving: u32 = nodes.iter().map(|node| node.slots_moving).sum();
        wrong.push(if moving > 0 {
            format!("{moving} slots are on the move")
        } else {
            "fewer copies than there should be, made again 60 s after a node is gone".to_owned()
        });
    }
    let head = match nodes.len() {
        1 => "ring of 1 node".to_owned(),
        n => format!("ring of {n} nodes"),
    };
    let state = if report.whole { "whole" } else { "NOT whole" };
    match wrong.len() {
        0 => format!("{head}, {state}"),
        n if n > SHOWN_MAX => {
            one_line(&format!("{head}, {state}: {}; and {} more", wrong[..SHOWN_MAX].join("; "), n - SHOWN_MAX))
        }
        _ => one_line(&format!("{head}, {state}: {}", wrong.join("; "))),
    }
}

const SHOWN_MAX: usize = 5;
const COLUMNS: [(&str, Align); 12] = [
    ("NODE", Align::Left),
    ("ADDRESS", Align::Left),
    ("HTTP", Align::Left),
    ("BEFORE", Align::Left),
    ("AFTER", Align::Left),
    ("SHARE", Align::Right),
    ("SLOTS", Align::Right),
    ("KEYS", Align::Right),
    ("BYTES", Align::Right),
    ("UPTIME", Align::Right),
    ("VERSION", Align::Left),
    ("STATE", Align::Left),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::report::NodeName;

    fn node(n: u16, before: u16, after: u16) -> RingNode {
        let addr = |port: u16| format!("127.0.0.1:{}", 4_000 + port);
        RingNode {
            id: format!("{n:040x}").chars().rev().collect(),
            addr: addr(n),
            http: Some(format!("127.0.0.1:{}", 8_000 + n)),
            incarnation: "x".to_owned(),
            standing: "member".to_owned(),
            predecessor: Some(addr(before)),
            successor: Some(addr(after)),
            share: 0.25,
            weight: 1,
            slots: 256,
            slots_moving: 0,
            keys: 12,
            bytes: 1_536,
            uptime_seconds: 65,
            version: "0.1.0".to_owned(),
        }
    }

    fn report(nodes: Vec<RingNode>, whole: bool) -> RingReport {
        RingReport {
            ring: "abcdef0123456789".to_owned(),
            capacity: 160,
            slots: 1_024,
            successors: 16,
            replicas: 3,
            max_value: 1 << 20,
            whole,
            settled: true,
            nodes,
            unreachable: Vec::new(),
        }
    }

    #[test]
    fn a_whole_ring_is_a_table_and_says_so() {
        let mut out = Vec::new();
        show(&report(vec![node(1, 2, 2), node(2, 1, 1)], true), &mut out).unwrap();
        let expected = "\
NODE        ADDRESS         HTTP            BEFORE  AFTER  SHARE  SLOTS  KEYS    BYTES  UPTIME  VERSION  STATE
1000000000  127.0.0.1:4001  127.0.0.1:8001  :4002   :4002  25.0%    256    12  1.5 KiB   1m 5s  0.1.0
2000000000  127.0.0.1:4002  127.0.0.1:8002  :4001   :4001  25.0%    256    12  1.5 KiB   1m 5s  0.1.0

ring abcdef0123: 1024 slots, 2 of 3 copies of each key, ids of 160 bits, values of at most 1.0 MiB
ring of 2 nodes, whole
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_broken_ring_says_what_is_wrong() {
        let mut broken = report(vec![node(1, 3, 2), node(2, 1, 3), node(3, 1, 1)], false);
        broken.unreachable.push(NodeName { id: "00".to_owned(), addr: "127.0.0.1:4009".to_owned() });
        broken.settled = false;
        assert_eq!(
            verdict(&broken),
            "ring of 3 nodes, NOT whole: 127.0.0.1:4009 does not answer; 127.0.0.1:4003 does not come after \
             127.0.0.1:4002; fewer copies than there should be, made again 60 s after a node is gone"
        );
        assert_eq!(verdict(&report(vec![node(1, 1, 1)], true)), "ring of 1 node, whole");
        let many = report((1..9).map(|n| node(n, 0, 0)).collect(), false);
        assert!(verdict(&many).ends_with("; and 11 more"), "{}", verdict(&many));
    }
}
