//! Every bound that more than one module relies on, and the relations between them.

/// The largest frame between peers, length prefix not counted.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// The largest value that a ring may be created for.
pub const VALUE_BYTES_LIMIT: usize = 3 << 20;
/// The default of `--max-value`.
pub const VALUE_BYTES_DEFAULT: usize = 1 << 20;
/// The longest key.
pub const KEY_BYTES_MAX: usize = 1_024;
/// The longest Content-Type that is kept.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;
/// The longest reason or address text that a peer may send.
pub const TEXT_BYTES_MAX: usize = 256;

/// The default length `r` of the successor list.
pub const SUCCESSORS_DEFAULT: usize = 16;
/// The longest successor list that a ring may be created with.
pub const SUCCESSORS_MAX: usize = 64;
/// The default number of slot bits `p`; a slot is a 1/2^p share of the circle.
pub const SLOT_BITS_DEFAULT: u32 = 10;
/// The largest `p`.
pub const SLOT_BITS_MAX: u32 = 16;
/// The default number of copies `R`.
pub const REPLICAS_DEFAULT: usize = 3;
/// The most copies that a ring may be created with.
pub const REPLICAS_MAX: usize = 16;

/// The most hops that a lookup may take before it is dropped; O(log N) needs far fewer.
pub const HOPS_MAX: u32 = 64;
/// Members that a node remembers beyond its process.
pub const CONTACTS_REMEMBERED_MAX: usize = 256;
/// The most ids in the `If-Match` or `If-None-Match` of one request.
pub const CONDITIONS_MAX: usize = 32;

/// Messages that may wait for one peer.
pub const PEER_QUEUE_MESSAGES_MAX: usize = 256;
/// Bytes of small messages that may wait for one peer; a single larger message is let through an empty queue.
pub const PEER_QUEUE_BYTES_MAX: usize = 1 << 20;
/// Bulk transfer bytes that may be on their way to one peer without an acknowledgement.
pub const BULK_CREDIT_BYTES: usize = 4 << 20;
/// One chunk of a bulk transfer ends after this many bytes of records, or after one record.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Keys in one page of a listing.
pub const LIST_LIMIT_MAX: usize = 1_000;
/// Keys in one page of a listing unless the user says otherwise.
pub const LIST_LIMIT_DEFAULT: usize = 100;

/// Changes in one answer to who watches.
pub const WATCHED_AT_ONCE_MAX: usize = 256;
/// Filters that a node is told of at once, and their bytes.
pub const FILTERS_MAX: usize = 64;
/// See [`FILTERS_MAX`].
pub const FILTER_BYTES_MAX: usize = 16 << 10;
/// Keys in one notice of changes.
pub const HINTS_MAX: usize = 256;

/// User requests in progress on one node; beyond it they are answered 503.
pub const REQUESTS_MAX: usize = 1_024;

/// Room for everything of a record but its value, and for the envelope around it.
const RECORD_OVERHEAD_BYTES: usize = KEY_BYTES_MAX + CONTENT_TYPE_BYTES_MAX + 4_096;

const _: () = assert!(
    VALUE_BYTES_LIMIT + RECORD_OVERHEAD_BYTES <= FRAME_BYTES_MAX,
    "the largest record must fit into a frame, or it could never move to another node"
);
const _: () = assert!(VALUE_BYTES_DEFAULT <= VALUE_BYTES_LIMIT, "the default must be allowed");
const _: () = assert!(
    CHUNK_BYTES + VALUE_BYTES_LIMIT + RECORD_OVERHEAD_BYTES <= FRAME_BYTES_MAX,
    "a chunk may pass its size by one record and must still fit into a frame"
);
const _: () = assert!(
    LIST_LIMIT_MAX * (KEY_BYTES_MAX + CONTENT_TYPE_BYTES_MAX + 64) <= FRAME_BYTES_MAX,
    "a page of the longest keys must fit into a frame"
);
const _: () = assert!(SLOT_BITS_DEFAULT <= SLOT_BITS_MAX && SUCCESSORS_DEFAULT <= SUCCESSORS_MAX);
