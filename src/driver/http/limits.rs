//! Every bound of the HTTP front: what the user may set, what is fixed, and the budget of bytes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::counts::Counts;
use super::doors::Doors;

/// Largest head of a request: request line and header fields, with the empty line.
pub(super) const HEAD_MAX: usize = 16 * 1024;
/// Largest request target.
pub(super) const TARGET_MAX: usize = 8 * 1024;
/// Most header fields of a request, and of an answer.
pub(super) const HEADERS_MAX: usize = 64;
/// Largest head of an answer that the back end may give.
pub(super) const REPLY_HEAD_MAX: usize = 64 * 1024;
/// Bytes of lines, extensions and trailers around the data of one chunked body, beyond a few for each chunk.
pub(super) const CHUNK_OVERHEAD_MAX: usize = 16 * 1024;
/// Longest line of a chunked body.
pub(super) const CHUNK_LINE_MAX: usize = 256;
/// Bytes thrown away after an error before the connection is cut.
pub(super) const DRAIN_MAX: usize = 4 * 1024 * 1024;
/// Bytes read from one connection before others get their turn.
pub(super) const READ_TURN: usize = 256 * 1024;
/// Connections accepted in one turn of the loop.
pub(super) const ACCEPT_TURN: usize = 128;
/// Size of the one buffer that sockets are read into.
pub(super) const SCRATCH: usize = 64 * 1024;
/// While memory is short, whoever has taken longer than this to send a request may have to give it up.
pub(super) const SLOW_WHILE_SHORT: Duration = Duration::from_secs(1);
/// Answers up to this size are relayed even when the budget is used up: the refusal would be as large.
pub(super) const SMALL_ANSWER: usize = 1024;
/// Buffers up to this capacity stay with an idle connection.
pub(super) const IDLE_CAPACITY: usize = 1024;
/// Pause of accepting after the system refused a descriptor.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause before a private connection is tried again, and before `tiny_http` is built anew.
pub(super) const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// How long the first round trip of a private connection may take.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How much later than the back end the gate gives up, so that the back end's answer normally wins.
pub(super) const ANSWER_MARGIN: Duration = Duration::from_secs(2);
/// How long a request that was put off may stay so: longer than any wait that a user may ask for.
pub(super) const PARKED_MAX: Duration = Duration::from_secs(360);
/// Numbers that were called before their request was put off, and are remembered.
pub(super) const CALLED_MAX: usize = 1_024;
/// Stack of the threads started here; nothing on them recurses.
pub(super) const STACK: usize = 256 * 1024;
/// Bits of a token that hold a slot's index; more connections than this cannot be counted.
pub(super) const INDEX_BITS: u32 = 20;

/// Descriptors of one private connection: one of the gate, two of `tiny_http`.
const DESCRIPTORS_PER_WORKER: u64 = 3;
/// Descriptors kept for the listener, the pollers and what the process opens in passing.
const DESCRIPTORS_SPARE: u64 = 16;
/// Slowest transfer that the default time-outs of body and answer still let through, bytes a second.
const SLOWEST: usize = 64 * 1024;

const _: () = assert!(TARGET_MAX < HEAD_MAX, "a target of the largest size must fit a head");
const _: () = assert!(HEAD_MAX <= SCRATCH, "one read must be able to bring a whole head");
const _: () = assert!(CHUNK_LINE_MAX < HEAD_MAX, "a line of a chunked body must fit the input buffer");

/// The largest body of a request, shared with whoever learns the ring's limit.
#[derive(Clone, Debug)]
pub struct BodyLimit(Arc<AtomicUsize>);

impl BodyLimit {
    /// A limit in bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// The limit for requests that begin now.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Lowers the limit. It is never raised: buffers and time-outs were sized by the first one.
    pub fn lower_to(&self, bytes: usize) {
        self.0.fetch_min(bytes, Ordering::Relaxed);
    }
}

/// Where to listen, and every bound that is worth choosing. [`HttpConfig::new`] fills in the defaults.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Public address; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Largest body of a request in bytes; more is 413. A ring that is joined later may lower it.
    pub max_value: BodyLimit,
    /// Who may ask for what.
    pub doors: Doors,
    /// Counts what is refused.
    pub counts: Counts,
    /// Web pages that may ask and read answers, by their origins; `*` for all.
    pub origins: Vec<String>,
    /// Private connections to `tiny_http`, each with one request in flight and one thread. Durable writes per second are
    /// bounded by this number over the time of a commit: 32 suits commits under a millisecond, 64 slower ones.
    pub workers: usize,
    /// Most public connections at once; the descriptor limit of the process may lower it.
    pub connections_max: usize,
    /// Descriptors that other parts of the process need (store, peers), kept free of public connections.
    pub descriptors_reserved: u64,
    /// Requests that may wait for a private connection; more are 503.
    pub queue_max: usize,
    /// Bytes that all requests and answers in progress may hold together; more is 503. At least a few `max_value`.
    pub memory_max: usize,
    /// From the first byte of a request, or the accept, to the end of its head.
    pub head_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// From the whole request to its answer; longer is 504.
    pub answer_timeout: Duration,
    /// From the whole answer to its last byte handed to the system.
    pub write_timeout: Duration,
    /// Between an answer and the next request.
    pub idle_timeout: Duration,
    /// After an error, how long the client may take to read it before the connection is cut.
    pub linger_timeout: Duration,
}

impl HttpConfig {
    /// Defaults for values up to `max_value` bytes.
    pub fn new(listen: SocketAddr, max_value: usize) -> Self {
        let transfer = Duration::from_secs(15 + (max_value / SLOWEST) as u64);
        HttpConfig {
            listen,
            max_value: BodyLimit::new(max_value),
            doors: Doors::default(),
            counts: Counts::default(),
            origins: Vec::new(),
            workers: 32,
            connections_max: 8192,
            descriptors_reserved: 0,
            queue_max: 1024,
            memory_max: max_value.saturating_mul(8).max(64 * 1024 * 1024),
            head_timeout: Duration::from_secs(10),
            body_timeout: transfer,
            answer_timeout: Duration::from_secs(30),
            write_timeout: transfer,
            idle_timeout: Duration::from_secs(60),
            linger_timeout: Duration::from_secs(2),
        }
    }

    /// Most public connections under the descriptor limit of the process, or why there can be none.
    pub(super) fn connection_cap(&self) -> io::Result<usize> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.cap_under(limit)
    }

    fn cap_under(&self, limit: Option<u64>) -> io::Result<usize> {
        let refuse = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if self.workers == 0 || self.workers >= 1 << INDEX_BITS {
            return refuse("the number of HTTP workers is out of range");
        }
        let reserve = (self.workers as u64)
            .saturating_mul(DESCRIPTORS_PER_WORKER)
            .saturating_add(DESCRIPTORS_SPARE)
            .saturating_add(self.descriptors_reserved);
        let free = limit.unwrap_or(u64::MAX).saturating_sub(reserve);
        let cap = usize::try_from(free).unwrap_or(usize::MAX).min(self.connections_max).min((1 << INDEX_BITS) - 1);
        if cap == 0 {
            return refuse("the limit of open files leaves none for HTTP connections");
        }
        Ok(cap)
    }
}

/// Bytes held by all connections together. Holders are charged for the capacity of their buffers.
#[derive(Debug)]
pub(super) struct Budget {
    used: usize,
    max: usize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Budget { used: 0, max }
    }

    /// Whether `more` bytes may be allocated.
    pub(super) fn allows(&self, more: usize) -> bool {
        self.used.saturating_add(more) <= self.max
    }

    /// The same for a buffer that is large then: those leave a quarter to heads and small bodies.
    fn allows_large(&self, more: usize) -> bool {
        self.used.saturating_add(more) <= self.max / 4 * 3
    }

    /// Whether it is time to take back what others make little of.
    pub(super) fn is_short(&self) -> bool {
        self.used > self.max / 2
    }

    /// Brings what a holder is charged for in line with what it holds.
    pub(super) fn settle(&mut self, charged: &mut usize, held: usize) {
        // No underflow: `used` is the sum of every holder's `charged`.
        self.used = (self.used - *charged).saturating_add(held);
        *charged = held;
    }
}

/// Makes room for `more` bytes in `buffer`, which never needs to hold over `ceiling`. `false`: the budget forbids it.
pub(super) fn reserve(buffer: &mut Vec<u8>, more: usize, ceiling: usize, budget: &Budget) -> bool {
    let needed = buffer.len().saturating_add(more);
    let capacity = buffer.capacity();
    if needed <= capacity {
        return true;
    }
    let target = capacity.saturating_mul(2).min(ceiling).max(needed);
    let more = target - capacity;
    if !(if target > HEAD_MAX { budget.allows_large(more) } else { budget.allows(more) }) {
        return false;
    }
    buffer.reserve_exact(target - buffer.len());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> HttpConfig {
        HttpConfig::new(([127, 0, 0, 1], 0).into(), 1024)
    }

    #[test]
    fn the_cap_leaves_three_descriptors_a_worker_and_sixteen_spare() {
        let mut config = config();
        assert_eq!(config.cap_under(Some(1024)).unwrap(), 1024 - 3 * 32 - 16);
        config.descriptors_reserved = 100;
        assert_eq!(config.cap_under(Some(1024)).unwrap(), 1024 - 3 * 32 - 16 - 100);
        config.connections_max = 7;
        assert_eq!(config.cap_under(None).unwrap(), 7);
    }

    #[test]
    fn a_limit_that_leaves_no_connection_is_an_error() {
        assert!(config().cap_under(Some(100)).is_err());
    }

    #[test]
    fn a_buffer_grows_only_within_the_budget_and_never_over_its_ceiling() {
        let mut budget = Budget::new(100);
        let (mut charged, mut buffer) = (0, Vec::new());
        assert!(reserve(&mut buffer, 60, 90, &budget));
        buffer.resize(60, 0);
        budget.settle(&mut charged, buffer.capacity());
        assert!(reserve(&mut buffer, 1, 90, &budget));
        assert_eq!(buffer.capacity(), 90);
        budget.settle(&mut charged, buffer.capacity());
        assert!(!reserve(&mut buffer, 41, 200, &budget));
        budget.settle(&mut charged, 0);
        assert!(budget.allows(100) && !budget.allows(101));
    }
}
