//! The memory store at 100,000 keys of 36 bytes with values of 100, next to a plain ordered map that does the same.
//!
//! `cargo bench --bench store`. The map keeps no count, no index by key and none by expiry; for what has expired it must
//! look at every record. `key_index` measures new keys and listings.

mod common;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use chordkv::base::limits::CHUNK_BYTES;
use chordkv::base::{Id, Wall};
use chordkv::data::{Key, MemoryStore, Place, Record, Slot, Store};
use common::records::{place, record, space};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const KEYS: u64 = 100_000;
/// One record in so many has a time to live.
const EXPIRING: u64 = 10;
/// When those have expired that do first.
const NOW: Wall = Wall(1_256);
/// As the node removes them.
const EXPIRED_BATCH: usize = 256;
/// Keys that are touched, a new one each time.
const TOUCHED: u64 = 7_919;

struct Stores {
    store: MemoryStore,
    map: BTreeMap<Place, Record>,
    places: Vec<Place>,
}

impl Stores {
    fn filled() -> Self {
        let (mut store, mut map) = (MemoryStore::new(space()), BTreeMap::new());
        let places: Vec<Place> = (0..KEYS).map(place).collect();
        for (n, place) in (0..KEYS).zip(&places) {
            let expires = (n % EXPIRING == 0).then_some(Wall(1_000 + n / EXPIRING));
            let record = Record { expires, ..record(n) };
            store.put(place.clone(), record.clone()).expect("memory");
            map.insert(place.clone(), record);
        }
        Self { store, map, places }
    }
}

/// A walk over the places that does not follow their order.
fn next<'a>(places: &'a [Place], turn: &mut u64) -> &'a Place {
    *turn = (*turn + TOUCHED) % KEYS;
    &places[usize::try_from(*turn).unwrap_or(0)]
}

fn all(criterion: &mut Criterion) {
    let Stores { mut store, mut map, places } = Stores::filled();
    let mut turn = 0;

    let mut group = criterion.benchmark_group("store/get");
    group.bench_function("memory_store", |bencher| bencher.iter(|| store.get(black_box(next(&places, &mut turn)))));
    group.bench_function("map", |bencher| bencher.iter(|| map.get(black_box(next(&places, &mut turn))).cloned()));
    group.finish();

    let mut group = criterion.benchmark_group("store/scan_a_slot");
    group.bench_function("memory_store", |bencher| {
        bencher.iter(|| store.scan(black_box(next(&places, &mut turn).slot), None, CHUNK_BYTES));
    });
    group.bench_function("map", |bencher| {
        bencher.iter(|| scan(&map, black_box(next(&places, &mut turn).slot), CHUNK_BYTES));
    });
    group.finish();

    let mut group = criterion.benchmark_group("store/find_256_expired");
    assert_eq!(store.expired(NOW, EXPIRED_BATCH).expect("memory").len(), EXPIRED_BATCH);
    group.bench_function("memory_store", |bencher| bencher.iter(|| store.expired(black_box(NOW), EXPIRED_BATCH)));
    group.bench_function("map", |bencher| bencher.iter(|| expired(&map, black_box(NOW))));
    group.finish();

    let mut group = criterion.benchmark_group("store/overwrite");
    group.bench_function("memory_store", |bencher| {
        let entry = || (next(&places, &mut turn).clone(), record(turn));
        bencher.iter_batched(entry, |(place, record)| store.put(place, record), BatchSize::SmallInput);
    });
    group.bench_function("map", |bencher| {
        let entry = || (next(&places, &mut turn).clone(), record(turn));
        bencher.iter_batched(entry, |(place, record)| map.insert(place, record), BatchSize::SmallInput);
    });
    group.finish();

    let mut group = criterion.benchmark_group("store/remove_and_put_back");
    group.bench_function("memory_store", |bencher| {
        let entry = || (next(&places, &mut turn).clone(), record(turn));
        let both = |(place, record): (Place, Record)| {
            store.remove(&place).expect("memory");
            store.put(place, record).expect("memory");
        };
        bencher.iter_batched(entry, both, BatchSize::SmallInput);
    });
    group.bench_function("map", |bencher| {
        let entry = || (next(&places, &mut turn).clone(), record(turn));
        let both = |(place, record): (Place, Record)| {
            map.remove(&place);
            map.insert(place, record)
        };
        bencher.iter_batched(entry, both, BatchSize::SmallInput);
    });
    group.finish();
}

fn scan(map: &BTreeMap<Place, Record>, slot: Slot, budget_bytes: usize) -> Vec<(Key, Record)> {
    let first = Place { slot, id: Id::ZERO, key: Key::new([0]).expect("one byte is a key") };
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for (place, record) in map.range(first..).take_while(|(place, _)| place.slot == slot) {
        if bytes >= budget_bytes {
            break;
        }
        bytes += place.key.as_bytes().len() + record.user_bytes();
        entries.push((place.key.clone(), record.clone()));
    }
    entries
}

/// Those that expired first, as the store gives them.
fn expired(map: &BTreeMap<Place, Record>, now: Wall) -> Vec<Place> {
    let due = map.iter().filter(|(_, record)| record.is_expired(now));
    let mut due: Vec<(Option<Wall>, &Place)> = due.map(|(place, record)| (record.expires, place)).collect();
    due.sort_unstable();
    due.into_iter().take(EXPIRED_BATCH).map(|(_, place)| place.clone()).collect()
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = all
}
criterion_main!(benches);
