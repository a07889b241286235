//! Views: who holds a slot, from which epoch on.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::Contact;
use crate::data::Slot;

/// The holders of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Counts the changes; the higher epoch is the newer view.
    pub epoch: u64,
    /// Who holds a copy; the first coordinates.
    pub members: Arc<[Contact]>,
}

impl View {
    /// A view of one.
    pub fn of_one(epoch: u64, holder: Contact) -> Self {
        Self { epoch, members: Arc::from([holder]) }
    }

    /// The member that coordinates; `None` only for an empty view, which no honest peer sends.
    pub fn primary(&self) -> Option<Contact> {
        self.members.first().copied()
    }
}

/// The newest view of each slot that this node has heard of: advice on where to ask.
#[derive(Debug, Default)]
pub struct Views {
    of: BTreeMap<Slot, View>,
    // Neighbouring slots mostly have the same members: one allocation serves them all.
    latest: Option<Arc<[Contact]>>,
}

impl Views {
    /// The newest view heard of.
    pub fn get(&self, slot: Slot) -> Option<&View> {
        self.of.get(&slot)
    }

    /// Keeps `view` if it is newer. True if so.
    pub fn learn(&mut self, slot: Slot, mut view: View) -> bool {
        let known = self.of.get(&slot).map_or(0, |known| known.epoch);
        let newer = !view.members.is_empty() && view.epoch > known;
        if newer {
            match &self.latest {
                Some(latest) if *latest == view.members => view.members = Arc::clone(latest),
                _ => self.latest = Some(Arc::clone(&view.members)),
            }
            self.of.insert(slot, view);
        }
        newer
    }

    /// Forgets what was heard, as it led nowhere.
    pub fn forget(&mut self, slot: Slot) {
        self.of.remove(&slot);
    }
}
