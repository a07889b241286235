//! The whole ring in one report: every node is asked about itself and for its successors, until nobody new is named.

use std::collections::{BTreeMap, BTreeSet};

use super::chord_node::ChordNode;
use super::message::{Call, NodeInfo, Reply};
use super::report::{Finger, NodeName, NodeReport, PeerName, RingNode, RingReport, StoreReport};
use super::task::{Next, Wake};
use crate::base::{Contact, Id, Incarnation, Now, Span};
use crate::data::{Failure, Metric, UserReply};
use crate::node::RingParams;
use crate::overlay::Standing;

/// A walk in progress.
#[derive(Debug, Default)]
pub(super) struct WalkTask {
    infos: BTreeMap<Incarnation, NodeInfo>,
    named: BTreeSet<Incarnation>,
    waiting: Vec<Contact>,
    open: BTreeMap<u64, Contact>,
    unreachable: Vec<Contact>,
}

/// Nodes asked at the same time.
const ASKED_MAX: usize = 64;
/// Silence after which a node counts as unreachable.
pub(super) const SILENCE: Span = Span::secs(2);

impl ChordNode {
    pub(super) fn run_walk(&mut self, now: Now, id: u64, walk: &mut WalkTask, wake: Wake) -> Next {
        if let Some(next) = self.walk(now, id, walk, wake) {
            return next;
        }
        let Some(inside) = &self.inside else { return Next::Wait };
        Next::Done(json(&walk.report(inside.overlay.me().id, &inside.params)))
    }

    /// Goes on with a walk. `None`: everybody was asked.
    pub(super) fn walk(&mut self, now: Now, id: u64, walk: &mut WalkTask, wake: Wake) -> Option<Next> {
        match wake {
            Wake::Go if walk.infos.is_empty() => {
                if let Some(info) = self.info(now) {
                    walk.add(info);
                }
            }
            // The pause is over: whoever has not answered by now will not.
            Wake::Go => {
                for (request, contact) in std::mem::take(&mut walk.open) {
                    self.drop_call(request);
                    walk.unreachable.push(contact);
                }
            }
            Wake::Reply { request, reply, .. } => {
                walk.open.remove(&request);
                if let Reply::Info(info) = reply {
                    walk.add(*info);
                }
            }
            Wake::Undelivered { request, .. } | Wake::Lost { request, .. } => {
                walk.unreachable.extend(walk.open.remove(&request));
            }
            _ => {}
        }
        while walk.open.len() < ASKED_MAX
            && let Some(contact) = walk.waiting.pop()
        {
            walk.open.insert(self.call(id, contact, Call::Info), contact);
        }
        (!walk.open.is_empty()).then_some(Next::Pause(SILENCE))
    }

    /// The same for whoever looks after many, also before it has joined.
    pub(super) fn metrics(&self, now: Now) -> Vec<Metric> {
        let info = self.info(now);
        let of = |value: fn(&NodeInfo) -> u64| info.as_ref().map_or(0, value);
        let settled = self.settled().unwrap_or_default();
        let (to_move, changing) = (settled.to_move as u64, settled.changing as u64);
        let contacts = self.inside.as_ref().map_or(0, |inside| inside.overlay.contacts().count() as u64);
        let uptime = now.mono.since(self.started).as_millis() / 1_000;
        vec![
            Metric::gauge("chordkv_uptime_seconds", "Since this node has started.", uptime),
            Metric::gauge(
                "chordkv_in_ring",
                "Whether this node is a member of its ring: 1 or 0.",
                of(|info| u64::from(info.standing.is_member())),
            ),
            Metric::gauge("chordkv_contacts", "Peers that this node has heard of.", contacts),
            Metric::gauge("chordkv_keys", "Keys of which this node has a copy.", of(|info| info.keys)),
            Metric::gauge("chordkv_bytes", "Bytes of keys and values of which it has a copy.", of(|info| info.bytes)),
            Metric::gauge("chordkv_slots", "Slots of which it has a copy.", of(|info| info.slots.into())),
            Metric::gauge("chordkv_slots_changing", "Slots whose change of members is under way here.", changing),
            Metric::gauge("chordkv_slots_to_move", "Slots of this node that do not have their copies yet.", to_move),
            Metric::gauge(
                "chordkv_requests_in_progress",
                "Requests of users that this node works on.",
                self.tasks_running() as u64,
            ),
        ]
    }

    /// The report about this node alone.
    pub(super) fn node_report(&self, now: Now) -> UserReply {
        let (Some(inside), Some(info)) = (&self.inside, self.info(now)) else {
            return UserReply::Failed(Failure::NotServing("this node has not joined a ring yet".to_owned()));
        };
        let overlay = &inside.overlay;
        let capacity = inside.params.space.capacity();
        let name = |contact: &Contact| {
            let peer = overlay.peer(contact);
            PeerName {
                id: capacity.hex(contact.id),
                addr: contact.addr.to_string(),
                rtt_us: peer.and_then(|peer| peer.rtt).map(|rtt| rtt.0),
                suspect: peer.is_some_and(|peer| peer.suspect),
            }
        };
        let runs: Vec<_> = overlay.fingers().runs().collect();
        let ends = runs.iter().skip(1).map(|(first, _)| first - 1).chain([capacity.bits() - 1]);
        let fingers = runs.iter().zip(ends);
        let settled = inside.copies.settled();
        json(&NodeReport {
            id: capacity.hex(info.contact.id),
            addr: info.contact.addr.to_string(),
            http: info.http.map(|addr| addr.to_string()),
            incarnation: info.contact.incarnation.to_string(),
            ring: format!("{:032x}", inside.params.ring),
            capacity: capacity.bits(),
            standing: standing_name(info.standing).to_owned(),
            predecessor: info.predecessor.as_ref().map(name),
            successors: info.successors.iter().map(name).collect(),
            fingers: fingers.map(|((first, peer), last)| Finger { first: *first, last, peer: name(peer) }).collect(),
            contacts: overlay.contacts().count(),
            store: StoreReport {
                kind: self.config.store_kind.to_owned(),
                keys: info.keys,
                bytes: info.bytes,
                commit: self.jobs.gauge.commit,
                slots: inside.copies.held(),
                slots_changing: settled.changing,
                slots_to_move: settled.to_move,
            },
            uptime_seconds: info.uptime_ms / 1_000,
            version: info.version.to_string(),
        })
    }
}

impl WalkTask {
    /// Who has answered, and is in the ring.
    pub fn living(&self) -> impl Iterator<Item = Contact> {
        self.infos.values().filter(|info| info.standing.is_member()).map(|info| info.contact)
    }

    /// Who was named and has not.
    pub fn unreachable(&self) -> &[Contact] {
        &self.unreachable
    }

    fn add(&mut self, info: NodeInfo) {
        self.named.insert(info.contact.incarnation);
        for contact in info.successors.iter().chain(&info.predecessor) {
            if self.named.insert(contact.incarnation) {
                self.waiting.push(*contact);
            }
        }
        self.infos.insert(info.contact.incarnation, info);
    }

    pub fn report(&self, first: Id, params: &RingParams) -> RingReport {
        let capacity = params.space.capacity();
        let mut nodes: Vec<&NodeInfo> = self.infos.values().filter(|info| info.standing.is_member()).collect();
        nodes.sort_by_key(|info| capacity.distance(first, info.contact.id));
        let count = nodes.len();
        let neighbour = |at: usize| (count > 1).then(|| nodes[at % count].contact);
        let whole = (0..count).all(|at| {
            nodes[at].successors.first().copied() == neighbour(at + 1)
                && nodes[at].predecessor == neighbour(at + count - 1)
        });
        let share = |at: usize| match neighbour(at + count - 1) {
            Some(before) => fraction(capacity.distance(before.id, nodes[at].contact.id), capacity.bits()),
            None => 1.0,
        };
        // A copy of each slot at as many nodes as there should be, and nobody knows of one that is on its way.
        let staying = nodes.iter().filter(|info| info.standing == Standing::Member).count();
        let copies: u64 = nodes.iter().map(|info| u64::from(info.slots)).sum();
        let wanted = u64::from(params.space.slots()) * params.replicas.min(staying) as u64;
        let settled = copies == wanted && nodes.iter().all(|info| info.slots_moving == 0);
        let name = |contact: &Contact| NodeName { id: capacity.hex(contact.id), addr: contact.addr.to_string() };
        RingReport {
            ring: format!("{:032x}", params.ring),
            capacity: capacity.bits(),
            slots: params.space.slots(),
            successors: params.successors,
            replicas: params.replicas,
            max_value: params.value_bytes_max,
            whole,
            settled,
            nodes: (0..count).map(|at| ring_node(nodes[at], share(at), params)).collect(),
            unreachable: self.unreachable.iter().map(name).collect(),
        }
    }
}

fn ring_node(info: &NodeInfo, share: f64, params: &RingParams) -> RingNode {
    let address = |contact: &Contact| contact.addr.to_string();
    RingNode {
        id: params.space.capacity().hex(info.contact.id),
        addr: address(&info.contact),
        http: info.http.map(|addr| addr.to_string()),
        incarnation: info.contact.incarnation.to_string(),
        standing: standing_name(info.standing).to_owned(),
        predecessor: info.predecessor.as_ref().map(address),
        successor: info.successors.first().map(address),
        share,
        weight: info.weight.get(),
        slots: info.slots,
        slots_moving: info.slots_moving,
        keys: info.keys,
        bytes: info.bytes,
        uptime_seconds: info.uptime_ms / 1_000,
        version: info.version.to_string(),
    }
}

/// `distance` / 2^m, to the precision of its highest 52 bits.
fn fraction(distance: Id, m: u32) -> f64 {
    let bytes = distance.to_bytes();
    let value = bytes.iter().fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte));
    let size = 2.0_f64.powi(i32::try_from(m).unwrap_or(160));
    // Four digits are plenty for a share, and keep the document short.
    (value / size * 10_000.0).round() / 10_000.0
}

fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Joining => "joining",
        Standing::Member => "member",
        Standing::Leaving => "leaving",
        Standing::Orphan => "orphan",
        Standing::Left => "left",
    }
}

/// A document as a reply.
pub(super) fn json(document: &impl serde::Serialize) -> UserReply {
    match serde_json::to_vec_pretty(document) {
        Ok(bytes) => UserReply::Json(bytes),
        // Only maps with odd keys and failing writers fail; the reports have neither.
        Err(error) => UserReply::Failed(Failure::Unavailable(error.to_string())),
    }
}
