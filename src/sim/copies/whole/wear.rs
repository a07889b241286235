//! Bits that flip in the records of whole nodes.

use super::{KEYS, NODES, Node, World, space};
use crate::data::{Done, Store, Trouble, Work, carry_out};
use crate::sim::worn::Worn;

impl World {
    pub(super) fn carry_out(&mut self, at: usize, work: Work) -> Done {
        if let Work::Mend { doubtful, damaged, .. } = &work
            && !(doubtful.is_empty() && damaged.is_empty())
        {
            self.blurred.extend(doubtful.iter().map(|key| key.as_bytes()[1]));
            self.hit(if doubtful.is_empty() { "mended" } else { "doubtful" });
        }
        let Node { store, flipped, .. } = &mut self.nodes[at];
        let done = carry_out(work, &mut Worn { store, flipped });
        let fails = matches!(done, Done::Failed(_)) && !matches!(done, Done::Failed(Trouble::Damaged(_)));
        assert!(!fails, "memory fails: {done:?}");
        if let Done::Dropped(1..) = done {
            self.hit("forgotten");
        }
        done
    }

    /// A bit of some record flips.
    pub(super) fn wear(&mut self) {
        let Some(rng) = self.wear.as_mut() else { return };
        if !rng.chance(2) {
            return;
        }
        let Node { store, flipped, .. } = &mut self.nodes[rng.index(NODES)];
        let place = space().place(Self::key(self.keys[rng.index(KEYS)]));
        if store.register(&place).expect("memory").is_some() {
            flipped.insert(place);
            self.hit("flipped");
        }
    }
}
