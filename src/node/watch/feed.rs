//! What a node knows of the keys that some of its users watch: the version of each, and in which order they changed.
//!
//! It is told by others that a key may have changed ([`Feed::hint`]), or finds out when all are asked for their keys
//! ([`Feed::told`]); what is there then says a read ([`Feed::end_read`]). So a hint may come late, twice or for nothing, and
//! what users are told is always what a read of theirs would have said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::base::Capacity;
use crate::data::register::Ballot;
use crate::data::{Filter, Hint, Item, Key, Version};

/// See the module.
#[derive(Debug)]
pub(super) struct Feed {
    pub filter: Filter,
    entries: BTreeMap<Key, Entry>,
    // Keys that have changed, the earliest first.
    order: BTreeMap<u64, Key>,
    // Those of them that are gone.
    gone: BTreeSet<u64>,
    // Keys that may have changed, or are being read.
    pending: BTreeMap<Key, Pending>,
    reads: u64,
    // Of all keys and their versions.
    sum: u128,
    position: u64,
    // Of what went before it is forgotten what is gone.
    floor: u64,
    // How the sum was at which position, the latest last: other nodes may have given it out.
    history: VecDeque<(u128, u64)>,
    // Tokens that were given out.
    given: VecDeque<(u128, u64)>,
    // Tells the names of places here from those elsewhere.
    salt: u64,
    // Of all keys that it knows or is to read.
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    // 0: it is gone.
    sum: u128,
    position: u64,
    // Hints up to this ballot are old.
    heard: Option<Ballot>,
    // By how many it was told in this listing.
    told: u8,
}

/// A key that may have changed.
#[derive(Debug, Default)]
struct Pending {
    // Somebody is to read it.
    is_dirty: bool,
    // Of something that is not known here. Whatever a read says then is told, also that nothing has changed: users may have
    // seen by a listing what was there in between.
    heard: Option<Ballot>,
    // Reads by their numbers, and the latest one that has ended.
    reads: BTreeSet<u64>,
    ended: u64,
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This is there.
    Is(Version),
    /// Nothing is there.
    Nothing,
    /// It failed.
    Unread,
}

/// Sums, and tokens that were given out, that are remembered.
const HISTORY_MAX: usize = 1_024;
const GIVEN_MAX: usize = 1_024;
/// Keys that are gone of which that is remembered.
pub(super) const GONE_MAX: usize = 4_096;

impl Feed {
    pub fn new(filter: Filter, salt: u64) -> Self {
        Self {
            filter,
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
            gone: BTreeSet::new(),
            pending: BTreeMap::new(),
            // Not those of a feed before it.
            reads: salt >> 1,
            sum: 0,
            position: 0,
            floor: 0,
            history: VecDeque::from([(0, 0)]),
            given: VecDeque::new(),
            salt,
            bytes: 0,
        }
    }

    /// Keys that it knows or is to read.
    pub fn len(&self) -> usize {
        self.entries.len() + self.pending.len()
    }

    /// Bytes of these keys.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All who have copies are about to tell which keys they have.
    pub fn begin_listing(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.told = 0);
    }

    /// One of them has this. At the beginning changes are counted from there on.
    pub fn told(&mut self, item: &Item, is_beginning: bool) {
        let sum = sum_of(&item.key, Some(item.version));
        match self.entries.get_mut(&item.key) {
            Some(entry) if entry.sum == sum => entry.told = entry.told.saturating_add(1),
            None if is_beginning => self.set(&item.key, Entry { sum, position: 0, heard: None, told: 1 }),
            _ => self.pend(&item.key).is_dirty = true,
        }
    }

    /// All have told. What not so many have told alike may have changed.
    pub fn end_listing(&mut self, enough: u8) {
        let is_doubtful = |entry: &Entry| entry.sum != 0 && entry.told < enough;
        let doubtful = self.entries.iter().filter(|(_, entry)| is_doubtful(entry)).map(|(key, _)| key.clone());
        for key in doubtful.collect::<Vec<_>>() {
            self.pend(&key).is_dirty = true;
        }
    }

    /// The beginning is known.
    pub fn begin(&mut self) {
        self.history.clear();
        self.remember();
    }

    /// Somebody says that a key may have changed. Whether that is news.
    pub fn hint(&mut self, key: &Key, hint: Hint) -> bool {
        let ballot = match hint {
            Hint::Accepted { ballot, there } => {
                let known = self.entries.get(key).and_then(|entry| entry.heard);
                let heard = known.max(self.pending.get(key).and_then(|pending| pending.heard));
                let differs = self.differs(key, there);
                // Where nothing is known to be there something may have come and gone that a listing has shown. What was
                // accepted may not have been chosen yet when somebody else told of it, and be chosen now.
                if heard > Some(ballot) || !differs && (heard == Some(ballot) || there.is_some()) {
                    return false;
                }
                Some(ballot)
            }
            Hint::Unknown => None,
        };
        let pending = self.pend(key);
        pending.heard = pending.heard.max(ballot);
        !std::mem::replace(&mut pending.is_dirty, true)
    }

    /// Whether something else than this is here.
    pub fn differs(&self, key: &Key, version: Option<Version>) -> bool {
        self.entries.get(key).map_or(0, |entry| entry.sum) != sum_of(key, version)
    }

    /// A read begins: what is said of the key from now on it may not see. Its number.
    pub fn begin_read(&mut self, key: &Key) -> u64 {
        self.reads += 1;
        let number = self.reads;
        let pending = self.pend(key);
        pending.is_dirty = false;
        pending.reads.insert(number);
        number
    }

    fn pend(&mut self, key: &Key) -> &mut Pending {
        if !self.pending.contains_key(key) {
            self.bytes += key.as_bytes().len();
        }
        self.pending.entry(key.clone()).or_default()
    }

    /// A read has ended. One that began before another that has ended may have seen what went
    /// before, and does not count: whatever it alone has seen somebody tells of.
    pub fn end_read(&mut self, key: &Key, number: u64, found: Found) {
        let Some(pending) = self.pending.get_mut(key) else { return };
        if !pending.reads.remove(&number) {
            return;
        }
        let is_late = number < pending.ended;
        pending.ended = pending.ended.max(number);
        pending.is_dirty |= found == Found::Unread;
        let heard = pending.heard;
        if pending.reads.is_empty() && !pending.is_dirty {
            self.pending.remove(key);
            self.bytes -= key.as_bytes().len();
        }
        match found {
            Found::Is(version) if !is_late => self.observe(key, Some(version), heard),
            Found::Nothing if !is_late => self.observe(key, None, heard),
            _ => {}
        }
    }

    fn observe(&mut self, key: &Key, version: Option<Version>, heard: Option<Ballot>) {
        let known = self.entries.get(key).and_then(|entry| entry.heard);
        if !self.differs(key, version) && heard <= known {
            return;
        }
        self.position += 1;
        self.set(
            key,
            Entry { sum: sum_of(key, version), position: self.position, heard: heard.max(known), told: u8::MAX },
        );
        self.remember();
        while self.gone.len() > GONE_MAX
            && let Some(oldest) = self.gone.pop_first()
        {
            self.floor = self.floor.max(oldest);
            if let Some(key) = self.order.remove(&oldest) {
                self.bytes -= key.as_bytes().len();
                self.entries.remove(&key);
            }
        }
    }

    fn set(&mut self, key: &Key, entry: Entry) {
        match self.entries.insert(key.clone(), entry) {
            Some(before) => {
                self.sum = self.sum.wrapping_sub(before.sum);
                self.order.remove(&before.position);
                self.gone.remove(&before.position);
            }
            None => self.bytes += key.as_bytes().len(),
        }
        self.sum = self.sum.wrapping_add(entry.sum);
        if entry.position > 0 {
            self.order.insert(entry.position, key.clone());
        }
        if entry.sum == 0 {
            self.gone.insert(entry.position);
        }
    }

    fn remember(&mut self) {
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back((self.sum, self.position));
    }

    /// Counts the changes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The present state.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// Which changes somebody has seen who has this. `None`: that is not known any more, or never was.
    pub fn find(&self, token: u128) -> Option<u64> {
        let all = self.given.iter().rev().chain(self.history.iter().rev());
        let position = all.into_iter().find(|(of, _)| *of == token).map(|(_, position)| *position)?;
        (position >= self.floor).then_some(position)
    }

    /// A token for whoever has been told all changes up to this position: the state, where that is all.
    pub fn token(&mut self, position: u64) -> u128 {
        let token = if position == self.position { self.sum } else { self.place(position) };
        self.give(token, position)
    }

    /// A token for whoever begins here. It is no state: by a listing they may see what was never told, and must be told when
    /// it goes, though the state may then be the same as now.
    pub fn first_token(&mut self) -> u128 {
        self.give(self.place(self.position), self.position)
    }

    /// Whether that is a token of [`Feed::first_token`] for this position.
    pub fn is_first(&self, token: u128, position: u64) -> bool {
        token == self.place(position)
    }

    fn place(&self, position: u64) -> u128 {
        first_bytes(&[b"a place", &self.salt.to_be_bytes()[..], &position.to_be_bytes()])
    }

    fn give(&mut self, token: u128, position: u64) -> u128 {
        if !self.given.contains(&(token, position)) {
            if self.given.len() == GIVEN_MAX {
                self.given.pop_front();
            }
            self.given.push_back((token, position));
        }
        token
    }

    /// Whether a key may have changed that nobody has read since.
    pub fn is_dirty(&self) -> bool {
        self.pending.values().any(|pending| pending.is_dirty)
    }

    /// Keys to be read for somebody who has seen all up to this position: at most so many, the earliest changes first.
    pub fn candidates(&self, position: u64, limit: usize) -> Vec<Key> {
        let after = self.order.range(position + 1..).map(|(_, key)| key);
        let dirty = self.pending.iter().filter(|(_, pending)| pending.is_dirty).map(|(key, _)| key);
        let dirty = dirty.filter(|key| self.changed(key).is_none_or(|at| at <= position));
        after.chain(dirty).take(limit).cloned().collect()
    }

    /// When a key changed last, if it did since the beginning.
    pub fn changed(&self, key: &Key) -> Option<u64> {
        self.entries.get(key).map(|entry| entry.position).filter(|position| *position > 0)
    }

    /// Up to where somebody has seen all who has seen all up to `position`, and these keys.
    pub fn seen_up_to(&self, position: u64, keys: &BTreeSet<Key>) -> u64 {
        let mut missed = self.order.range(position + 1..).filter(|(_, key)| !keys.contains(*key));
        missed.next().map_or(self.position, |(at, _)| at - 1)
    }
}

/// 0 where there is nothing.
fn sum_of(key: &Key, version: Option<Version>) -> u128 {
    let Some(Version { epoch, round, node, n }) = version else { return 0 };
    let numbers = [epoch, round, n].map(u64::to_be_bytes);
    first_bytes(&[&numbers.concat(), &node.0.to_be_bytes(), key.as_bytes()]).max(1)
}

/// Of the hash of these parts.
fn first_bytes(parts: &[&[u8]]) -> u128 {
    let bytes = Capacity::MAX.hash(&parts.concat()).to_bytes();
    bytes.iter().take(16).fold(0, |all, byte| all << 8 | u128::from(*byte))
}
