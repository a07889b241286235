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
    /// Who holds a copy; the first coordinates. One, until there are copies.
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

    /// Whether this view replaces `other`. Two views of one epoch can only stem from a holder that was wrongly given
    /// up; the members' order decides then, so that all nodes decide alike.
    pub fn replaces(&self, other: &Self) -> bool {
        let rank = |view: &Self| (view.epoch, view.primary().map(|contact| contact.incarnation));
        rank(self) > rank(other)
    }
}

/// The newest view of each slot that this node has heard of: advice on where to ask.
#[derive(Debug, Default)]
pub struct Views {
    of: BTreeMap<Slot, View>,
    // Up to which epoch the views of a slot are certainly over: its holder said that it holds it no more.
    over: BTreeMap<Slot, u64>,
    // Neighbouring slots mostly have the same members: one allocation serves them all.
    latest: Option<Arc<[Contact]>>,
}

impl Views {
    /// The newest view heard of.
    pub fn get(&self, slot: Slot) -> Option<&View> {
        self.of.get(&slot)
    }

    /// The highest epoch of the slot that is known here, be it over or not; 0 if none is.
    pub fn newest_epoch(&self, slot: Slot) -> u64 {
        self.of.get(&slot).map_or(0, |view| view.epoch).max(self.over(slot).unwrap_or(0))
    }

    /// Up to which epoch the slot's views are over.
    pub fn over(&self, slot: Slot) -> Option<u64> {
        self.over.get(&slot).copied()
    }

    /// Nobody holds the slot in `epoch` or an earlier one any more. Unlike what is only forgotten, it is not believed
    /// again when somebody repeats it who has not heard.
    pub fn end(&mut self, slot: Slot, epoch: u64) {
        let over = self.over.entry(slot).or_insert(epoch);
        *over = epoch.max(*over);
        if self.of.get(&slot).is_some_and(|view| view.epoch <= *over) {
            self.of.remove(&slot);
        }
    }

    /// Keeps `view` if it is newer. True if so.
    pub fn learn(&mut self, slot: Slot, mut view: View) -> bool {
        let stands = !view.members.is_empty() && self.over(slot).is_none_or(|over| view.epoch > over);
        let newer = stands && self.of.get(&slot).is_none_or(|known| view.replaces(known));
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
