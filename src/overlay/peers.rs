//! Everyone this node has heard of: round-trip times, silence, and the routing candidates among them.
//!
//! Being listed here confers nothing: pointers of the ring are only changed by the operations of `maintain` and `join`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;

use super::hearsay::{Hearsay, network};
use super::message::Standing;
use super::rtt::Rtt;
use crate::base::{Capacity, Contact, Id, Incarnation, Rng, Span, Time, between};

/// One peer, as this node sees it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub contact: Contact,
    pub rtt: Rtt,
    /// `None`: heard of, never heard from.
    pub last_heard: Option<Time>,
    /// The latest moment at which somebody knew it alive, as far as this node was told.
    pub alive: Option<Time>,
    // Nothing for nearly all of the thousands that a node may know.
    silence: Option<Box<Silence>>,
    /// How it stands to the ring, as it has said last.
    pub standing: Option<Standing>,
    /// Known to be in this node's own ring: a lookup has ended at it, or it was a neighbour. Whoever once answered and is
    /// not known to be there is kept before others, as it may be in a ring that should be this one.
    pub in_ring: bool,
}

/// What is known of a peer that does not answer, until it is heard again.
#[derive(Clone, Debug, Default)]
struct Silence {
    /// When a lookup that was passed to it was not acknowledged in time.
    doubted: Option<Time>,
    /// Since when it does not answer this node.
    suspect_since: Option<Time>,
    /// When somebody else last said that it lives although it does not answer this node.
    vouched: Option<Time>,
    /// Its host refused a connection since then.
    refused: bool,
    /// For so long that its place was given up.
    gone: bool,
}

/// What a peer looks like from here, for status reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerReport {
    /// Smoothed round-trip time, if measured.
    pub rtt: Option<Span>,
    /// Whether it does not answer at the moment.
    pub suspect: bool,
}

/// Whose turn it was last in [`Peers::in_turn`] and [`Peers::silent_in_turn`].
#[derive(Debug, Default)]
struct Turns {
    of_silent: Option<Id>,
    of_all: Option<Id>,
}

/// The peers by id. One for each id: a second node with an id is refused at the door.
#[derive(Debug)]
pub(super) struct Peers {
    by_id: BTreeMap<Id, Peer>,
    pub hearsay: Hearsay,
    // Who does not answer, and those of them who count as gone; a peer is in one of the two at most.
    suspects: BTreeSet<Id>,
    gone: BTreeSet<Id>,
    // In the order in which they went.
    gone_order: VecDeque<Id>,
    capacity: Capacity,
    max: usize,
    // Members that are certainly over: their address answers as somebody else, or they said goodbye.
    buried: BTreeSet<Incarnation>,
    buried_order: VecDeque<Incarnation>,
    turns: Turns,
    // Of all that were measured.
    rtt: Rtt,
}

/// How many certainly dead members are remembered, so that late words about them are not believed.
const BURIED_MAX: usize = 1_024;
/// How many members that count as gone are kept, as they may be the other side of a partition.
const GONE_MAX: usize = 1_024;
/// Of how many members of one network this node may know by the word of others only, at least: a ring may well be in one.
const UNHEARD_OF_NETWORK_MIN: usize = 256;
/// How many entries are looked at to find one to evict; bounds the work that a stranger's mention can cause.
const EVICTION_PROBES: usize = 8;
/// Among how many peers the one with the shortest round trip is chosen.
const PROXIMITY_CANDIDATES: usize = 16;
/// What nobody has known alive for so long is no candidate for a route.
const FRESH: Span = Span::secs(2 * 3_600);

impl Peers {
    pub fn new(capacity: Capacity, max: usize) -> Self {
        Self {
            by_id: BTreeMap::new(),
            hearsay: Hearsay::default(),
            suspects: BTreeSet::new(),
            gone: BTreeSet::new(),
            gone_order: VecDeque::new(),
            capacity,
            max,
            buried: BTreeSet::new(),
            buried_order: VecDeque::new(),
            turns: Turns::default(),
            rtt: Rtt::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The most entries there may be: those that are kept before others come on top.
    pub fn bound(&self) -> usize {
        self.max * 2
    }

    pub fn get(&self, contact: &Contact) -> Option<&Peer> {
        self.by_id.get(&contact.id).filter(|peer| peer.contact.incarnation == contact.incarnation)
    }

    fn get_mut(&mut self, contact: &Contact) -> Option<&mut Peer> {
        self.by_id.get_mut(&contact.id).filter(|peer| peer.contact.incarnation == contact.incarnation)
    }

    pub fn at(&self, id: Id) -> Option<&Peer> {
        self.by_id.get(&id)
    }

    // ----- what is heard -----

    /// A peer spoke to us that was thought to live: there is nothing else to note. False if it is another case.
    pub fn heard_again(&mut self, now: Time, contact: &Contact) -> bool {
        match self.by_id.get_mut(&contact.id) {
            Some(peer) if peer.contact == *contact && !peer.is_suspect() => {
                peer.last_heard = Some(now);
                peer.alive = Some(now);
                peer.silence = None;
                true
            }
            _ => false,
        }
    }

    /// A peer spoke to us: it lives. Returns the incarnation that was thought to live at this address before.
    pub fn heard(&mut self, now: Time, contact: Contact, rng: &mut Rng) -> Option<Incarnation> {
        let _ = self.make_room(contact.id, rng, true);
        let lives = |peer: &&Peer| peer.last_heard.is_some() && !peer.is_suspect();
        if self.by_id.get(&contact.id).filter(lives).is_some_and(|peer| peer.contact.addr != contact.addr) {
            // Another address with the id of a living peer: it will be refused, and says nothing about that peer.
            return None;
        }
        self.absolve(contact.id);
        let peer = self.by_id.entry(contact.id).or_insert_with(|| Peer::unknown(contact));
        let replaced = (peer.contact.incarnation != contact.incarnation).then_some(peer.contact.incarnation);
        if replaced.is_some() {
            *peer = Peer::unknown(contact);
        }
        peer.last_heard = Some(now);
        peer.alive = Some(now);
        peer.silence = None;
        replaced
    }

    /// This node is about to speak to a peer of which it knows no more than that.
    pub fn mention(&mut self, contact: Contact, rng: &mut Rng) {
        self.note(contact, None, rng, true);
    }

    /// A peer named others, and knew them alive so long ago; `None`: perhaps never. Of those not known yet a peer may name so many, and there are
    /// so many of one network until they are heard themselves. None takes the place of one that this node has heard.
    pub fn told(
        &mut self,
        now: Time,
        from: &Contact,
        others: impl IntoIterator<Item = (Contact, Option<Span>)>,
        rng: &mut Rng,
    ) {
        let mut unheard = None;
        for (contact, age) in others {
            if !self.by_id.contains_key(&contact.id) {
                let unheard = unheard.get_or_insert_with(|| self.unheard_by_network());
                let of_its = unheard.entry(network(&contact)).or_default();
                if *of_its >= self.unheard_max() || !self.hearsay.admits_contact(now, from) {
                    continue;
                }
                *of_its += 1;
            }
            let alive = age.map(|age| Time(now.0.saturating_sub(age.0)));
            self.note(contact, alive, rng, false);
        }
    }

    /// Of how many members of one network this node may know by the word of others only: the other half is for others.
    fn unheard_max(&self) -> usize {
        (self.max / 2).max(UNHEARD_OF_NETWORK_MIN)
    }

    /// Of how many members of each network this node knows by the word of others only; nothing where there is room anyway.
    fn unheard_by_network(&self) -> BTreeMap<IpAddr, usize> {
        let mut count = BTreeMap::new();
        if self.by_id.len() >= self.unheard_max() {
            for peer in self.by_id.values().filter(|peer| peer.last_heard.is_none()) {
                *count.entry(network(&peer.contact)).or_default() += 1;
            }
        }
        count
    }

    fn note(&mut self, contact: Contact, alive: Option<Time>, rng: &mut Rng, wanted: bool) {
        if self.is_buried(contact.incarnation) {
            return;
        }
        match self.by_id.get_mut(&contact.id) {
            Some(peer) if peer.contact.incarnation == contact.incarnation => peer.alive = peer.alive.max(alive),
            // The process that was there does not answer; this one may have come after it.
            Some(peer) if peer.suspect_since().is_none_or(|since| alive.is_none_or(|alive| alive <= since)) => {}
            Some(_) | None => {
                if self.make_room(contact.id, rng, wanted) {
                    self.absolve(contact.id);
                    self.by_id.insert(contact.id, Peer { alive, ..Peer::unknown(contact) });
                }
            }
        }
    }

    pub fn sample(&mut self, contact: &Contact, rtt: Span) {
        if let Some(peer) = self.by_id.get_mut(&contact.id) {
            peer.rtt.sample(rtt);
            self.rtt.sample(rtt);
        }
    }

    /// A peer was found to be in this node's ring.
    pub fn confirm(&mut self, contact: &Contact) {
        if let Some(peer) = self.get_mut(contact).filter(|peer| !peer.is_suspect()) {
            peer.in_ring = true;
        }
    }

    /// Of all that were measured.
    pub fn usual_round_trip(&self) -> Span {
        self.rtt.smoothed().unwrap_or(Span::ZERO)
    }

    /// The time-out for a request to this peer.
    pub fn timeout(&self, contact: &Contact, attempt: u32) -> Span {
        self.get(contact).map_or_else(Rtt::default, |peer| peer.rtt).timeout(attempt)
    }

    /// The time-out for a lookup that is passed to this peer. One that is skipped too early is probed, and so measured.
    pub fn hop_timeout(&self, contact: &Contact, attempt: u32) -> Span {
        self.get(contact).map_or_else(Rtt::default, |peer| peer.rtt).timeout_or_guess(attempt, &self.rtt)
    }

    // ----- who does not answer -----

    /// The peer does not answer. True if that is news.
    pub fn suspect(&mut self, now: Time, contact: &Contact, refused: bool) -> bool {
        let Some(peer) = self.get_mut(contact) else { return false };
        let news = !peer.is_suspect();
        peer.in_ring = false;
        let silence = peer.silence.get_or_insert_default();
        silence.suspect_since.get_or_insert(now);
        silence.refused |= refused;
        if !silence.gone {
            self.suspects.insert(contact.id);
        }
        news
    }

    /// Nothing comes from the peer at the moment: others are better for a route until it is heard again.
    pub fn doubt(&mut self, now: Time, contact: &Contact) {
        if let Some(peer) = self.get_mut(contact) {
            peer.silence.get_or_insert_default().doubted.get_or_insert(now);
        }
    }

    /// Somebody else says that a suspect lives.
    pub fn vouch(&mut self, now: Time, contact: &Contact) {
        if let Some(peer) = self.get_mut(contact) {
            peer.silence.get_or_insert_default().vouched = Some(now);
        }
    }

    /// This node was not itself for so long: what did not answer then is not to blame.
    pub fn forgive(&mut self, span: Span) {
        for id in self.suspects.iter().chain(&self.gone) {
            if let Some(since) = self.by_id.get_mut(id).and_then(|peer| peer.silence.as_mut()?.suspect_since.as_mut()) {
                *since += span;
            }
        }
    }

    pub fn is_usable(&self, contact: &Contact) -> bool {
        !self.is_buried(contact.incarnation) && self.get(contact).is_none_or(Peer::is_usable)
    }

    /// Whether it was silent to several probes, or is over.
    pub fn is_suspect(&self, contact: &Contact) -> bool {
        self.is_buried(contact.incarnation) || self.get(contact).is_some_and(Peer::is_suspect)
    }

    /// Whether nothing has come from it for twice its time-out after it was asked, or that is proven by probes.
    pub fn is_silent(&self, now: Time, contact: &Contact) -> bool {
        let doubted = self.get(contact).and_then(|peer| peer.silence.as_ref()?.doubted);
        let waited = doubted.is_some_and(|at| now.since(at) >= self.hop_timeout(contact, 0));
        waited || self.is_suspect(contact)
    }

    /// It is no suspect any more.
    fn absolve(&mut self, id: Id) {
        self.suspects.remove(&id);
        if self.gone.remove(&id) {
            self.gone_order.retain(|gone| *gone != id);
        }
    }

    /// Peers that do not answer and do not count as gone yet, in a fixed order.
    pub fn suspects(&self) -> impl Iterator<Item = &Peer> {
        self.suspects.iter().filter_map(|id| self.by_id.get(id))
    }

    pub fn mark_gone(&mut self, contact: &Contact) {
        let Some(peer) = self.get_mut(contact).filter(|peer| !peer.is_gone()) else { return };
        peer.silence.get_or_insert_default().gone = true;
        self.suspects.remove(&contact.id);
        self.gone.insert(contact.id);
        self.gone_order.push_back(contact.id);
        if let Some(oldest) = self.gone_order.front().copied().filter(|_| self.gone.len() > GONE_MAX) {
            self.remove(oldest);
        }
    }

    /// Certainly over, for good.
    pub fn bury(&mut self, contact: &Contact) {
        if self.buried.insert(contact.incarnation) {
            self.buried_order.push_back(contact.incarnation);
            if self.buried_order.len() > BURIED_MAX
                && let Some(oldest) = self.buried_order.pop_front()
            {
                self.buried.remove(&oldest);
            }
        }
        if self.get(contact).is_some() {
            self.remove(contact.id);
        }
    }

    pub fn is_buried(&self, incarnation: Incarnation) -> bool {
        !self.buried.is_empty() && self.buried.contains(&incarnation)
    }

    pub fn remove(&mut self, id: Id) {
        self.by_id.remove(&id);
        self.absolve(id);
    }

    // ----- routes -----

    /// The peer closest before `target` that lies after `me`, should answer, and is none of `tried`.
    pub fn closest_before(&self, now: Time, me: Id, target: Id, tried: &[Incarnation]) -> Option<Contact> {
        // Counter-clockwise from the target: first what is numerically below it, then from the top of the circle. What
        // is not between me and the target any more ends the search.
        let below = self.by_id.range(..target).rev();
        let above = self.by_id.range((Bound::Excluded(target), Bound::Unbounded)).rev();
        below
            .chain(above)
            .map(|(_, peer)| peer)
            .take_while(|peer| between(me, peer.contact.id, target))
            .find(|peer| peer.is_candidate(now) && !tried.contains(&peer.contact.incarnation))
            .map(|peer| peer.contact)
    }

    /// Of the peers that lie so close before `target` as [`Peers::closest_before`] does, or within `reach` of it, the one
    /// with the shortest round trip: as good as the closest, and sooner there.
    pub fn nearest_before(&self, now: Time, me: Id, target: Id, tried: &[Incarnation], reach: Id) -> Option<Contact> {
        let closest = self.closest_before(now, me, target, tried)?;
        let gap = self.capacity.distance(closest.id, target);
        let reach = reach.max(self.capacity.times(gap, 2));
        let below = self.by_id.range(..=closest.id).rev();
        let above = self.by_id.range((Bound::Excluded(closest.id), Bound::Unbounded)).rev();
        let fits = |peer: &&Peer| peer.is_candidate(now) && !tried.contains(&peer.contact.incarnation);
        let near = below.chain(above).map(|(_, peer)| peer).take_while(|peer| {
            between(me, peer.contact.id, target) && self.capacity.distance(peer.contact.id, target) <= reach
        });
        // Unmeasured ones last; of equals the closest.
        let trip = |peer: &&Peer| peer.rtt.smoothed().unwrap_or(Span(u64::MAX));
        near.filter(fits).take(PROXIMITY_CANDIDATES).min_by_key(trip).map(|peer| peer.contact)
    }

    /// The first peer at or after `target` that should answer, if it comes before `me`.
    pub fn first_from(&self, now: Time, me: Id, target: Id) -> Option<Contact> {
        let clockwise = self.by_id.range(target..).chain(self.by_id.range(..target)).map(|(_, peer)| peer);
        clockwise
            .take_while(|peer| peer.contact.id == target || between(target, peer.contact.id, me))
            .find(|peer| peer.is_candidate(now))
            .map(|peer| peer.contact)
    }

    /// Candidates clockwise after `after` with how long ago they were known alive, at most `limit`.
    pub fn page(&self, now: Time, after: Id, limit: usize) -> Vec<(Contact, Span)> {
        let clockwise = self.by_id.range((Bound::Excluded(after), Bound::Unbounded)).chain(self.by_id.range(..after));
        let candidates = clockwise.map(|(_, peer)| peer).filter(|peer| peer.is_candidate(now));
        let aged = candidates.filter_map(|peer| Some((peer.contact, now.since(peer.alive?))));
        aged.take(limit).collect()
    }

    /// What a peer has said of itself.
    pub fn note_standing(&mut self, contact: &Contact, standing: Standing) {
        if let Some(peer) = self.get_mut(contact) {
            peer.standing = Some(standing);
        }
    }

    /// What peers have said of themselves counts no more.
    pub fn forget_standings(&mut self) {
        self.by_id.values_mut().for_each(|peer| peer.standing = None);
    }

    /// No connection to that address can be made: what was said from there counts no more.
    pub fn forget_standing_of(&mut self, id: Id) {
        if let Some(peer) = self.by_id.get_mut(&id) {
            peer.standing = None;
        }
    }

    /// Whether a peer answers that is in a ring, or that has lost its ring too and has an id below this one.
    pub fn carries_on(&self, id: Id) -> bool {
        self.by_id.values().filter(|peer| !peer.is_suspect()).any(|peer| match peer.standing {
            Some(Standing::Member) => true,
            Some(Standing::Orphan) => peer.contact.id < id,
            _ => false,
        })
    }

    /// Peers that are known to be in this node's ring, or to have been.
    pub fn confirmed(&self) -> impl Iterator<Item = Contact> {
        self.by_id.values().filter(|peer| peer.in_ring).map(|peer| peer.contact)
    }

    /// Whether every known peer has said that it lost its ring; true if none is known.
    pub fn all_lost_it(&self) -> bool {
        self.by_id.values().all(|peer| peer.standing == Some(Standing::Orphan) && !peer.is_suspect())
    }

    /// The peer whose turn it is, dead or alive. In turn, as a random place would fall before the same few who lie far from
    /// their neighbours.
    pub fn in_turn(&mut self) -> Option<Contact> {
        let after = self.turns.of_all.map_or(Bound::Unbounded, Bound::Excluded);
        let (id, peer) = self.by_id.range((after, Bound::Unbounded)).chain(&self.by_id).next()?;
        self.turns.of_all = Some(*id);
        Some(peer.contact)
    }

    /// The same of those that do not answer.
    pub fn silent_in_turn(&mut self) -> Option<Contact> {
        let id = self.silent_after(self.turns.of_silent)?;
        self.turns.of_silent = Some(id);
        self.by_id.get(&id).map(|peer| peer.contact)
    }

    /// The next on the circle that does not answer.
    fn silent_after(&self, id: Option<Id>) -> Option<Id> {
        let after = (id.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let next = |range: &dyn Fn(&BTreeSet<Id>) -> Option<Id>| {
            [&self.gone, &self.suspects].into_iter().filter_map(range).min()
        };
        next(&|set| set.range(after).next().copied()).or_else(|| next(&|set| set.first().copied()))
    }

    /// Any one peer that should answer, looked for from a random place on.
    pub fn random_candidate(&self, now: Time, rng: &mut Rng, except: &Contact) -> Option<Contact> {
        let place = self.capacity.random(rng);
        let all = self.by_id.range(place..).chain(self.by_id.range(..place)).map(|(_, peer)| peer);
        all.filter(|peer| peer.is_candidate(now)).map(|peer| peer.contact).find(|contact| contact != except)
    }

    pub fn contacts(&self) -> impl Iterator<Item = Contact> {
        self.by_id.values().map(|peer| peer.contact)
    }

    /// Peers worth remembering beyond this process, those that were heard from first.
    pub fn memorable(&self, limit: usize) -> Vec<Contact> {
        let heard = self.by_id.values().filter(|peer| peer.last_heard.is_some());
        let of = self.by_id.values().filter(|peer| peer.last_heard.is_none());
        heard.chain(of).map(|peer| peer.contact).take(limit).collect()
    }

    /// False if there is none for one that is not `wanted`: that only takes the place of who was never heard either.
    fn make_room(&mut self, newcomer: Id, rng: &mut Rng, wanted: bool) -> bool {
        if self.by_id.len() < self.max || self.by_id.contains_key(&newcomer) {
            return true;
        }
        // Among a few neighbours of a random place, the one that nobody has known alive for longest.
        let place = self.capacity.random(rng);
        let probes = || self.by_id.range(place..).chain(self.by_id.iter()).take(EVICTION_PROBES).map(|(_, peer)| peer);
        let loose = probes().filter(|peer| !peer.is_kept() && (wanted || peer.last_heard.is_none()));
        let full = wanted && self.by_id.len() >= self.bound();
        let victim = loose
            .min_by_key(|peer| peer.alive)
            .or_else(|| probes().min_by_key(|peer| peer.alive).filter(|_| full))
            .map(|peer| peer.contact.id);
        if let Some(id) = victim {
            self.remove(id);
        }
        wanted || victim.is_some()
    }
}

impl Peer {
    fn unknown(contact: Contact) -> Self {
        Self {
            contact,
            rtt: Rtt::default(),
            last_heard: None,
            alive: None,
            silence: None,
            standing: None,
            in_ring: false,
        }
    }

    /// Since when it does not answer this node.
    pub fn suspect_since(&self) -> Option<Time> {
        self.silence.as_ref()?.suspect_since
    }

    pub fn is_suspect(&self) -> bool {
        self.suspect_since().is_some()
    }

    /// Whether its host refuses connections.
    pub fn is_refused(&self) -> bool {
        self.silence.as_ref().is_some_and(|silence| silence.refused)
    }

    /// Whether it has been silent for so long that its place was given up.
    pub fn is_gone(&self) -> bool {
        self.silence.as_ref().is_some_and(|silence| silence.gone)
    }

    /// Since when nobody has heard from a suspect, as far as this node was told.
    pub fn silent_since(&self) -> Option<Time> {
        let silence = self.silence.as_ref()?;
        silence.suspect_since.max(silence.vouched)
    }

    fn is_usable(&self) -> bool {
        self.silence.as_ref().is_none_or(|silence| silence.suspect_since.is_none() && silence.doubted.is_none())
    }

    /// Whether a lookup may be sent to it.
    fn is_candidate(&self, now: Time) -> bool {
        self.is_usable() && self.alive.is_some_and(|at| now.since(at) < FRESH)
    }

    fn is_kept(&self) -> bool {
        self.last_heard.is_some() && !self.in_ring
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(id: u128) -> Contact {
        Contact { id: Id::from_u128(id), addr: ([127, 0, 0, 1], 1).into(), incarnation: Incarnation(id) }
    }

    fn heard(peers: &mut Peers, id: u128) {
        peers.heard(Time(1), contact(id), &mut Rng::new(1));
    }

    #[test]
    fn a_peer_is_small_as_a_node_may_know_thousands() {
        assert!(size_of::<Peer>() <= 128, "{}", size_of::<Peer>());
    }

    #[test]
    fn the_closest_peer_before_a_target_is_found_around_the_circle() {
        let mut peers = Peers::new(Capacity::MAX, 100);
        for id in [10, 20, 30] {
            heard(&mut peers, id);
        }
        peers.mention(contact(25), &mut Rng::new(1));
        let closest = |me: u128, target: u128, tried: &[u128]| {
            let tried: Vec<_> = tried.iter().map(|&id| Incarnation(id)).collect();
            peers.closest_before(Time(1), Id::from_u128(me), Id::from_u128(target), &tried).map(|c| c.incarnation.0)
        };
        assert_eq!(closest(5, 30, &[]), Some(20), "neither the target nor one that nobody has known alive");
        assert_eq!(closest(5, 30, &[20]), Some(10));
        assert_eq!(closest(15, 12, &[]), Some(10), "past zero");
        assert_eq!(closest(15, 9, &[]), Some(30), "past zero with nothing below the target");
        assert_eq!(closest(20, 30, &[]), None);
    }

    #[test]
    fn a_new_incarnation_replaces_the_old_one_and_a_full_table_evicts() {
        let mut peers = Peers::new(Capacity::MAX, 4);
        for id in 1..=6 {
            heard(&mut peers, id);
            peers.confirm(&contact(id));
        }
        assert_eq!(peers.len(), 4);
        let reborn = Contact { incarnation: Incarnation(99), ..contact(6) };
        assert_eq!(peers.heard(Time(2), reborn, &mut Rng::new(1)), Some(Incarnation(6)));
        peers.suspect(Time(3), &reborn, false);
        assert!(!peers.is_usable(&reborn) && peers.suspects().count() == 1);
        peers.bury(&reborn);
        peers.told(Time(9), &contact(1), [(reborn, Some(Span::ZERO))], &mut Rng::new(1));
        assert!(peers.get(&reborn).is_none() && peers.suspects().count() == 0);
    }

    #[test]
    fn everybody_gets_a_turn_and_the_silent_one_of_their_own() {
        let mut peers = Peers::new(Capacity::MAX, 100);
        // One that follows close upon another would hardly ever be the first after a random place.
        for id in [1, 2, 1 << 100, 1 << 120] {
            heard(&mut peers, id);
        }
        let ids = |peers: &mut Peers, count| -> Vec<u128> {
            (0..count).map(|_| peers.in_turn().unwrap().incarnation.0).collect()
        };
        assert_eq!(ids(&mut peers, 5), [1, 2, 1 << 100, 1 << 120, 1]);
        assert_eq!(peers.silent_in_turn(), None);
        peers.suspect(Time(3), &contact(2), false);
        peers.suspect(Time(3), &contact(1 << 120), false);
        assert_eq!(ids(&mut peers, 4), [2, 1 << 100, 1 << 120, 1], "the silent as well");
        let silent: Vec<u128> = (0..3).map(|_| peers.silent_in_turn().unwrap().incarnation.0).collect();
        assert_eq!(silent, [2, 1 << 120, 2]);
    }
}
