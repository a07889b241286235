//! What a test or a tool sees of a world.

use super::counters::Counters;
use super::watch::RingWatch;
use super::world::{Host, HostId, LookupReport, World};
use crate::base::limits::SUCCESSORS_DEFAULT;
use crate::base::{Capacity, Contact, Rng, Time};
use crate::data::{KeySpace, Slot, UserReply};
use crate::node::{ChordNode, Stop};
use crate::overlay::Standing;
use crate::replication::copies::{Copies, SURVEYED_AT_ONCE};
use crate::replication::survey::Survey;

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

    /// The same of requests with tokens from this one on; the others stay.
    pub fn take_replies_from(&mut self, token: u64) -> Vec<(HostId, u64, UserReply)> {
        self.replies.extract_if(.., |(_, of, _)| *of >= token).collect()
    }

    /// Requests that were put off and are to be asked again, since the last call.
    pub fn take_resumed(&mut self) -> Vec<(HostId, u64)> {
        std::mem::take(&mut self.resumed)
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

    /// The ring is whole, and every slot has its copies, but for those of which a majority is gone for good.
    pub fn is_ideal(&self) -> bool {
        self.is_whole() && self.flaw().is_none()
    }

    /// What keeps the world from being ideal.
    pub fn flaw(&self) -> Option<&'static str> {
        let nodes: Vec<_> = self.hosts.iter().filter_map(|host| host.node.as_ref()).collect();
        let params = nodes.iter().find_map(|node| node.params());
        let replicas = params.map_or(0, |params| params.replicas.min(nodes.len()));
        let wanted = params.map_or(0, |params| params.space.slots() as usize * replicas);
        let slots: usize = nodes.iter().map(|node| node.slots_held()).sum();
        let at_rest = nodes.iter().all(|node| node.is_at_rest());
        // Looked for only where it can be: it takes a while.
        let in_order = |host: &Host| matches!(host.stopped, None | Some(Stop::Left));
        let none_died = self.crashes.is_empty() && self.hosts.iter().all(in_order);
        let lost = if none_died { Vec::new() } else { self.lost_slots() };
        let flaws = [
            (nodes.len() != self.watch.len(), "a node is no member"),
            (!self.watch.is_ideal(), "a pointer is wrong"),
            (lost.is_empty() && slots != wanted, "a slot has too many copies, or too few"),
            (lost.is_empty() && !at_rest, "a slot is on its way"),
            (!none_died && self.unsettled(&lost, replicas).is_some(), "a slot that is not lost is on its way"),
        ];
        flaws.into_iter().find_map(|(is_so, flaw)| is_so.then_some(flaw))
    }

    /// Slots that nobody can serve any more: no majority is left of the newest view, or of every view whose records are
    /// needed. They are out of reach until an operator says what is to become of them.
    pub fn lost_slots(&self) -> Vec<Slot> {
        let nodes: Vec<_> = self.hosts.iter().filter_map(|host| host.node.as_ref()).collect();
        let Some(space) = nodes.iter().find_map(|node| node.params()).map(|params| params.space) else {
            return Vec::new();
        };
        let all = || nodes.iter().filter_map(|node| Some((node.overlay()?.me(), node.copies()?)));
        let mut survey = Survey::new(space, all().map(|(contact, _)| contact));
        for (contact, copies) in all() {
            for from in (0..space.slots()).step_by(SURVEYED_AT_ONCE as usize) {
                survey.add(contact.incarnation, copies.survey(Slot(from)));
            }
        }
        survey.cases().into_iter().map(|case| case.slot).collect()
    }

    /// The members of each slot's newest view that somebody serves, the first first; nobody where nobody does.
    pub fn holders(&self) -> Vec<Vec<Contact>> {
        let space = self.hosts.iter().find_map(|host| host.node.as_ref()?.params()).map(|params| params.space);
        let newest = |slot| self.all_copies().filter_map(|copies| copies.served(slot)).max_by_key(|view| view.epoch);
        let members = |slot| newest(slot).map_or_else(Vec::new, |view| view.members.to_vec());
        space.into_iter().flat_map(KeySpace::all_slots).map(members).collect()
    }

    fn all_copies(&self) -> impl Iterator<Item = &Copies> {
        self.hosts.iter().filter_map(|host| host.node.as_ref()?.copies())
    }

    /// A slot that is not lost and is not served by as many as there should be, or somebody else keeps something of it.
    fn unsettled(&self, lost: &[Slot], replicas: usize) -> Option<Slot> {
        let space = self.hosts.iter().find_map(|host| host.node.as_ref()?.params()).map(|params| params.space);
        let mut others = space.into_iter().flat_map(KeySpace::all_slots).filter(|slot| !lost.contains(slot));
        others.find(|slot| {
            let epochs = || self.all_copies().filter_map(|copies| copies.served(*slot)).map(|view| view.epoch);
            let serving = epochs().filter(|epoch| Some(*epoch) == epochs().max()).count();
            serving != replicas || self.all_copies().filter(|copies| copies.chain(*slot).is_some()).count() != replicas
        })
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
        let slots = slots.collect::<String>();
        let replicas =
            self.hosts.iter().find_map(|host| host.node.as_ref()?.params()).map_or(0, |params| params.replicas);
        let slot = self.unsettled(&self.lost_slots(), replicas);
        let chains = slot.into_iter().flat_map(|slot| {
            let of =
                move |host: &Host| Some(format!("{} {:?}\n", host.addr, host.node.as_ref()?.copies()?.chain(slot)?));
            self.hosts.iter().filter_map(of)
        });
        let chains = chains.collect::<String>();
        format!("{:?} {:?}\n{ring}{slots}{slot:?}\n{chains}", self.flaw(), self.watch.first_wrong())
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
