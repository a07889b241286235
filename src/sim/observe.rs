//! What a test or a tool sees of a world.

use super::counters::Counters;
use super::watch::RingWatch;
use super::world::{HostId, LookupReport, World};
use crate::base::limits::SUCCESSORS_DEFAULT;
use crate::base::{Capacity, Contact, Rng, Time};
use crate::data::UserReply;
use crate::node::RingParams;
use crate::node::{ChordNode, Stop};
use crate::overlay::Standing;

impl World {
    /// Virtual time since the world began.
    pub fn now(&self) -> Time {
        self.now
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// A digest of everything that happened, in order.
    pub fn trace_hash(&self) -> u64 {
        self.hash
    }

    /// The source of randomness, for whoever drives the world.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// The members' pointers.
    pub fn ring(&self) -> &RingWatch {
        &self.watch
    }

    /// The node of a host, while its process runs.
    pub fn node(&self, host: HostId) -> Option<&ChordNode> {
        self.hosts.get(host as usize)?.node.as_deref()
    }

    /// Why the last process of a host ended, if it ended by itself.
    pub fn stopped(&self, host: HostId) -> Option<&Stop> {
        self.hosts.get(host as usize)?.stopped.as_ref()
    }

    /// Hosts whose process runs.
    pub fn running(&self) -> Vec<HostId> {
        (0..).zip(&self.hosts).filter(|(_, host)| host.node.is_some()).map(|(id, _)| id).collect()
    }

    /// Every host there ever was.
    pub fn all_hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        0..HostId::try_from(self.hosts.len()).unwrap_or(HostId::MAX)
    }

    /// Whether a node has heard of whoever is at another host's address.
    pub fn knows(&self, host: HostId, other: HostId) -> bool {
        let addr = self.host(other).addr;
        let overlay = self.node(host).and_then(ChordNode::overlay);
        overlay.is_some_and(|overlay| overlay.contacts().any(|contact| contact.addr == addr))
    }

    /// Whether a host's disk remembers a ring.
    pub fn remembers(&self, host: HostId) -> bool {
        self.host(host).memory.is_some()
    }

    /// The ring's capacity.
    pub fn capacity(&self) -> Capacity {
        self.ids.capacity()
    }

    /// Running nodes that are members of a ring.
    pub fn members(&self) -> Vec<HostId> {
        let joined = |host: &HostId| {
            self.node(*host).and_then(ChordNode::overlay).is_some_and(|overlay| overlay.standing().is_member())
        };
        self.running().into_iter().filter(joined).collect()
    }

    /// Answers to users since the last call.
    pub fn take_replies(&mut self) -> Vec<(HostId, u64, UserReply)> {
        std::mem::take(&mut self.replies)
    }

    /// Answers to lookups since the last call.
    pub fn take_answers(&mut self) -> Vec<LookupReport> {
        std::mem::take(&mut self.answers)
    }

    /// Lookups without an answer so far.
    pub fn lookups_waiting(&self) -> usize {
        self.lookups.len()
    }

    /// Every running node is a member and has the right neighbours: what `/v1/ring` calls whole. The rest of a successor
    /// list may still be on its way.
    pub fn is_cycle(&self) -> bool {
        let nodes = self.hosts.iter().filter_map(|host| host.node.as_ref());
        let Some(mut members) = nodes.map(|node| node.overlay()).collect::<Option<Vec<_>>>() else { return false };
        members.sort_by_key(|overlay| overlay.me().id);
        let count = members.len();
        let neighbour = |at: usize| (count > 1).then(|| members[at % count].me());
        (0..count).all(|at| {
            members[at].standing().is_member()
                && members[at].successors().first().copied() == neighbour(at + 1)
                && members[at].predecessor() == neighbour(at + count - 1)
        })
    }

    /// Every running node is a member and every pointer is right, to the end of every successor list.
    pub fn is_whole(&self) -> bool {
        self.watch.is_ideal() && self.watch.len() == self.hosts.iter().filter(|host| host.node.is_some()).count()
    }

    /// A member has begun to leave and is not gone yet.
    pub fn is_left_by_somebody(&self) -> bool {
        let mut overlays = self.hosts.iter().filter_map(|host| host.node.as_ref()?.overlay());
        overlays.any(|overlay| overlay.standing() == Standing::Leaving)
    }

    /// The ring is whole, and every slot is held by its owner.
    pub fn is_ideal(&self) -> bool {
        self.is_whole() && self.flaw().is_none()
    }

    /// What keeps the world from being ideal.
    pub fn flaw(&self) -> Option<&'static str> {
        let nodes: Vec<_> = self.hosts.iter().filter_map(|host| host.node.as_ref()).collect();
        let slots: usize = nodes.iter().map(|node| node.slots_held()).sum();
        let copies = |replicas: usize| if self.config.copies { replicas.min(nodes.len()) } else { 1 };
        let wanted = |params: &RingParams| params.space.slots() as usize * copies(params.replicas);
        let wanted = nodes.iter().find_map(|node| node.params()).map_or(0, wanted);
        let at_rest = nodes.iter().all(|node| node.is_at_rest());
        let flaws = [
            (nodes.len() != self.watch.len(), "a node is no member"),
            (!self.watch.is_ideal(), "a pointer is wrong"),
            (slots != wanted, "a slot has too many holders, or too few"),
            (!at_rest, "a slot is on its way"),
        ];
        flaws.into_iter().find_map(|(is_so, flaw)| is_so.then_some(flaw))
    }

    /// The ring and the slots in lines, for failure messages.
    pub fn describe(&self) -> String {
        let slots = self.hosts.iter().enumerate().filter_map(|(id, host)| {
            let node = host.node.as_ref()?;
            let (overlay, settled) = (node.overlay()?, node.settled()?);
            let (standing, held) = (overlay.standing(), node.slots_held());
            let known: Vec<Contact> = overlay.contacts().take(16).collect();
            Some(format!("host {id} {standing:?}: {settled:?} now {held}; knows {known:?}\n"))
        });
        let ring = self.watch.snapshot(self.now).0;
        format!("{:?} {:?}\n{ring}{}", self.flaw(), self.watch.first_wrong(), slots.collect::<String>())
    }

    /// The length r of the successor lists.
    pub fn successors(&self) -> usize {
        self.config.wishes.successors.unwrap_or(SUCCESSORS_DEFAULT)
    }

    /// Who a host's process is to others.
    pub fn contact(&mut self, host: HostId) -> Contact {
        let (addr, incarnation) = (self.host(host).addr, self.host(host).incarnation);
        self.ids.contact(addr, incarnation)
    }
}
