//! Runs of consecutive slots: how a message names a thousand slots in a few bytes.

use crate::data::{KeySpace, Slot};

/// `count` slots from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRun {
    /// The first slot.
    pub first: Slot,
    /// How many, at least 1.
    pub count: u32,
}

impl SlotRun {
    /// Whether a slot is one of them.
    pub fn has(self, slot: Slot) -> bool {
        slot.0.checked_sub(self.first.0).is_some_and(|nth| nth < self.count)
    }

    /// The slots of the run. Those that the ring does not have are left out: a peer may say anything.
    pub fn slots(self, space: KeySpace) -> impl Iterator<Item = Slot> {
        let end = self.first.0.saturating_add(self.count).min(space.slots());
        (self.first.0..end).map(Slot)
    }
}

/// The runs of ascending slots that share a value, with that value.
pub fn runs_of<T: PartialEq>(slots: impl IntoIterator<Item = (Slot, T)>) -> Vec<(SlotRun, T)> {
    let mut runs: Vec<(SlotRun, T)> = Vec::new();
    for (slot, value) in slots {
        match runs.last_mut() {
            Some((run, of)) if run.first.0 + run.count == slot.0 && *of == value => run.count += 1,
            _ => runs.push((SlotRun { first: slot, count: 1 }, value)),
        }
    }
    runs
}

/// The same of slots alone.
pub fn runs_of_slots(slots: impl IntoIterator<Item = Slot>) -> Vec<SlotRun> {
    runs_of(slots.into_iter().map(|slot| (slot, ()))).into_iter().map(|(run, ())| run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Capacity;

    #[test]
    fn runs_join_neighbours_of_one_value_and_never_leave_the_ring() {
        let runs = runs_of([(1, 'a'), (2, 'a'), (3, 'b'), (5, 'b')].map(|(slot, value)| (Slot(slot), value)));
        let spelled: Vec<_> = runs.iter().map(|(run, value)| (run.first.0, run.count, *value)).collect();
        assert_eq!(spelled, [(1, 2, 'a'), (3, 1, 'b'), (5, 1, 'b')]);
        let space = KeySpace::new(Capacity::MAX, 3).unwrap();
        let wild = SlotRun { first: Slot(6), count: u32::MAX };
        assert_eq!(wild.slots(space).count(), 2);
    }
}
