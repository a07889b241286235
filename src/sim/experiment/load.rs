//! How evenly keys lie on nodes: by consistent hashing as published, and by slots.

use super::stats::Tally;
use crate::base::{Capacity, Id, Rng};
use crate::data::KeySpace;

/// So many keys on so many nodes, at random places.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Places are drawn from it.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// Places of each node on the circle: more than one are the virtual nodes of the paper.
    pub places: usize,
    /// Keys lie where the last id of their slot does, with 2^p slots; `None`: where their own id does.
    pub slot_bits: Option<u32>,
    /// How many keys.
    pub keys: usize,
}

/// The keys of each node.
pub fn keys_per_node(load: &Load) -> Tally {
    let mut rng = Rng::new(load.seed);
    let capacity = Capacity::MAX;
    let owners = (0..load.nodes).flat_map(|node| std::iter::repeat_n(node, load.places));
    let mut places: Vec<(Id, usize)> = owners.map(|node| (capacity.random(&mut rng), node)).collect();
    places.sort_unstable();
    let space = load.slot_bits.and_then(|bits| KeySpace::new(capacity, bits));
    let mut keys = vec![0; load.nodes];
    for _ in 0..load.keys {
        let id = capacity.random(&mut rng);
        let target = space.map_or(id, |space| space.last_id(space.slot_of(id)));
        let at = places.partition_point(|(place, _)| *place < target) % places.len();
        keys[places[at].1] += 1;
    }
    Tally::of(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_nodes_spread_keys_more_evenly() {
        let load = |places| Load { seed: 1, nodes: 500, places, slot_bits: None, keys: 50_000 };
        let [one, twenty] = [1, 20].map(|places| keys_per_node(&load(places)));
        assert_eq!((one.sum(), one.count()), (50_000, 500));
        assert!(one.percentile(990) > 350 && twenty.percentile(990) < 200, "{one:?} {twenty:?}");
    }

    #[test]
    fn all_keys_of_a_slot_lie_on_one_node() {
        let keys = keys_per_node(&Load { seed: 1, nodes: 50, places: 1, slot_bits: Some(0), keys: 100 });
        assert_eq!((keys.max(), keys.percentile(980)), (100, 0));
    }
}
