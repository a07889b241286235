//! One overlay among peers that are played by hand: every message is chosen.
#![allow(clippy::many_single_char_names, clippy::needless_for_each)] // Nodes of a figure have one letter.

use super::*;
use crate::base::{Capacity, Contact, Id, Incarnation, Rng, Span, Time};
use crate::overlay::mutation::Mutation;

/// Contacts in the order of the circle.
fn circle<const N: usize>() -> [Contact; N] {
    let mut all: [Contact; N] = std::array::from_fn(|n| {
        let port = 4_000 + u16::try_from(n).unwrap();
        Contact::new(Capacity::MAX, ([127, 0, 0, 1], port).into(), Incarnation(n as u128 + 1))
    });
    all.sort();
    all
}

/// The node under test and its clock.
struct Table {
    now: Time,
    node: Overlay,
}

impl Table {
    fn new(me: Contact) -> Self {
        Self { now: Time(1_000_000), node: Overlay::new(me, OverlayConfig::default(), Rng::new(1)) }
    }

    /// A member between `before` and the head of `list`, which has heard from all of them.
    fn member(me: Contact, before: Contact, list: &[Contact]) -> Self {
        let mut table = Self::entered(me, before, list);
        table.hear(before, RingMessage::Notify);
        list.iter().for_each(|contact| {
            table.node.handle_alive(table.now, *contact);
        });
        table.node.vouched_by = Some(list[0].incarnation);
        table.sent();
        table
    }

    /// The successor's next answer says that `before` comes before it.
    fn vouch(&mut self, from: Contact, before: Contact) {
        self.pass(OverlayConfig::default().stabilize_interval_busy * 2);
        let list = [&self.node.successors()[1..], &[self.node.me()]].concat();
        assert!(self.answer(from, Some(before), &list), "it is asked at every round");
    }

    /// A member that has just come in, and nobody has said that it is its successor.
    fn entered(me: Contact, before: Contact, list: &[Contact]) -> Self {
        let mut table = Self::new(me);
        table.ask_to_join(before);
        table.grant(before, list);
        assert_eq!((table.node.standing(), table.node.successors()), (Standing::Member, list));
        table.sent();
        table
    }

    fn ask_to_join(&mut self, before: Contact) {
        self.node.join(self.now, before);
        let lookup = self.sent().into_iter().find_map(|(_, message)| match message {
            RingMessage::Lookup { lookup, .. } => Some(lookup),
            _ => None,
        });
        let found = Found { request: lookup.unwrap().request, owner: before, before, hops: 1, silent: 0 };
        self.hear(before, RingMessage::Found(found));
    }

    fn grant(&mut self, before: Contact, list: &[Contact]) {
        let request = self.sent().into_iter().find_map(|(to, message)| match message {
            RingMessage::Join { request } if to == before => Some(request),
            _ => None,
        });
        let verdict = JoinVerdict::Granted(list.to_vec());
        self.hear(before, RingMessage::JoinReply { request: request.unwrap(), verdict });
    }

    fn hear(&mut self, from: Contact, message: RingMessage) {
        self.node.handle_message(self.now, from, message);
    }

    /// What was sent since the last call.
    fn sent(&mut self) -> Vec<(Contact, RingMessage)> {
        let effects = std::iter::from_fn(|| self.node.poll_effect());
        effects
            .filter_map(|effect| match effect {
                Effect::Send { to, message } => Some((to, message)),
                _ => None,
            })
            .collect()
    }

    fn pass(&mut self, span: Span) {
        let end = self.now + span;
        while let Some(at) = self.node.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.node.handle_timeout(at);
        }
        self.now = end;
    }

    /// `from` answers the latest question that was put to it.
    fn answer(&mut self, from: Contact, predecessor: Option<Contact>, successors: &[Contact]) -> bool {
        let asked = self.sent().into_iter().rev().find_map(|(to, message)| match message {
            RingMessage::GetNeighbours { request } if to == from => Some(request),
            _ => None,
        });
        let Some(request) = asked else { return false };
        let (standing, successors) = (Standing::Member, successors.to_vec());
        self.hear(from, RingMessage::Neighbours { request, standing, predecessor, successors, weights: Vec::new() });
        true
    }

    fn verdict_on(&mut self, joiner: Contact) -> JoinVerdict {
        self.hear(joiner, RingMessage::Join { request: 77 });
        let reply = self.sent().into_iter().find_map(|(to, message)| match message {
            RingMessage::JoinReply { request: 77, verdict } if to == joiner => Some(verdict),
            _ => None,
        });
        reply.unwrap()
    }

    fn released(&mut self, leaver: Contact) -> Option<bool> {
        self.sent().into_iter().find_map(|(to, message)| match message {
            RingMessage::LeaveReply { request: 88, released } if to == leaver => Some(released),
            _ => None,
        })
    }
}

fn must_wait(verdict: &JoinVerdict) -> bool {
    matches!(verdict, JoinVerdict::RetryAfter(_))
}

#[test]
fn a_lookup_skips_a_silent_hop_after_one_time_out() {
    let [a, b, c, d] = circle();
    let mut table = Table::member(a, d, &[b, c, d]);
    table.node.probe(table.now, d);
    assert!(table.answer(d, Some(c), &[a, b, c]), "its round-trip time is known");
    table.node.lookup(table.now, 5, d.id);
    // Repairs of fingers look up as well.
    let wanted = |message: &RingMessage| matches!(message, RingMessage::Lookup { lookup, .. } if lookup.target == d.id);
    let asked = |sent: Vec<(Contact, RingMessage)>| -> Vec<Contact> {
        sent.into_iter().filter(|(_, message)| wanted(message)).map(|(to, _)| to).collect()
    };
    assert_eq!(asked(table.sent()), [d], "the owner, where everybody is known");
    table.pass(rtt::RTO_MIN);
    assert_eq!(asked(table.sent()), []);
    table.pass(Span::millis(20));
    assert_eq!(asked(table.sent()), [c], "the closest before it, after one time-out");
}

fn lookup(request: u64, origin: Contact, target: Id, aim: Aim) -> Lookup {
    Lookup { aim, hops: 1, ..Lookup::new(request, origin, target, Want::Owner) }
}

#[test]
fn the_owner_answers_and_passes_on_what_belongs_to_who_came_in_before_it() {
    let [a, b, c, d] = circle();
    let mut table = Table::member(c, b, &[d, a, b]);
    let answer = |table: &mut Table| {
        table.sent().into_iter().find(|(_, message)| !matches!(message, RingMessage::LookupAck { .. }))
    };
    table.hear(a, RingMessage::Lookup { hop: 1, lookup: lookup(1, d, c.id, Aim::Neighbour) });
    let found = Found { request: 1, owner: c, before: b, hops: 2, silent: 0 };
    assert_eq!(answer(&mut table), Some((d, RingMessage::Found(found))));
    table.hear(a, RingMessage::Lookup { hop: 2, lookup: lookup(2, d, b.id, Aim::Neighbour) });
    assert!(
        matches!(answer(&mut table), Some((to, RingMessage::Lookup { lookup, .. })) if to == b && lookup.aim == Aim::Neighbour)
    );
    let silent = Lookup { silent: 1, silent_last: Some(b.incarnation), ..lookup(3, d, b.id, Aim::Neighbour) };
    table.hear(a, RingMessage::Lookup { hop: 3, lookup: silent });
    assert!(matches!(answer(&mut table), Some((to, RingMessage::Lookup { .. })) if to == b), "so somebody else says");
    table.pass(rtt::RTO_FIRST + Span::millis(20));
    let sent = table.sent();
    let found = Found { request: 3, owner: c, before: b, hops: 2, silent: 2 };
    assert!(sent.contains(&(d, RingMessage::Found(found))), "this node has waited for it too: {sent:?}");
    table.hear(a, RingMessage::Lookup { hop: 4, lookup: Lookup { request: 4, ..silent } });
    let found = Found { request: 4, owner: c, before: b, hops: 2, silent: 1 };
    assert_eq!(answer(&mut table), Some((d, RingMessage::Found(found))), "and need not again");
}

#[test]
fn a_process_that_was_stopped_blames_nobody_for_what_it_did_not_hear_meanwhile() {
    let [a, b, c, d] = circle();
    let mut table = Table::member(a, d, &[b, c, d]);
    table.node.probe(table.now, c);
    table.node.probe(table.now, d);
    table.now += Span::secs(30);
    table.hear(b, RingMessage::Notify);
    table.node.handle_timeout(table.now);
    let suspect = |table: &Table, peer| table.node.peer(&peer).is_some_and(|peer| peer.suspect);
    assert!(!suspect(&table, c) && !suspect(&table, d), "thirty seconds late, it has heard nothing");
    assert_eq!((table.node.predecessor(), table.node.doubt()), (Some(d), 1));
    table.pass(Span::secs(6));
    assert!(suspect(&table, c), "they had their time anew");
}

#[test]
fn who_answers_others_does_not_count_as_gone() {
    let [a, b, c, d] = circle();
    let mut table = Table::member(a, d, &[b, c, d]);
    let gone = |vouched: bool| {
        let mut table = Table::member(a, d, &[b, c, d]);
        table.node.probe(table.now, c);
        let mut gone = false;
        for _ in 0..200 {
            table.pass(Span::millis(100));
            for (to, message) in table.sent().into_iter().filter(|(to, _)| *to != c) {
                match message {
                    RingMessage::ProbeFor { contact } if vouched => table.hear(to, RingMessage::Vouch { contact }),
                    RingMessage::GetNeighbours { request } => {
                        let (standing, predecessor, successors) = (Standing::Member, None, vec![d, a]);
                        table.hear(
                            to,
                            RingMessage::Neighbours { request, standing, predecessor, successors, weights: Vec::new() },
                        );
                    }
                    _ => {}
                }
            }
            gone |= table.node.is_gone(&c);
        }
        gone
    };
    assert!(gone(false) && !gone(true));
    table.hear(c, RingMessage::Notify);
    table.sent();
    table.hear(b, RingMessage::ProbeFor { contact: c });
    assert_eq!(table.sent(), [(b, RingMessage::Vouch { contact: c })], "it was heard a moment ago");
}

#[test]
fn a_peer_that_makes_up_contacts_of_one_network_fills_neither_the_table_nor_takes_a_place_in_it() {
    let [before, me, next, others @ ..] = circle::<200>();
    let mut table = Table::member(me, before, &[next]);
    let member = |table: &Table, contact: &Contact| table.node.peers.get(contact).is_some_and(|peer| peer.in_ring);
    for other in &others {
        table.node.handle_alive(table.now, *other);
        table.node.peers.confirm(other);
    }
    let made_up = |network: u16, n: u16| {
        let [high, low] = network.to_be_bytes();
        let addr = if network == 0 { ([10, 9, 0, 1], n).into() } else { ([11, high, low, 1], n).into() };
        Contact::new(Capacity::MAX, addr, Incarnation(1 << 64 | u128::from(network) << 32 | u128::from(n)))
    };
    let tell = |table: &mut Table, made_up: &dyn Fn(u16) -> Contact| {
        let all: Vec<Contact> = (1..=600).map(made_up).collect();
        for some in all.chunks(16) {
            let successors = some.to_vec();
            let (standing, predecessor) = (Standing::Member, None);
            // Asked for or not.
            let lie = RingMessage::Neighbours { request: 1, standing, predecessor, successors, weights: Vec::new() };
            table.hear(next, lie);
        }
    };
    tell(&mut table, &|n| made_up(0, n));
    assert_eq!(table.node.peers.len(), 199 + 256, "as many as one peer may name at once");
    for round in 1..100 {
        table.pass(Span::secs(13));
        tell(&mut table, &|n| made_up(0, 600 * round + n));
    }
    let of = |table: &Table, network: u8| {
        table
            .node
            .peers
            .contacts()
            .filter(|contact| contact.addr.ip().to_string().starts_with(&format!("{network}.")))
            .count()
    };
    assert_eq!(of(&table, 10), OverlayConfig::default().contacts_max / 2, "the other half is for others");
    // Of many networks: there is room for no more, and none of it is anybody's who was heard.
    for round in 0..100 {
        table.pass(Span::secs(13));
        tell(&mut table, &|n| made_up(1 + round * 40 + n % 40, n));
    }
    assert_eq!(table.node.peers.len(), OverlayConfig::default().contacts_max);
    assert!(of(&table, 11) > 800);
    assert_eq!(others.iter().filter(|other| member(&table, other)).count(), others.len());
}

#[test]
fn acknowledgements_of_hops_wait_a_little_and_share_a_frame() {
    let [a, b, c, d] = circle();
    let mut table = Table::member(a, d, &[b, c, d]);
    for hop in 1..=3 {
        table.hear(d, RingMessage::Lookup { hop, lookup: lookup(hop, c, b.id, Aim::Way) });
    }
    let passed_on =
        |message: &RingMessage| matches!(message, RingMessage::Lookup { lookup, .. } if lookup.aim == Aim::Neighbour);
    assert!(table.sent().iter().all(|(to, message)| *to == b && passed_on(message)));
    table.pass(OverlayConfig::default().ack_delay);
    let acks: Vec<_> =
        table.sent().into_iter().filter(|(_, message)| matches!(message, RingMessage::LookupAck { .. })).collect();
    assert_eq!(acks, [(d, RingMessage::LookupAck { hops: vec![1, 2, 3] })]);
}

#[test]
fn rectify_pings_the_old_predecessor_and_keeps_one_that_lives() {
    let [a, b, c, d] = circle();
    let mut table = Table::member(a, d, &[b, c, d]);
    table.hear(c, RingMessage::Notify);
    assert_eq!(table.node.predecessor(), Some(d));
    assert!(table.answer(d, Some(c), &[a, b, c]), "the old one is asked");
    assert_eq!(table.node.predecessor(), Some(d));
    table.hear(c, RingMessage::Notify);
    table.pass(Span::secs(2));
    assert_eq!(table.node.predecessor(), Some(c), "the old one is silent");
}

#[test]
fn a_join_admits_one_at_a_time() {
    let [a, b, c, d, e] = circle();
    let mut table = Table::member(a, e, &[d, e]);
    assert_eq!(table.verdict_on(b), JoinVerdict::Granted(vec![d, e]));
    assert!(must_wait(&table.verdict_on(c)));
    assert_eq!(table.verdict_on(b), JoinVerdict::Granted(vec![d, e]), "its answer was lost");
    table.hear(b, RingMessage::Offer { contact: b });
    assert!(table.answer(b, Some(a), &[d, e, a]));
    assert_eq!(table.node.successors(), [b, d, e]);
    assert_eq!(table.verdict_on(c), JoinVerdict::NotHere, "it belongs behind the first");
}

#[test]
fn a_joiner_that_never_arrives_frees_its_place() {
    let [a, b, c, d, e] = circle();
    let mut table = Table::member(a, e, &[d, e]);
    assert_eq!(table.verdict_on(b), JoinVerdict::Granted(vec![d, e]));
    table.now += OverlayConfig::default().admission;
    assert_eq!(table.verdict_on(c), JoinVerdict::Granted(vec![d, e]));
}

#[test]
fn a_joiner_does_not_come_in_with_a_list_that_is_long_on_its_way() {
    let [a, b, c] = circle();
    let mut table = Table::new(b);
    table.ask_to_join(a);
    let late = OverlayConfig::default().admission;
    table.now += Span(late.0 / 2);
    table.grant(a, &[c, a]);
    assert_eq!(table.node.standing(), Standing::Joining, "its place may be another's by now");
}

#[test]
fn nobody_is_let_in_while_the_successor_is_being_replaced() {
    let [a, b, c, d] = circle();
    let mut table = Table::member(a, d, &[c, d]);
    table.hear(c, RingMessage::Leave { request: 88, successors: vec![d, a] });
    let asked = table.sent();
    assert!(must_wait(&table.verdict_on(b)), "its list would begin with the leaver");
    let (_, RingMessage::GetNeighbours { request }) = asked[0] else { panic!("{asked:?}") };
    let reply = RingMessage::Neighbours {
        request,
        standing: Standing::Member,
        predecessor: None,
        successors: vec![a],
        weights: Vec::new(),
    };
    table.hear(d, reply);
    assert_eq!(table.released(c), Some(true));
    assert!(must_wait(&table.verdict_on(b)), "the new successor takes the leaver for its predecessor");
    table.vouch(d, a);
    assert_eq!(table.verdict_on(b), JoinVerdict::Granted(vec![d, a]));
}

#[test]
fn a_leaver_is_not_released_past_a_node_that_does_not_answer() {
    let [a, b, c, d] = circle();
    let mut table = Table::member(a, d, &[b, c, d]);
    table.hear(b, RingMessage::Leave { request: 88, successors: vec![c, d, a] });
    table.node.handle_unreachable(table.now, c.addr, true);
    assert_eq!(table.released(b), Some(false), "whoever follows the silent one, the leaver's list is too old to say");
    assert_eq!(table.node.successors().first(), Some(&b));
    table.hear(b, RingMessage::Leave { request: 88, successors: vec![a] });
    assert_eq!(table.released(b), Some(true));
    assert!(table.node.is_alone(), "the leaver was the only other member");
}

#[test]
fn a_leaver_that_named_its_successor_does_not_release_it() {
    let [a, b, c, d] = circle();
    let mut table = Table::member(b, a, &[c, d, a]);
    table.node.begin_leaving();
    table.node.depart(table.now);
    table.sent();
    table.hear(c, RingMessage::Leave { request: 88, successors: vec![d, a, b] });
    assert_eq!(table.released(c), Some(false), "the predecessor was told that c comes next");
}

#[test]
fn a_member_beside_the_ring_lets_nobody_in_and_releases_nobody() {
    let [a, b, c, d] = circle();
    let mut table = Table::entered(b, a, &[d, a]);
    assert!(must_wait(&table.verdict_on(c)));
    table.hear(d, RingMessage::Leave { request: 88, successors: vec![a, b] });
    assert_eq!(table.released(d), Some(false));
    table.hear(a, RingMessage::Notify);
    table.sent();
    assert!(must_wait(&table.verdict_on(c)), "d answers for the whole arc behind a");
    table.vouch(d, b);
    assert_eq!(table.verdict_on(c), JoinVerdict::Granted(vec![d, a, b]));
}

#[test]
fn a_successor_that_keeps_naming_another_delays_joiners_but_does_not_shut_them_out() {
    let [a, b, c, d] = circle();
    let mut table = Table::member(a, d, &[c, d]);
    assert_eq!(table.verdict_on(b), JoinVerdict::Granted(vec![c, d]));
    let mut table = Table::member(a, d, &[c, d]);
    table.vouch(c, d);
    assert!(must_wait(&table.verdict_on(b)), "c answers for what lies behind d");
    assert!(must_wait(&table.verdict_on(b)), "asking again does not help");
    table.now += Span::secs(3);
    assert_eq!(table.verdict_on(b), JoinVerdict::Granted(vec![c, d, a]), "b may reach whom this node does not");
}

#[test]
fn a_newcomer_whose_list_skips_the_successor_is_told_of_it_first() {
    let [a, b, c, d] = circle();
    let mut table = Table::member(a, d, &[c, d]);
    table.hear(b, RingMessage::Offer { contact: b });
    assert!(table.answer(b, Some(a), &[d, a]));
    assert_eq!(table.node.successors(), [c, d], "to take it would put c out of the ring");
    assert!(table.sent().contains(&(b, RingMessage::Offer { contact: c })));
    table.hear(b, RingMessage::Offer { contact: b });
    assert!(table.answer(b, Some(a), &[c, d, a]));
    assert_eq!(table.node.successors(), [b, c, d]);
    // Without this rule c is out.
    let mut table = Table::member(a, d, &[c, d]);
    table.node.config.mutation = Some(Mutation::TakesWhoSkips);
    table.hear(b, RingMessage::Offer { contact: b });
    assert!(table.answer(b, Some(a), &[d, a]));
    assert_eq!(table.node.successors(), [b, d]);
}

#[test]
fn a_newcomer_whose_list_skips_one_further_on_is_taken_once_it_knows_it() {
    let [a, b, c, d, e] = circle();
    let mut table = Table::member(a, e, &[c, d, e]);
    let offer = |table: &mut Table, list: &[Contact]| {
        table.hear(b, RingMessage::Offer { contact: b });
        assert!(table.answer(b, Some(a), list));
    };
    offer(&mut table, &[c, e, a]);
    assert_eq!(table.node.successors(), [c, d, e], "if c died now, d would be off the ring");
    offer(&mut table, &[c, d, e]);
    assert_eq!(table.node.successors(), [b, c, d, e]);
}

#[test]
fn a_newcomer_that_does_not_know_the_dead_is_taken() {
    let [a, b, c, d, e] = circle();
    let mut table = Table::member(a, e, &[c, d, e]);
    table.node.handle_unreachable(table.now, d.addr, true);
    table.hear(b, RingMessage::Offer { contact: b });
    assert!(table.answer(b, Some(a), &[c, e, a]));
    assert_eq!(table.node.successors(), [b, c, e]);
}

#[test]
fn interleaved_rings_do_not_wait_for_each_other_for_ever() {
    let [a, b, c, d] = circle();
    let mut table = Table::member(a, c, &[c]);
    for _ in 0..2 {
        table.hear(b, RingMessage::Offer { contact: b });
        assert!(table.answer(b, Some(d), &[d]));
        table.now += Span::secs(4);
    }
    assert_eq!(table.node.successors().first(), Some(&b));
}

#[test]
fn stale_reply_after_head_change() {
    let [a, b, c, d] = circle();
    let mut table = Table::member(a, d, &[c, d]);
    table.pass(Span::millis(200));
    let asked = table.sent();
    let request = asked.iter().find_map(|(to, message)| match message {
        RingMessage::GetNeighbours { request } if *to == c => Some(*request),
        _ => None,
    });
    table.hear(b, RingMessage::Offer { contact: b });
    assert!(table.answer(b, Some(a), &[c, d, a]));
    let (standing, successors) = (Standing::Member, vec![d, a]);
    let stale = RingMessage::Neighbours {
        request: request.unwrap(),
        standing,
        predecessor: Some(a),
        successors,
        weights: Vec::new(),
    };
    table.hear(c, stale);
    assert_eq!(table.node.successors(), [b, c, d], "c is not the head any more: its word comes too late");
}

#[test]
fn a_list_may_name_the_owner_but_only_the_member_before_the_target_lets_one_without_a_predecessor_answer() {
    let [a, b, c, d] = circle();
    let mut table = Table::member(a, d, &[b, c, d]);
    for (target, aim) in [(b, Aim::Neighbour), (c, Aim::Listed)] {
        table.node.lookup(table.now, 5, target.id);
        let to_owner = |(to, message): &(Contact, RingMessage)| {
            *to == target && matches!(message, RingMessage::Lookup { lookup, .. } if lookup.aim == aim)
        };
        assert!(table.sent().iter().any(to_owner), "{target:?} is asked as {aim:?}");
    }
    let mut table = Table::member(c, b, &[d, a, b]);
    table.node.predecessor = None;
    let answer = |table: &mut Table| {
        table.sent().into_iter().find(|(_, message)| !matches!(message, RingMessage::LookupAck { .. }))
    };
    table.hear(a, RingMessage::Lookup { hop: 1, lookup: lookup(1, d, b.id, Aim::Listed) });
    assert!(
        matches!(answer(&mut table), Some((to, RingMessage::Lookup { lookup, .. })) if to == a && lookup.aim == Aim::Walk),
        "somebody may lie between: whose list named this node knows the way"
    );
    table.hear(a, RingMessage::Lookup { hop: 2, lookup: lookup(2, d, b.id, Aim::Neighbour) });
    assert!(matches!(answer(&mut table), Some((to, RingMessage::Found(found))) if to == d && found.owner == c));
    table.node.predecessor_before = Some(b);
    table.hear(a, RingMessage::Lookup { hop: 3, lookup: lookup(3, d, c.id, Aim::Listed) });
    assert!(matches!(answer(&mut table), Some((to, RingMessage::Found(found))) if to == d && found.before == b));
}
