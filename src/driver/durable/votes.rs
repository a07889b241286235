//! What a row says of its key beside the record: how it was voted for. Most rows say nothing, as a record that was put
//! without a vote has its version for a ballot and nothing else.
//!
//! ```text
//! flags, then of these what the flags name, numbers as LEB128, nodes by their numbers in the table of nodes:
//!   round of the version · ballot · promised ballot · when the latest forgotten operation was asked · of how many nodes it is
//!   known up to which number their operations are forgotten, and each: the node, the number
//! then how many operations are remembered, and each: how it ended and what is the same as of the one before (a number),
//!   its node, n and issued and with which version it ended; numbers that may be near those of the one before as the difference,
//!   zigzag
//! ```

use crate::base::{Incarnation, Wall};
use crate::data::register::{Accepted, Ballot, OpId, Recent, Register, State};
use crate::data::{Outcome, Record, Trouble, Version};

const NOTHING_ACCEPTED: u64 = 1;
const COPIED: u64 = 1 << 1;
const ROUND: u64 = 1 << 2;
const BALLOT: u64 = 1 << 3;
const PROMISED: u64 = 1 << 4;
const EVICTED: u64 = 1 << 5;
const DOUBTFUL: u64 = 1 << 6;
const GONE: u64 = 1 << 7;

/// Of an operation: its version has the epoch, round and node of the one before.
const SAME_WORD: u64 = 1 << 3;
/// Its node is that of the one before.
const SAME_NODE: u64 = 1 << 4;

/// The number of a node in the file.
type Number<'a> = &'a dyn Fn(Incarnation) -> Result<i64, Trouble>;
/// And back.
type Node<'a> = &'a dyn Fn(i64) -> Option<Incarnation>;

/// What a row says of this register beside its record; `None`: nothing.
pub(super) fn write(register: &Register, number: Number<'_>) -> Result<Option<Vec<u8>>, Trouble> {
    let accepted = register.accepted();
    let version = register.record().map(|record| record.version);
    let round = version.map(|version| version.round).filter(|round| *round > 0);
    let ballot = accepted.map(|accepted| accepted.ballot).filter(|ballot| Some(*ballot) != version);
    let none = Recent::default();
    let recent = accepted.map_or(&none, |accepted| &accepted.state.recent);
    let flags = [
        (NOTHING_ACCEPTED, accepted.is_none()),
        (COPIED, accepted.is_some_and(|accepted| accepted.copied)),
        (ROUND, round.is_some()),
        (BALLOT, ballot.is_some()),
        (PROMISED, register.promised().is_some()),
        (EVICTED, recent.evicted().is_some()),
        (DOUBTFUL, accepted.is_some_and(|accepted| accepted.state.doubtful)),
        (GONE, !recent.gone().is_empty()),
    ];
    let flags = flags.iter().filter(|(_, is_set)| *is_set).fold(0, |all, (flag, _)| all | flag);
    if flags == 0 && recent.ended().is_empty() {
        return Ok(None);
    }
    let mut out = Vec::new();
    put(&mut out, flags);
    if let Some(round) = round {
        put(&mut out, round);
    }
    for ballot in ballot.into_iter().chain(register.promised()) {
        put_ballot(&mut out, ballot, number)?;
    }
    if let Some(Wall(evicted)) = recent.evicted() {
        put(&mut out, evicted);
    }
    if flags & GONE != 0 {
        put(&mut out, recent.gone().len() as u64);
        for (node, n) in recent.gone() {
            put(&mut out, number(*node)?.cast_unsigned());
            put(&mut out, *n);
        }
    }
    put(&mut out, recent.ended().len() as u64);
    let mut before = Before { version, ..Before::default() };
    for (id, outcome) in recent.ended() {
        let by = number(id.node)?.cast_unsigned();
        let (kind, version) = match outcome {
            // Nobody remembers what was only read.
            Outcome::NotFound | Outcome::Found(_) => (0, None),
            Outcome::Deleted => (1, None),
            Outcome::PreconditionFailed(None) => (2, None),
            Outcome::PreconditionFailed(Some(version)) => (3, Some(version)),
            Outcome::Created(version) => (4, Some(version)),
            Outcome::Replaced(version) => (5, Some(version)),
        };
        let word = version.and_then(|version| before.version.filter(|before| word(before) == word(version)));
        let is_same_node = before.node == Some(by);
        put(&mut out, kind | if word.is_some() { SAME_WORD } else { 0 } | if is_same_node { SAME_NODE } else { 0 });
        if !is_same_node {
            put(&mut out, by);
        }
        put(&mut out, difference(id.n, before.n));
        put(&mut out, difference(id.issued.0, before.issued));
        match (version, word) {
            (Some(version), Some(word)) => put(&mut out, difference(version.n, word.n)),
            (Some(version), None) => put_ballot(&mut out, *version, number)?,
            (None, _) => {}
        }
        before = Before { node: Some(by), n: id.n, issued: id.issued.0, version: version.copied().or(before.version) };
    }
    Ok(Some(out))
}

/// What is written of an operation says how it differs from the one before; its version at first from that of the record.
#[derive(Clone, Copy, Default)]
struct Before {
    node: Option<u64>,
    n: u64,
    issued: u64,
    version: Option<Version>,
}

/// All of a version but the last number.
fn word(version: &Version) -> (u64, u64, Incarnation) {
    (version.epoch, version.round, version.node)
}

/// What it takes to come from `before` to a number, small if it is small in either direction.
fn difference(number: u64, before: u64) -> u64 {
    let difference = number.wrapping_sub(before).cast_signed();
    (difference << 1 ^ difference >> 63).cast_unsigned()
}

fn plus(difference: u64, before: u64) -> u64 {
    before.wrapping_add(difference >> 1 ^ (difference & 1).wrapping_neg())
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f | 0x80).unwrap_or(0));
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

fn put_ballot(out: &mut Vec<u8>, ballot: Ballot, number: Number<'_>) -> Result<(), Trouble> {
    for part in [ballot.epoch, ballot.round, number(ballot.node)?.cast_unsigned(), ballot.n] {
        put(out, part);
    }
    Ok(())
}

/// The round of a record's version, of what a row says beside it.
pub(super) fn round_of(vote: Option<&[u8]>) -> Option<u64> {
    let Some(mut vote) = vote else { return Some(0) };
    let flags = take(&mut vote)?;
    if flags & ROUND == 0 { Some(0) } else { take(&mut vote) }
}

/// Of a record and what its row says beside it. `None`: it is damaged.
pub(super) fn read(record: Option<Record>, vote: Option<&[u8]>, node: Node<'_>) -> Option<Register> {
    let Some(mut vote) = vote else { return record.map(Register::from) };
    let flags = take(&mut vote)?;
    if flags & ROUND != 0 {
        take(&mut vote)?;
    }
    let version = record.as_ref().map(|record| record.version);
    let ballot = if flags & BALLOT == 0 { version } else { Some(take_ballot(&mut vote, node)?) };
    let promised = if flags & PROMISED == 0 { None } else { Some(take_ballot(&mut vote, node)?) };
    let evicted = if flags & EVICTED == 0 { None } else { Some(Wall(take(&mut vote)?)) };
    let mut gone = Vec::new();
    for _ in 0..if flags & GONE == 0 { 0 } else { take(&mut vote)? } {
        gone.push((node(take(&mut vote)?.cast_signed())?, take(&mut vote)?));
    }
    let count = take(&mut vote)?;
    let mut ended = Vec::new();
    let mut before = Before { version, ..Before::default() };
    for _ in 0..count {
        let kind = take(&mut vote)?;
        let number = if kind & SAME_NODE == 0 { take(&mut vote)? } else { before.node? };
        let (n, issued) = (plus(take(&mut vote)?, before.n), plus(take(&mut vote)?, before.issued));
        before = Before { node: Some(number), n, issued, ..before };
        let mut version = || {
            let version = if kind & SAME_WORD == 0 {
                take_ballot(&mut vote, node)?
            } else {
                let word = before.version?;
                Version { n: plus(take(&mut vote)?, word.n), ..word }
            };
            before.version = Some(version);
            Some(version)
        };
        let outcome = match kind & !(SAME_WORD | SAME_NODE) {
            0 => Outcome::NotFound,
            1 => Outcome::Deleted,
            2 => Outcome::PreconditionFailed(None),
            3 => Outcome::PreconditionFailed(Some(version()?)),
            4 => Outcome::Created(version()?),
            5 => Outcome::Replaced(version()?),
            _ => return None,
        };
        ended.push((OpId { node: node(number.cast_signed())?, n, issued: Wall(issued) }, outcome));
    }
    if flags & NOTHING_ACCEPTED != 0 {
        return Some(Register::new(promised, None));
    }
    let state = State { record, recent: Recent::new(ended, evicted).with_gone(gone), doubtful: flags & DOUBTFUL != 0 };
    Some(Register::new(promised, Some(Accepted { ballot: ballot?, copied: flags & COPIED != 0, state })))
}

fn take(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_ballot(from: &mut &[u8], node: Node<'_>) -> Option<Version> {
    let (epoch, round) = (take(from)?, take(from)?);
    let node = node(take(from)?.cast_signed())?;
    Some(Version { epoch, round, node, n: take(from)? })
}
