//! What the driver is told: checked by whoever calls it, see `cli::settings`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::Weight;
use crate::node::Wishes;
use crate::overlay::Routing;

/// Settings of one node process.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Where peers connect to; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The address that other nodes are told; `None`: the one that was bound.
    pub advertise: Option<SocketAddr>,
    /// The file with the ring's key; `None`: peers are not asked for one, and everything is sent in clear.
    pub ring_key_file: Option<PathBuf>,
    /// Where the HTTP interface listens; port 0 lets the system choose.
    pub http: SocketAddr,
    /// The file with users' tokens; `None`: users need none, but for what only an admin may from elsewhere.
    pub http_token_file: Option<PathBuf>,
    /// Origins of web pages that may ask and read answers; `*`: every one.
    pub cors_origins: Vec<String>,
    /// Whom to join through, `host:port` each; empty to create a ring.
    pub seeds: Vec<String>,
    /// What the operator said about the ring's parameters.
    pub wishes: Wishes,
    /// After how long a user request is answered in any case.
    pub request_timeout: Duration,
    /// After how long a leaver goes even if it still holds slots.
    pub drain_timeout: Duration,
    /// Where the node keeps what shall outlive its process; `None`: nowhere.
    pub data_dir: Option<PathBuf>,
    /// When what is kept there is safe from a power cut.
    pub fsync: Fsync,
    /// How much may be stored, in bytes; `None`: as much as there is room for.
    pub bytes_max: Option<u64>,
    /// How much of the keys this node is to hold, beside others.
    pub weight: Weight,
    /// How long what a missing node holds is kept for it, where nodes keep what they hold.
    pub replace_after: Duration,
    /// Bytes that may be looked through in a second to compare copies; 0: copies are not compared.
    pub repair_rate: u64,
    /// Where lookups go.
    pub routing: Routing,
    /// Stop as on SIGTERM when standard input ends: a child dies with whoever started it.
    pub stop_with_stdin: bool,
}

/// When what was written is safe from a power cut. A process that ends, however it ends, never loses anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before it is acknowledged.
    Always,
    /// This long after it was acknowledged, at most.
    Interval(Duration),
    /// When the system writes it.
    Never,
}

/// Why a node process ended other than in order. The text is one line for the operator that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunError {
    /// For the operator.
    pub message: String,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RunError {}
