//! The JSON documents of `/v1/ring`, `/v1/node` and `/v1/lookup/{key}`. The command line reads the same types.

use serde::{Deserialize, Serialize};

/// `/v1/ring`: every node that could be reached, in the order of the circle, beginning with the one that was asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RingReport {
    /// The ring's id.
    pub ring: String,
    /// Identifier bits m.
    pub capacity: u32,
    /// How many slots the circle is cut into.
    pub slots: u32,
    /// Length r of the successor lists.
    pub successors: usize,
    /// Copies of each key that the ring was created for.
    pub replicas: usize,
    /// The largest value in bytes.
    pub max_value: usize,
    /// Whether the nodes form one ordered cycle: each one's successor and predecessor are its neighbours in `nodes`.
    pub whole: bool,
    /// Whether every slot has its copies where they belong: on `replicas` of the nodes, or on all if there are fewer.
    pub settled: bool,
    /// The nodes.
    pub nodes: Vec<RingNode>,
    /// Nodes that others name and that did not answer.
    pub unreachable: Vec<NodeName>,
}

/// A node's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeName {
    /// Its id in hexadecimal.
    pub id: String,
    /// Where peers reach it.
    pub addr: String,
}

/// One node of the ring.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RingNode {
    /// Its id in hexadecimal.
    pub id: String,
    /// Where peers reach it.
    pub addr: String,
    /// Where users reach it.
    pub http: Option<String>,
    /// Who it is, apart from its address.
    pub incarnation: String,
    /// `member` or `leaving`.
    pub standing: String,
    /// The address of its predecessor.
    pub predecessor: Option<String>,
    /// The address of its successor.
    pub successor: Option<String>,
    /// The share of the circle that it is the owner of, 0 to 1.
    pub share: f64,
    /// How much of the keys it is to hold, beside others.
    #[serde(default = "one")]
    pub weight: u16,
    /// Slots of which it keeps a copy.
    pub slots: u32,
    /// Slots whose members are not yet what they should be, as far as it can tell.
    #[serde(default)]
    pub slots_moving: u32,
    /// Keys that it stores.
    pub keys: u64,
    /// Bytes of keys, values and content types.
    pub bytes: u64,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// Of the program.
    pub version: String,
}

/// What a node of an earlier version does not say.
fn one() -> u16 {
    1
}

/// `/v1/node`: the node that was asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its id in hexadecimal.
    pub id: String,
    /// Where peers reach it.
    pub addr: String,
    /// Where users reach it.
    pub http: Option<String>,
    /// Who it is, apart from its address.
    pub incarnation: String,
    /// The ring's id.
    pub ring: String,
    /// Identifier bits m.
    pub capacity: u32,
    /// `joining`, `member`, `leaving`, `orphan` or `left`.
    pub standing: String,
    /// Before it on the circle.
    pub predecessor: Option<PeerName>,
    /// After it, nearest first.
    pub successors: Vec<PeerName>,
    /// The finger table, runs of equal entries as one.
    pub fingers: Vec<Finger>,
    /// Peers that it has heard of.
    pub contacts: usize,
    /// What it stores.
    pub store: StoreReport,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// Of the program.
    pub version: String,
}

/// A peer as seen from the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerName {
    /// Its id in hexadecimal.
    pub id: String,
    /// Where peers reach it.
    pub addr: String,
    /// The smoothed round-trip time, if measured.
    pub rtt_us: Option<u64>,
    /// It does not answer at the moment.
    pub suspect: bool,
}

/// A run of the finger table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finger {
    /// The first finger of the run.
    pub first: u32,
    /// The last finger of the run.
    pub last: u32,
    /// What they point to.
    #[serde(flatten)]
    pub peer: PeerName,
}

/// What a node stores.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreReport {
    /// `memory`.
    pub kind: String,
    /// Keys.
    pub keys: u64,
    /// Bytes of keys, values and content types.
    pub bytes: u64,
    /// The number of the latest commit; 0 in memory.
    pub commit: u64,
    /// Slots of which it keeps a copy.
    pub slots: usize,
    /// Of these, slots whose change of members is not over.
    pub slots_changing: usize,
    /// Slots that belong to this node and do not have the members yet that they should have.
    pub slots_to_move: usize,
}

/// `/v1/recover`: slots that have lost so many of their copies that they cannot be served, and what may be lost with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverReport {
    /// Slots of the ring.
    pub slots: u32,
    /// Slots that are not served until enough of the missing nodes come back.
    pub unavailable: u32,
    /// The nodes that those slots need and that are not there.
    pub missing: Vec<Missing>,
    /// What is left of those slots.
    pub copies_left: Vec<CopiesLeft>,
    /// Slots that go on with what was left of them; absent in a dry run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recovered: Option<u32>,
}

/// A node that slots miss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Where peers reached it; `unknown` where nobody knows any more who held the slot.
    pub addr: String,
    /// Who it was, apart from its address.
    pub incarnation: Option<String>,
    /// Another node answers there now: the one that is missing has lost its disk.
    pub is_another: bool,
}

/// Slots of which as many copies are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiesLeft {
    /// So many.
    pub left: usize,
    /// Of so many members; 0: nobody knows any more of how many.
    pub of: usize,
    /// So many changes of members ago they were copies of the slot last: what was written since is not in them.
    #[serde(default)]
    pub behind: u64,
    /// How many slots.
    pub slots: u32,
}

/// `/v1/lookup/{key}`: where a key lives and how a lookup gets there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TraceReport {
    /// The key, lossily as text.
    pub key: String,
    /// Its id in hexadecimal.
    pub key_id: String,
    /// Its slot.
    pub slot: u32,
    /// The Chord successor of the slot's last id.
    pub owner: NodeName,
    /// The nodes that hold the slot, as far as known here; the first coordinates.
    pub replicas: Vec<NodeName>,
    /// The epoch of that view.
    pub epoch: Option<u64>,
    /// The nodes that were asked, in order; the first is the node itself.
    pub hops: Vec<TraceHop>,
    /// From the first question to the last answer.
    pub total_us: u64,
}

/// One hop of a lookup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TraceHop {
    /// Its id in hexadecimal.
    pub id: String,
    /// Where peers reach it.
    pub addr: String,
    /// How long it took to answer; 0 for the node itself.
    pub rtt_us: u64,
    /// It did not answer and was passed by.
    pub silent: bool,
}
