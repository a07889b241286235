//! Operations on one record: pure functions from (record, command) to (change, outcome).

use std::sync::Arc;

use super::record::{Record, Version};
use crate::base::Wall;

/// One operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read the record.
    Get,
    /// Store a record in place of what is there, if the condition holds.
    Put(Put),
    /// Remove what is there, if the condition holds.
    Delete(Condition),
}

/// What a put brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The raw bytes.
    pub value: Arc<[u8]>,
    /// Kept and given back.
    pub content_type: Option<Arc<str>>,
    /// After how many ms the record counts as absent.
    pub ttl_ms: Option<u64>,
    /// Must hold, or nothing changes.
    pub condition: Condition,
}

/// The precondition of a write (RFC 9110, section 13.1), both headers together: compare-and-swap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `If-Match`.
    pub if_match: Option<Tag>,
    /// `If-None-Match`.
    pub if_none_match: Option<Tag>,
}

/// What a condition compares with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    /// `*`: whatever version exists.
    Any,
    /// One of these. A tag that no version of ours can have is not listed, as it matches nothing.
    Of(Vec<Version>),
}

impl Tag {
    fn matches(&self, current: Option<&Record>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Of(versions), Some(record)) => versions.contains(&record.version),
        }
    }
}

impl Condition {
    /// Whether both parts hold for the current record; `None` where there is none.
    pub fn holds(&self, current: Option<&Record>) -> bool {
        self.if_match.as_ref().is_none_or(|tag| tag.matches(current))
            && self.if_none_match.as_ref().is_none_or(|tag| !tag.matches(current))
    }
}

impl Command {
    /// Whether it puts or removes something whatever is there.
    pub fn is_unconditional_write(&self) -> bool {
        match self {
            Self::Get => false,
            Self::Put(Put { condition, .. }) | Self::Delete(condition) => *condition == Condition::default(),
        }
    }

    /// Whether it can change anything. One that cannot may be sent again at will.
    pub fn is_write(&self) -> bool {
        !matches!(self, Self::Get)
    }
}

/// What a store has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// Keep this record.
    Put(Record),
    /// Forget the record.
    Remove,
}

/// What the user is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The record that a get read.
    Found(Record),
    /// A get or a delete met no record.
    NotFound,
    /// A put met no record; its version.
    Created(Version),
    /// A put replaced a record; its version.
    Replaced(Version),
    /// A delete removed the record.
    Deleted,
    /// The condition does not hold; the version that is there. Nothing changed.
    PreconditionFailed(Option<Version>),
}

/// The result of [`apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// For the store.
    pub change: Change,
    /// For the user.
    pub outcome: Outcome,
}

/// Applies `command` to what is there. `version` is what a put's record gets; `now` decides what has expired.
///
/// An expired record is treated as absent, and as garbage that any operation may remove.
pub fn apply(current: Option<&Record>, command: &Command, version: Version, now: Wall) -> Applied {
    let live = current.filter(|record| !record.is_expired(now));
    let garbage = if current.is_some() && live.is_none() { Change::Remove } else { Change::None };
    match command {
        Command::Get => Applied {
            change: garbage,
            outcome: live.map_or(Outcome::NotFound, |record| Outcome::Found(record.clone())),
        },
        Command::Put(Put { condition, .. }) | Command::Delete(condition) if !condition.holds(live) => {
            Applied { change: garbage, outcome: Outcome::PreconditionFailed(live.map(|record| record.version)) }
        }
        Command::Put(put) => {
            let record = Record {
                value: Arc::clone(&put.value),
                content_type: put.content_type.clone(),
                version,
                modified: now,
                expires: put.ttl_ms.map(|ttl| Wall(now.0.saturating_add(ttl))),
            };
            let outcome = if live.is_some() { Outcome::Replaced(version) } else { Outcome::Created(version) };
            Applied { change: Change::Put(record), outcome }
        }
        Command::Delete(_) if live.is_some() => Applied { change: Change::Remove, outcome: Outcome::Deleted },
        Command::Delete(_) => Applied { change: garbage, outcome: Outcome::NotFound },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Incarnation;

    const NOW: Wall = Wall(1_000);

    fn version(n: u64) -> Version {
        Version { epoch: 1, round: 0, n, node: Incarnation(7) }
    }

    fn record(n: u64, expires: Option<u64>) -> Record {
        let value = Arc::from(*b"v");
        Record { value, content_type: None, version: version(n), modified: NOW, expires: expires.map(Wall) }
    }

    fn put(condition: Condition) -> Command {
        Command::Put(Put { value: Arc::from(*b"w"), content_type: None, ttl_ms: Some(5), condition })
    }

    fn run(current: Option<&Record>, command: &Command) -> Applied {
        apply(current, command, version(9), NOW)
    }

    #[test]
    fn a_put_creates_then_replaces_and_takes_its_ttl() {
        let applied = run(None, &put(Condition::default()));
        assert_eq!(applied.outcome, Outcome::Created(version(9)));
        assert!(matches!(applied.change, Change::Put(Record { expires: Some(Wall(1_005)), .. })));
        assert_eq!(run(Some(&record(1, None)), &put(Condition::default())).outcome, Outcome::Replaced(version(9)));
    }

    #[test]
    fn conditions_follow_rfc_9110() {
        let there = record(1, None);
        let is = |tag| Condition { if_match: Some(tag), if_none_match: None };
        let is_not = |tag| Condition { if_match: None, if_none_match: Some(tag) };
        let cases = [
            (is(Tag::Any), true, false),
            (is(Tag::Of(vec![version(1)])), true, false),
            (is(Tag::Of(vec![version(2), version(1)])), true, false),
            (is(Tag::Of(vec![version(2)])), false, false),
            (is(Tag::Of(vec![])), false, false),
            (is_not(Tag::Any), false, true),
            (is_not(Tag::Of(vec![version(1)])), false, true),
            (is_not(Tag::Of(vec![version(2)])), true, true),
        ];
        for (condition, with, without) in cases {
            assert_eq!(condition.holds(Some(&there)), with, "{condition:?}");
            assert_eq!(condition.holds(None), without, "{condition:?}");
        }
        let failed = run(Some(&there), &Command::Delete(is(Tag::Of(vec![]))));
        assert_eq!(failed, Applied { change: Change::None, outcome: Outcome::PreconditionFailed(Some(version(1))) });
    }

    #[test]
    fn an_expired_record_is_absent_for_every_command_and_removed_by_it() {
        let old = record(1, Some(1_000));
        let gone = Applied { change: Change::Remove, outcome: Outcome::NotFound };
        assert_eq!(run(Some(&old), &Command::Get), gone);
        assert_eq!(run(Some(&old), &Command::Delete(Condition::default())), gone);
        assert_eq!(run(Some(&old), &put(Condition::default())).outcome, Outcome::Created(version(9)));
        let any = Condition { if_match: Some(Tag::Any), if_none_match: None };
        assert_eq!(run(Some(&old), &put(any)).outcome, Outcome::PreconditionFailed(None));
        assert!(matches!(run(Some(&record(1, Some(1_001))), &Command::Get).outcome, Outcome::Found(_)));
    }
}
