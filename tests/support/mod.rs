//! Real nodes as child processes on ports chosen by the system, and what tests ask of them.
//!
//! A child is killed by its id when its handle is dropped, also when a test panics; should the test binary itself be
//! killed, `--stop-with-stdin` ends the child. What children said on standard error is printed if the test fails.
// Each test binary uses a part of this.
#![allow(dead_code, missing_docs, unused_imports)]

pub mod client;
pub mod peer;
pub mod process;
pub mod ring;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use chordkv::driver::RingKeys;
use socket2::{Domain, Socket, Type};

pub use client::{Client, segment};
pub use process::{Node, Process};
pub use ring::{Ring, ring_of, whole};

/// How long a test waits for anything before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what nothing announces.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        pause();
    }
}

/// Between two looks at what nothing announces.
fn pause() {
    thread::sleep(Duration::from_millis(10));
}

#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}

/// Tests of what the program does run side by side.
pub fn side_by_side() -> RwLockReadGuard<'static, ()> {
    TURN.read().unwrap_or_else(PoisonError::into_inner)
}

/// Tests of how long it takes have the machine for themselves.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}

/// A new ring key in this directory.
pub fn ring_key(dir: &Path) -> String {
    let path = dir.join("ring.key");
    RingKeys::create(&path).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

/// A port that nobody else is given while this lives, and that a node can all the same listen on: both sockets may
/// share it, as this one does not listen. Until a node does, connections are refused.
pub struct Reserved {
    pub addr: SocketAddr,
    _socket: Socket,
}

impl Reserved {
    pub fn port() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("the port may be shared");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        let addr = socket.local_addr().expect("an address").as_socket().expect("an IP address");
        Self { addr, _socket: socket }
    }
}

static TURN: RwLock<()> = RwLock::new(());
