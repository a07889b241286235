//! Room in a map that remembers a bounded number of things.

use std::collections::BTreeMap;

/// Before something is noted under `key` in a map of at most `max`: of others the one goes that `at` says is oldest.
pub fn make_room_for<K: Ord + Copy, V, T: Ord>(map: &mut BTreeMap<K, V>, max: usize, key: &K, at: impl Fn(&V) -> T) {
    if map.len() >= max && !map.contains_key(key) {
        let oldest = map.iter().min_by_key(|(_, value)| at(value)).map(|(key, _)| *key);
        oldest.map(|oldest| map.remove(&oldest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_for_a_new_one_and_none_for_one_that_is_there() {
        let mut map = BTreeMap::from([(1, 30), (2, 10), (3, 20)]);
        make_room_for(&mut map, 3, &3, |at| *at);
        assert_eq!(map.len(), 3);
        make_room_for(&mut map, 3, &4, |at| *at);
        assert_eq!(map.into_keys().collect::<Vec<_>>(), [1, 3]);
    }
}
