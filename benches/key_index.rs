//! Is an index by key worth its writes? One page of a listing by the memory store's ordered key index, next to a scan of
//! all records that keeps the page's worth of keys; and what the index costs a put.
//!
//! `cargo bench --bench key_index`. Three stores are written to: a plain map of records, that map with the ordered set of
//! keys beside it, and [`MemoryStore`], which also keeps count and knows what expires.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::{Duration, Instant};

use chordkv::base::Wall;
use chordkv::base::limits::LIST_LIMIT_DEFAULT;
use chordkv::data::{Key, ListQuery, MemoryStore, Place, Record, Store};
use common::records::{place, prefix, record, space};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SIZES: [u64; 2] = [10_000, 100_000];
const NOW: Wall = Wall(1_700_000_000_000);
/// Records written between two looks at the clock.
const BATCH: u64 = 1_000;

fn listing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("key_index/list_100");
    for size in SIZES {
        let mut store = MemoryStore::new(space());
        let mut map = BTreeMap::new();
        for n in 0..size {
            store.put(place(n), record(n)).expect("memory");
            map.insert(place(n), record(n));
        }
        let all = ListQuery { prefix: Vec::new(), after: None, limit: LIST_LIMIT_DEFAULT };
        // A hundredth of the keys, from the middle.
        let some = ListQuery { prefix: prefix(50), ..all.clone() };
        for (name, query) in [("all", all), ("prefix", some)] {
            let by_index = store.list(&query, NOW, &|_| true).expect("memory");
            let keys: Vec<Key> = by_index.items.iter().map(|item| item.key.clone()).collect();
            assert_eq!(keys, scan(&map, &query), "both find the same page");
            group.bench_with_input(BenchmarkId::new(format!("index/{name}"), size), &query, |bencher, query| {
                bencher.iter(|| store.list(black_box(query), NOW, &|_| true));
            });
            group.bench_with_input(BenchmarkId::new(format!("scan/{name}"), size), &query, |bencher, query| {
                bencher.iter(|| scan(&map, black_box(query)));
            });
        }
    }
    group.finish();
}

/// One page without an index: every record is looked at, the smallest keys are kept.
fn scan(map: &BTreeMap<Place, Record>, query: &ListQuery) -> Vec<Key> {
    let mut page: BTreeSet<&Key> = BTreeSet::new();
    for (Place { key, .. }, record) in map {
        let wanted = key.as_bytes().starts_with(&query.prefix)
            && query.after.as_ref().is_none_or(|after| key.as_bytes() > after.as_slice())
            && !record.is_expired(NOW);
        if wanted && (page.len() < query.limit || page.last().is_some_and(|last| key < *last)) {
            page.insert(key);
            if page.len() > query.limit {
                page.pop_last();
            }
        }
    }
    page.into_iter().cloned().collect()
}

/// What is written to.
trait Target {
    fn write(&mut self, place: Place, record: Record);
    fn forget(&mut self, place: &Place);
}

#[derive(Default)]
struct Plain(BTreeMap<Place, Record>);

#[derive(Default)]
struct Indexed(BTreeMap<Place, Record>, BTreeSet<Key>);

impl Target for Plain {
    fn write(&mut self, place: Place, record: Record) {
        self.0.insert(place, record);
    }

    fn forget(&mut self, place: &Place) {
        self.0.remove(place);
    }
}

impl Target for Indexed {
    fn write(&mut self, place: Place, record: Record) {
        let key = place.key.clone();
        // A key that is there already is in the index.
        if self.0.insert(place, record).is_none() {
            self.1.insert(key);
        }
    }

    fn forget(&mut self, place: &Place) {
        self.0.remove(place);
        self.1.remove(&place.key);
    }
}

impl Target for MemoryStore {
    fn write(&mut self, place: Place, record: Record) {
        self.put(place, record).expect("memory");
    }

    fn forget(&mut self, place: &Place) {
        self.remove(place).expect("memory");
    }
}

fn writing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("key_index/put");
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        let mut targets: [(&str, Box<dyn Target>); 3] = [
            ("map", Box::new(Plain::default())),
            ("map_and_index", Box::new(Indexed::default())),
            ("memory_store", Box::new(MemoryStore::new(space()))),
        ];
        for (name, target) in &mut targets {
            (0..size).for_each(|n| target.write(place(n), record(n)));
            group.bench_function(BenchmarkId::new(format!("new/{name}"), size), |bencher| {
                bencher.iter_custom(|count| write_timed(target.as_mut(), count, size, true));
            });
            group.bench_function(BenchmarkId::new(format!("overwrite/{name}"), size), |bencher| {
                bencher.iter_custom(|count| write_timed(target.as_mut(), count, size, false));
            });
        }
    }
    group.finish();
}

/// Writes `count` records, spread over `size` that are there; new ones are taken out again outside the time.
fn write_timed(target: &mut dyn Target, count: u64, size: u64, new: bool) -> Duration {
    let mut took = Duration::ZERO;
    for first in (0..count).step_by(usize::try_from(BATCH).unwrap_or(usize::MAX)) {
        let of_batch = first..count.min(first + BATCH);
        let of = |n: u64| if new { size + n % size } else { n * 7_919 % size };
        let batch: Vec<(Place, Record)> = of_batch.map(|n| (place(of(n)), record(n))).collect();
        let written: Vec<Place> = batch.iter().map(|(place, _)| place.clone()).collect();
        let start = Instant::now();
        for (place, record) in batch {
            target.write(place, record);
        }
        took += start.elapsed();
        if new {
            for place in &written {
                target.forget(place);
            }
        }
    }
    took
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = listing, writing
}
criterion_main!(benches);
