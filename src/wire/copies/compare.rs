//! Two copies that are compared.

use super::super::decode::{Decoded, Reader, WireError, key, version as version_of};
use super::super::encode::{cursor, version};
use super::super::pb;
use crate::data::compare::{ITEMS_MAX, PARTS};
use crate::data::{Difference, Digest, Key, Range, Slot, Version};
use crate::replication::copies::{COMPARED_RANGES_MAX, COMPARED_SLOTS_MAX, CopyMessage};

/// Slots in a message, and parts and keys of each, at most.
const SLOTS_MAX: usize = COMPARED_SLOTS_MAX;
const RANGES_MAX: usize = COMPARED_RANGES_MAX * (PARTS + 1);
const KEYS_MAX: usize = COMPARED_RANGES_MAX * ITEMS_MAX;

pub(super) fn compare_pb(serial: u64, slots: &[(Slot, u64, Vec<Range>)]) -> pb::CopyCompare {
    let slot = |(slot, epoch, ranges): &(Slot, u64, Vec<Range>)| pb::ComparedSlot {
        slot: slot.0,
        epoch: *epoch,
        ranges: ranges.iter().map(range).collect(),
        keys: Vec::new(),
    };
    pb::CopyCompare { serial, slots: slots.iter().map(slot).collect() }
}

pub(super) fn compared_pb(serial: u64, slots: &[(Slot, Difference)]) -> pb::CopyCompared {
    let item = |(key, ballot): &(Key, Version)| pb::ComparedKey {
        key: key.as_bytes().to_vec(),
        ballot: Some(version(ballot)),
    };
    let slot = |(slot, difference): &(Slot, Difference)| pb::ComparedSlot {
        slot: slot.0,
        epoch: 0,
        ranges: difference.ranges.iter().map(range).collect(),
        keys: difference.items.iter().map(item).collect(),
    };
    pb::CopyCompared { serial, slots: slots.iter().map(slot).collect() }
}

fn range(range: &Range) -> pb::ComparedRange {
    let digest = range.digest.map(|digest| pb::Digest { keys: digest.keys, sum: digest.sum });
    pb::ComparedRange { after: range.after.as_ref().map(cursor), to: range.to.as_ref().map(cursor), digest }
}

impl Reader<'_> {
    pub(super) fn compare(&mut self, of: pb::CopyCompare) -> Decoded<CopyMessage> {
        let slot = |of: pb::ComparedSlot| Ok((Slot(of.slot), of.epoch, self.ranges(of.ranges)?));
        let slots = some(of.slots)?.into_iter().map(slot).collect::<Decoded<_>>()?;
        Ok(CopyMessage::Compare { serial: of.serial, slots })
    }

    pub(super) fn compared(&mut self, of: pb::CopyCompared) -> Decoded<CopyMessage> {
        let slot = |of: pb::ComparedSlot| {
            let (items, ranges) = (items(of.keys)?, self.ranges(of.ranges)?);
            Ok((Slot(of.slot), Difference { items, ranges, damaged: Vec::new() }))
        };
        let slots = some(of.slots)?.into_iter().map(slot).collect::<Decoded<_>>()?;
        Ok(CopyMessage::Compared { serial: of.serial, slots })
    }

    fn ranges(&mut self, all: Vec<pb::ComparedRange>) -> Decoded<Vec<Range>> {
        if all.len() > RANGES_MAX {
            return Err(WireError::TooLarge("the parts of a slot"));
        }
        let range = |of: pb::ComparedRange| {
            Ok(Range {
                after: of.after.map(|after| self.cursor(after)).transpose()?,
                to: of.to.map(|to| self.cursor(to)).transpose()?,
                digest: of.digest.map(|digest| Digest { keys: digest.keys, sum: digest.sum }),
            })
        };
        all.into_iter().map(range).collect()
    }
}

fn some(slots: Vec<pb::ComparedSlot>) -> Decoded<Vec<pb::ComparedSlot>> {
    if slots.len() > SLOTS_MAX { Err(WireError::TooLarge("the slots")) } else { Ok(slots) }
}

fn items(keys: Vec<pb::ComparedKey>) -> Decoded<Vec<(Key, Version)>> {
    if keys.len() > KEYS_MAX {
        return Err(WireError::TooLarge("the keys"));
    }
    let item = |of: pb::ComparedKey| Ok((key(of.key)?, version_of(of.ballot.ok_or(WireError::Missing("a ballot"))?)?));
    keys.into_iter().map(item).collect()
}
