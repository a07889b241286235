//! The real world: sockets, threads, the only clock, signals.
//!
//! [`run`] makes a node of the core's state machine: one loop thread on mio for peers and timers, and the HTTP front's
//! threads for users. No decision about the ring or the data is taken here.

mod clock;
mod connection;
mod data_dir;
pub mod durable;
mod event_loop;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod greeting;
pub mod http;
mod offenders;
mod outbox;
mod peers;
mod refusals;
pub mod ring_key;
mod room;
mod secret_file;
mod seldom;
pub mod settings;
mod storage;
mod sweep;
pub mod tunnel;
mod users;

pub use ring_key::RingKeys;
pub use settings::{Fsync, NodeSettings, RunError};

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mio::{Poll, Waker};
use rustix::process::{Resource, getrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use tracing::info;

use crate::base::limits::{VALUE_BYTES_DEFAULT, VALUE_BYTES_LIMIT};
use crate::base::{Incarnation, Span};
use crate::data::http::Access;
use crate::node::{ChordNode, NodeConfig};
use crate::wire::Hello;
use crate::wire::handshake::{PROTOCOL_MAX, PROTOCOL_MIN};
use clock::Clock;
use event_loop::{EventLoop, Files, LISTENER, WAKER, Word};
use http::{Doors, HttpConfig, HttpFront};
use peers::Peers;
use ring_key::Identity;
use storage::Storage;
use tunnel::Credentials;
use users::Users;

/// Peers' share of the descriptors that the process may have; users get the rest.
const PEER_SHARE: u64 = 4;
/// Connections to peers, at most.
const PEERS_MAX: u64 = 4_096;
/// Of a file of tokens.
const TOKEN_FILE_BYTES_MAX: u64 = 1 << 20;
/// Peers that may wait to be accepted.
const BACKLOG: i32 = 1_024;

/// Runs one node until it has left its ring.
pub fn run(settings: &NodeSettings) -> Result<(), RunError> {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(PEERS_MAX * PEER_SHARE);
    let connections_max = (descriptors / PEER_SHARE).clamp(16, PEERS_MAX);

    // The directory and both ports first: if one is taken, nothing has been started.
    let (drawn, keys) = keys(settings)?;
    let (storage, loaded) = Storage::load(settings, drawn.clone())?;
    let listener = bind_peers(settings.listen)?;
    let listen = listener.local_addr().map_err(|error| failure("the peer port is unusable", &error))?;
    let (front, body_limit, doors) = bind_http(settings, connections_max)?;
    let http = front.local_addr();

    let mut config = node_config(settings, drawn.incarnation(), settings.advertise.unwrap_or(listen), http)?;
    config.store_kind = storage.kind();
    config.overlay.durable = storage.is_durable();
    let mut identity = Some(drawn);
    if let Some(loaded) = loaded {
        if let Some(before) = loaded.addr.filter(|before| *before != config.addr) {
            info!(%before, now = %config.addr, "this node has another address than before");
        }
        config.incarnation = loaded.incarnation;
        identity = loaded.identity;
        config.memory = Some(loaded.memory);
        config.views = loaded.views;
        config.gauge = loaded.gauge;
    }
    let credentials = keys.map(|keys| credentials(keys, identity)).transpose()?;
    let broken = |error: io::Error| failure("the node could not be started", &error);
    let poll = Poll::new().map_err(broken)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(broken)?);
    let words = crossbeam_channel::bounded(64);
    let local = Hello {
        protocol: (PROTOCOL_MIN, PROTOCOL_MAX),
        addr: config.addr,
        incarnation: config.incarnation,
        ring: None,
        wishes: config.wishes,
        software: Arc::clone(&config.version),
    };
    let connections_max = usize::try_from(connections_max).unwrap_or(usize::MAX);
    let peers = Peers::new(listener, LISTENER, poll.registry(), local, credentials, connections_max).map_err(broken)?;
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(broken)?;
    if settings.stop_with_stdin {
        watch_stdin(words.0.clone(), Arc::clone(&waker)).map_err(broken)?;
    }
    let users =
        Users::start(front, body_limit, (doors, settings.cors_origins.clone()), Arc::clone(&waker)).map_err(broken)?;
    // Said only now: whoever reads it may send a signal at once.
    info!(peers = %config.addr, %http, "listening");
    let me = (config.incarnation, config.addr);
    let node = ChordNode::new(config, random_u64()?);
    let clock = Clock::start();
    let parting = None;
    let files = Files { ring_key: settings.ring_key_file.clone(), tokens: settings.http_token_file.clone() };
    EventLoop {
        poll,
        clock,
        node,
        peers,
        users,
        storage,
        signals,
        words,
        waker,
        me,
        files,
        parting,
        told_to_stop: false,
    }
    .run()
}

/// A new key for this node, should it need one, and those of its ring.
fn keys(settings: &NodeSettings) -> Result<(Identity, Option<RingKeys>), RunError> {
    let drawn = Identity::draw().map_err(|message| RunError { message })?;
    let keys = settings.ring_key_file.as_deref().map(RingKeys::load).transpose();
    let keys = keys.map_err(|why| RunError { message: format!("--ring-key-file {why}") })?;
    Ok((drawn, keys))
}

fn credentials(keys: RingKeys, identity: Option<Identity>) -> Result<Credentials, RunError> {
    let identity = identity.ok_or_else(|| RunError {
        message: "this --data-dir is of an earlier version, and its node has no key of its own: start it without \
                  --ring-key-file, let it leave its ring (chordkv leave), and start it with an empty directory"
            .to_owned(),
    })?;
    Ok(Credentials { keys, identity })
}

fn bind_peers(listen: SocketAddr) -> Result<mio::net::TcpListener, RunError> {
    use socket2::{Domain, Protocol, Socket, Type};
    let bind = || {
        let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // A restarted node must not wait for old connections to time out.
        socket.set_reuse_address(true)?;
        socket.bind(&listen.into())?;
        socket.listen(BACKLOG)?;
        Ok(mio::net::TcpListener::from_std(socket.into()))
    };
    bind().map_err(|error: io::Error| taken("--listen", listen, &error))
}

/// Who may ask for what.
fn access(tokens: &Path) -> Result<Access, String> {
    let text = secret_file::read(tokens, TOKEN_FILE_BYTES_MAX)?;
    Access::parse(&text).map_err(|why| format!("{}: {why}", tokens.display()))
}

fn bind_http(settings: &NodeSettings, peers_max: u64) -> Result<(HttpFront, http::BodyLimit, Doors), RunError> {
    // A joiner learns the ring's limit later; until then the largest that any ring may have holds.
    let wished = settings.wishes.value_bytes_max;
    let of_new_ring = settings.seeds.is_empty().then_some(VALUE_BYTES_DEFAULT);
    let body_max = wished.or(of_new_ring).unwrap_or(VALUE_BYTES_LIMIT);
    let mut config = HttpConfig::new(settings.http, body_max);
    config.origins.clone_from(&settings.cors_origins);
    config.descriptors_reserved = peers_max;
    config.answer_timeout = config.answer_timeout.max(settings.request_timeout + Duration::from_secs(5));
    if let Some(tokens) = &settings.http_token_file {
        let access = access(tokens).map_err(|why| RunError { message: format!("--http-token-file {why}") })?;
        config.doors.set(access);
    }
    let (limit, doors) = (config.max_value.clone(), config.doors.clone());
    let front = HttpFront::bind(config).map_err(|error| taken("--http", settings.http, &error))?;
    Ok((front, limit, doors))
}

/// Why an address cannot be listened on, and what to do.
fn taken(flag: &str, addr: SocketAddr, error: &io::Error) -> RunError {
    let message = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{addr} is in use by another process: stop it, or choose another address with {flag}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{addr} is not an address of this host: choose one with {flag}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("listening on {addr} is not permitted: choose a port above 1023 with {flag}")
        }
        _ => format!("cannot listen on {addr} ({flag}): {error}"),
    };
    RunError { message }
}

fn failure(what: &str, error: &io::Error) -> RunError {
    RunError { message: format!("{what}: {error}") }
}

fn node_config(
    settings: &NodeSettings,
    me: Incarnation,
    addr: SocketAddr,
    http: SocketAddr,
) -> Result<NodeConfig, RunError> {
    let span = |duration: Duration| Span(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    let seeds = settings.seeds.iter().filter(|seed| seed.parse() != Ok(addr)).cloned().collect();
    let mut config = NodeConfig::new(addr, me, seeds).with_routing(settings.routing);
    if config.seeds.is_empty() && !settings.seeds.is_empty() {
        let message = format!("--join names only this node itself ({addr}): name another member, or leave it out");
        return Err(RunError { message });
    }
    config.http = Some(http);
    config.wishes = settings.wishes;
    config.ring_if_created = random_u128()?;
    config.overlay.first_request = random_u64()? & 0x0fff_ffff;
    config.request_deadline = span(settings.request_timeout);
    config.drain_timeout = span(settings.drain_timeout);
    config.repair_rate = settings.repair_rate;
    config.overlay.weight = settings.weight;
    config.overlay.lost_after = span(settings.replace_after);
    Ok(config)
}

fn watch_stdin(words: crossbeam_channel::Sender<Word>, waker: Arc<Waker>) -> io::Result<()> {
    let watch = move || {
        let mut stdin = io::stdin().lock();
        let mut scrap = [0; 256];
        while stdin.read(&mut scrap).is_ok_and(|count| count > 0) {}
        // Both fail only once the loop is gone.
        let _ = words.send(Word::StdinEnded);
        let _ = waker.wake();
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(watch).map(drop)
}

fn random_u128() -> Result<u128, RunError> {
    Ok(u128::from(random_u64()?) << 64 | u128::from(random_u64()?))
}

fn random_u64() -> Result<u64, RunError> {
    getrandom::u64().map_err(|error| RunError { message: format!("the system gives no random numbers: {error}") })
}
