//! The memory store at 100,000 keys of 36 bytes with values of 100, next to a plain ordered map that does the same; and the
//! durable one, every commit safe, next to the bare engine.
//!
//! `cargo bench --bench store`. The map keeps no count, no index by key and none by expiry; for what has expired it must
//! look at every record. `key_index` measures new keys and listings. The bare engine keeps key and value in one table, with
//! the settings of ours, and nobody asks it for conditions, versions or checksums. At the end stands how many bytes went to
//! the device for each byte stored (as the system counts them; none where it counts nothing, as in memory).

#![allow(clippy::cast_precision_loss)] // Ratios.

mod common;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use chordkv::base::limits::CHUNK_BYTES;
use chordkv::base::{Id, Wall};
use chordkv::data::register::{Ballot, OpId, grant};
use chordkv::data::{
    Answer, Ask, Command, Condition, Done, Key, MemoryStore, Place, Put, Record, Slot, Store, Vote, Work, carry_out,
};
use chordkv::driver::durable::sqlite::{self, SqliteStore, Syncs};
use common::is_test_mode;
use common::records::{place, record, space};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// One record in so many has a time to live.
const EXPIRING: u64 = 10;
/// When those have expired that do first.
const NOW: Wall = Wall(1_256);
/// As the node removes them.
const EXPIRED_BATCH: usize = 256;
/// Keys that are touched, a new one each time.
const TOUCHED: u64 = 7_919;

/// Keys that there are.
fn keys() -> u64 {
    if is_test_mode() { 10_000 } else { 100_000 }
}

struct Stores {
    store: MemoryStore,
    map: BTreeMap<Place, Record>,
    places: Vec<Place>,
}

impl Stores {
    fn filled() -> Self {
        let (mut store, mut map) = (MemoryStore::new(space()), BTreeMap::new());
        let places: Vec<Place> = (0..keys()).map(place).collect();
        for (n, place) in (0..keys()).zip(&places) {
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
    *turn = (*turn + TOUCHED) % places.len() as u64;
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

// ----- durable -----

/// Puts in one commit.
const GROUPS: [u64; 4] = [1, 8, 64, 512];

/// Ours and the bare engine, with the same keys.
struct Durable {
    store: SqliteStore,
    bare: rusqlite::Connection,
    places: Vec<Place>,
    turn: u64,
    n: u64,
    _dir: tempfile::TempDir,
}

impl Durable {
    fn filled() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let open = |name: &str| sqlite::open(&dir.path().join(name), Syncs::EachCommit).expect("a file");
        let store = SqliteStore::new(open("ours.db"), space()).expect("a store");
        let bare = open("bare.db");
        bare.execute_batch("CREATE TABLE bare (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
            .expect("a table");
        let places: Vec<Place> = (0..keys()).map(place).collect();
        let mut both = Self { store, bare, places: Vec::new(), turn: 0, n: 0, _dir: dir };
        for some in places.chunks(10_000) {
            both.store.begin().expect("a transaction");
            both.bare.execute_batch("BEGIN").expect("a transaction");
            for (n, place) in (0..).zip(some) {
                // As long as what overwrites it.
                both.store.put(place.clone(), record(n + keys())).expect("a disk");
                put_bare(&both.bare, place, &record(n));
            }
            both.store.commit().expect("a disk");
            both.bare.execute_batch("COMMIT").expect("a disk");
        }
        Self { places, ..both }
    }

    fn next(&mut self) -> (Place, Record) {
        self.n += 1;
        // Another value each time: one that is the same is not written.
        let value = format!("{:0100}", self.n).into_bytes().into();
        (next(&self.places, &mut self.turn).clone(), Record { value, ..record(self.n + keys()) })
    }

    /// As the node does it: a member that has the word carries a command out, in the group's transaction.
    fn put_ours(&mut self, group: u64) {
        self.store.begin().expect("a transaction");
        for _ in 0..group {
            let (place, record) = self.next();
            let put = Put { value: record.value, content_type: None, ttl_ms: None, condition: Condition::default() };
            let id = OpId { node: record.version.node, n: self.n, issued: NOW };
            let grant = grant(1, record.version.node);
            // Above those that everything was put with at the start.
            let ballot = Ballot { n: self.n + 2 * keys(), ..grant };
            let ask = Ask::Lead { ballot, id, command: Command::Put(put), again: false, now: NOW };
            let work = Work::Vote(Box::new(Vote { place, grant, ask }));
            assert!(matches!(carry_out(work, &mut self.store), Done::Voted(Answer::Led(..))));
        }
        self.store.commit().expect("a disk");
    }

    fn put_bare(&mut self, group: u64) {
        self.bare.execute_batch("BEGIN IMMEDIATE").expect("a transaction");
        for _ in 0..group {
            let (place, record) = self.next();
            put_bare(&self.bare, &place, &record);
        }
        self.bare.execute_batch("COMMIT").expect("a disk");
    }
}

fn put_bare(bare: &rusqlite::Connection, place: &Place, record: &Record) {
    let mut statement = bare.prepare_cached("INSERT OR REPLACE INTO bare VALUES (?1, ?2)").expect("a statement");
    statement.execute(rusqlite::params![place.key.as_bytes(), &record.value[..]]).expect("a disk");
}

fn get_bare(bare: &rusqlite::Connection, place: &Place) -> Vec<u8> {
    let mut statement = bare.prepare_cached("SELECT value FROM bare WHERE key = ?1").expect("a statement");
    statement.query_row([place.key.as_bytes()], |row| row.get(0)).expect("a value")
}

fn durable(criterion: &mut Criterion) {
    let mut both = Durable::filled();
    for size in GROUPS {
        let mut group = criterion.benchmark_group("store/durable_puts");
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::new("ours", size), |bencher| bencher.iter(|| both.put_ours(size)));
        group.bench_function(BenchmarkId::new("bare", size), |bencher| bencher.iter(|| both.put_bare(size)));
        group.finish();
    }
    let mut group = criterion.benchmark_group("store/durable_get");
    let mut turn = 0;
    let Durable { store, bare, places, .. } = &both;
    group.bench_function("ours", |bencher| bencher.iter(|| store.get(black_box(next(places, &mut turn)))));
    group.bench_function("bare", |bencher| bencher.iter(|| get_bare(bare, black_box(next(places, &mut turn)))));
    group.finish();
    let mut group = criterion.benchmark_group("store/durable_scan_a_slot");
    group.bench_function("ours", |bencher| {
        bencher.iter(|| store.scan(black_box(next(places, &mut turn).slot), None, CHUNK_BYTES));
    });
    group.finish();
    if !is_test_mode() {
        device_bytes(&mut both);
    }
}

/// How many bytes the device is written for each byte of keys and values, for overwrites all over the keys.
fn device_bytes(both: &mut Durable) {
    const PUTS: u64 = 8_192;
    let written = || -> u64 {
        let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        line.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let keys = keys();
    println!("device bytes per byte stored, {PUTS} overwrites of {keys} keys: puts per commit, ours, bare, ratio");
    for size in GROUPS {
        let mut per_byte = [0.0; 2];
        for (of, bytes) in per_byte.iter_mut().enumerate() {
            let before = written();
            for _ in 0..PUTS / size {
                if of == 0 { both.put_ours(size) } else { both.put_bare(size) }
            }
            *bytes = (written() - before) as f64 / (PUTS * 136) as f64;
        }
        println!("{size:>4} {:>6.1} {:>6.1} {:>5.2}", per_byte[0], per_byte[1], per_byte[0] / per_byte[1]);
    }
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
    targets = all, durable
}
criterion_main!(benches);
