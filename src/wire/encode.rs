//! Domain messages to bytes.

use std::net::{IpAddr, SocketAddr};

use prost::Message as _;

use super::copies::{copies, op_id, ran};
use super::frame::Packet;
use super::handshake::{Hello, Refusal, RefusalCode};
use super::pb;
use super::survey::{recover_pb, survey_pb};
use super::watch::{follow_pb, following_pb, notice_pb, watch_pb, watched_pb};
use crate::base::{Contact, Id, Span};
use crate::data::{Command, Condition, Cursor, Item, Outcome, Record, Tag, Trouble, Version};
use crate::node::{Call, Message, NodeInfo, Reply, RingParams, Wishes};
use crate::overlay::{Aim, JoinVerdict, NextHop, RingMessage, Standing, Want};
use crate::replication::{SlotRun, View};

/// Appends one frame, prefix and all, to `out`.
pub fn encode(packet: &Packet, out: &mut Vec<u8>) {
    let envelope = pb::Envelope { body: Some(body(packet)) };
    let length = envelope.encoded_len();
    // Limits on values, keys, lists and chunks keep every message of ours below the frame limit.
    debug_assert!(length <= crate::base::limits::FRAME_BYTES_MAX);
    out.reserve(length + 4);
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    envelope.encode_raw(out);
}

fn body(packet: &Packet) -> pb::envelope::Body {
    use pb::envelope::Body;
    match packet {
        Packet::Hello(hello) => Body::Hello(hello_pb(hello)),
        Packet::Refusal(Refusal { code, reason }) => {
            Body::Refusal(pb::Refusal { code: refusal_code(*code).into(), reason: reason.clone() })
        }
        Packet::Goodbye => Body::Goodbye(pb::Goodbye {}),
        Packet::Message(Message::Ring(message)) => ring(message),
        Packet::Message(Message::Copies(message)) => copies(message),
        Packet::Message(Message::Notice { number, hints }) => Body::WatchNotice(notice_pb(*number, hints)),
        Packet::Message(Message::Call { request, call }) => {
            Body::Call(pb::Call { request: *request, call: Some(call_pb(call)) })
        }
        Packet::Message(Message::Reply { request, reply }) => {
            Body::Reply(pb::Reply { request: *request, reply: Some(reply_pb(reply)) })
        }
    }
}

// ----- handshake -----

fn hello_pb(hello: &Hello) -> pb::Hello {
    pb::Hello {
        protocol_min: hello.protocol.0,
        protocol_max: hello.protocol.1,
        address: Some(address(hello.addr)),
        incarnation: Some(u128_pb(hello.incarnation.0)),
        ring: hello.ring.as_ref().map(params),
        wishes: Some(wishes(&hello.wishes)),
        software: hello.software.to_string(),
    }
}

fn params(params: &RingParams) -> pb::RingParams {
    pb::RingParams {
        ring: Some(u128_pb(params.ring)),
        capacity: params.space.capacity().bits(),
        slot_bits: params.space.slot_bits(),
        successors: small(params.successors),
        replicas: small(params.replicas),
        value_bytes_max: small(params.value_bytes_max),
    }
}

fn wishes(wishes: &Wishes) -> pb::Wishes {
    pb::Wishes {
        capacity: wishes.capacity,
        slot_bits: wishes.slot_bits,
        successors: wishes.successors.map(small),
        replicas: wishes.replicas.map(small),
        value_bytes_max: wishes.value_bytes_max.map(small),
    }
}

fn refusal_code(code: RefusalCode) -> pb::RefusalCode {
    match code {
        RefusalCode::Version => pb::RefusalCode::Version,
        RefusalCode::Ring => pb::RefusalCode::Ring,
        RefusalCode::Parameter => pb::RefusalCode::Parameter,
        RefusalCode::NotReady => pb::RefusalCode::NotReady,
        RefusalCode::SelfDial => pb::RefusalCode::Self_,
        RefusalCode::Malformed => pb::RefusalCode::Malformed,
        RefusalCode::Busy => pb::RefusalCode::Busy,
    }
}

fn aim(aim: Aim) -> pb::Aim {
    match aim {
        Aim::Way => pb::Aim::Way,
        Aim::Listed => pb::Aim::Listed,
        Aim::Neighbour => pb::Aim::Neighbour,
        Aim::Walk => pb::Aim::Walk,
    }
}

// ----- ring -----

fn ring(message: &RingMessage) -> pb::envelope::Body {
    use pb::envelope::Body;
    match message {
        RingMessage::GetNeighbours { request } => Body::GetNeighbours(pb::GetNeighbours { request: *request }),
        RingMessage::Neighbours { request, standing, predecessor, successors, weights } => {
            Body::Neighbours(pb::Neighbours {
                request: *request,
                standing: standing_pb(*standing).into(),
                predecessor: predecessor.as_ref().map(contact),
                successors: contacts(successors),
                weights: weights.iter().map(|weight| weight.get().into()).collect(),
            })
        }
        RingMessage::Notify => Body::Notify(pb::Notify {}),
        RingMessage::Lookup { hop, lookup } => Body::Lookup(pb::Lookup {
            hop: *hop,
            request: lookup.request,
            origin: Some(contact(&lookup.origin)),
            target: Some(id(lookup.target)),
            hops: lookup.hops,
            before: lookup.want == Want::Before,
            aim: aim(lookup.aim).into(),
            silent: lookup.silent,
            silent_last: lookup.silent_last.map(|who| u128_pb(who.0)),
        }),
        RingMessage::LookupAck { hops } => Body::LookupAck(pb::LookupAck { hops: hops.clone() }),
        RingMessage::LookupRefused { hop } => Body::LookupRefused(pb::LookupRefused { hop: *hop }),
        RingMessage::Found(found) => Body::Found(pb::Found {
            request: found.request,
            owner: Some(contact(&found.owner)),
            hops: found.hops,
            before: Some(contact(&found.before)),
            silent: found.silent,
        }),
        RingMessage::GetNextHop { request, target } => {
            Body::GetNextHop(pb::GetNextHop { request: *request, target: Some(id(*target)) })
        }
        RingMessage::NextHop { request, next } => {
            let next = match next {
                NextHop::Owner(owner) => Some(pb::next_hop::Next::Owner(contact(owner))),
                NextHop::Closer(closer) => Some(pb::next_hop::Next::Closer(contact(closer))),
                NextHop::Refused => None,
            };
            Body::NextHop(pb::NextHop { request: *request, next })
        }
        RingMessage::Join { request } => Body::Join(pb::Join { request: *request }),
        RingMessage::JoinReply { request, verdict } => {
            Body::JoinReply(pb::JoinReply { request: *request, verdict: Some(join_verdict(verdict)) })
        }
        RingMessage::Offer { contact: offered } => Body::Offer(pb::Offer { contact: Some(contact(offered)) }),
        RingMessage::GetContacts { request, after } => {
            Body::GetContacts(pb::GetContacts { request: *request, after: Some(id(*after)) })
        }
        RingMessage::Contacts { request, contacts } => {
            let contacts = contacts.iter().map(|(known, age)| pb::KnownContact {
                contact: Some(contact(known)),
                seconds: u32::try_from(age.0.div_ceil(Span::secs(1).0)).unwrap_or(u32::MAX),
            });
            Body::KnownContacts(pb::KnownContacts { request: *request, contacts: contacts.collect() })
        }
        RingMessage::ProbeFor { contact: suspect } => Body::ProbeFor(pb::ProbeFor { contact: Some(contact(suspect)) }),
        RingMessage::Vouch { contact: alive } => Body::Vouch(pb::Vouch { contact: Some(contact(alive)) }),
        RingMessage::Leave { request, successors } => {
            Body::Leave(pb::Leave { request: *request, successors: contacts(successors) })
        }
        RingMessage::LeaveReply { request, released } => {
            Body::LeaveReply(pb::LeaveReply { request: *request, released: *released })
        }
    }
}

fn join_verdict(verdict: &JoinVerdict) -> pb::join_reply::Verdict {
    use pb::join_reply::Verdict;
    match verdict {
        JoinVerdict::Granted(list) => Verdict::Granted(pb::Contacts { contacts: contacts(list) }),
        JoinVerdict::NotHere => Verdict::NotHere(pb::NotHere {}),
        JoinVerdict::RetryAfter(ms) => Verdict::RetryAfterMs(*ms),
        JoinVerdict::DuplicateId(other) => Verdict::DuplicateId(contact(other)),
    }
}

fn standing_pb(standing: Standing) -> pb::Standing {
    match standing {
        Standing::Joining => pb::Standing::Joining,
        Standing::Member => pb::Standing::Member,
        Standing::Leaving => pb::Standing::Leaving,
        Standing::Orphan => pb::Standing::Orphan,
        Standing::Left => pb::Standing::Left,
    }
}

// ----- slots -----

pub(super) fn run(run: SlotRun) -> pb::SlotRun {
    pb::SlotRun { first: run.first.0, count: run.count }
}

pub(super) fn runs(runs: &[SlotRun]) -> Vec<pb::SlotRun> {
    runs.iter().copied().map(run).collect()
}

pub(super) fn epoch_runs(runs: &[(SlotRun, u64)]) -> Vec<pb::EpochRun> {
    runs.iter().map(|(of, epoch)| pb::EpochRun { run: Some(run(*of)), epoch: *epoch }).collect()
}

pub(super) fn view(view: &View) -> pb::View {
    pb::View { epoch: view.epoch, members: contacts(&view.members) }
}

pub(super) fn cursor((at, key): &Cursor) -> pb::Cursor {
    pb::Cursor { id: Some(id(*at)), key: key.as_bytes().to_vec() }
}

// ----- data -----

fn call_pb(call: &Call) -> pb::call::Call {
    use pb::call::Call as To;
    match call {
        Call::Operate { key, operation } => To::Operate(pb::OperateCall {
            key: key.as_bytes().to_vec(),
            command: Some(command_pb(&operation.command)),
            operation: Some(op_id(&operation.id)),
            again: operation.again,
        }),
        Call::List { query, all } => To::List(pb::ListCall {
            prefix: query.prefix.clone(),
            after: query.after.clone(),
            limit: small(query.limit),
            all: *all,
        }),
        Call::Peek(key) => To::Peek(pb::PeekCall { key: key.as_bytes().to_vec() }),
        Call::Holder(slot) => To::Holder(pb::HolderCall { slot: slot.0 }),
        Call::Info => To::Info(pb::InfoCall {}),
        Call::Survey(from) => To::Survey(pb::SurveyCall { from: from.0 }),
        Call::Recover(of) => To::Recover(recover_pb(of)),
        Call::Watch { prefix, from } => To::Watch(watch_pb(prefix, *from)),
        Call::Follow { filters, lasts } => To::Follow(follow_pb(filters, *lasts)),
    }
}

fn command_pb(command: &Command) -> pb::operate_call::Command {
    use pb::operate_call::Command as To;
    match command {
        Command::Get => To::Get(pb::Get {}),
        Command::Put(put) => To::Put(pb::Put {
            value: put.value.to_vec(),
            content_type: put.content_type.as_deref().map(str::to_owned),
            ttl_ms: put.ttl_ms,
            condition: condition(&put.condition),
        }),
        Command::Delete(of) => To::Delete(pb::Delete { condition: condition(of) }),
    }
}

fn condition(condition: &Condition) -> Option<pb::Condition> {
    let tag = |tag: &Tag| match tag {
        Tag::Any => pb::Tag { any: true, versions: Vec::new() },
        Tag::Of(versions) => pb::Tag { any: false, versions: versions.iter().map(version).collect() },
    };
    (*condition != Condition::default()).then(|| pb::Condition {
        if_match: condition.if_match.as_ref().map(tag),
        if_none_match: condition.if_none_match.as_ref().map(tag),
    })
}

fn reply_pb(reply: &Reply) -> pb::reply::Reply {
    use pb::reply::Reply as To;
    match reply {
        Reply::List { served, page } => To::List(pb::ListReply {
            served: epoch_runs(served),
            items: page.items.iter().map(item).collect(),
            more: page.more,
        }),
        Reply::Peeked(of) => To::Peeked(pb::PeekReply {
            outcome: of.as_ref().map(|(of, _)| outcome(of)),
            age_ms: of.as_ref().and_then(|(_, age)| age.map(|age| age.0.div_ceil(1_000))),
        }),
        Reply::Holder(of) => To::Holder(pb::HolderReply { view: of.as_ref().map(view) }),
        Reply::Info(info) => To::Info(info_pb(info)),
        Reply::Ran(of) => To::Ran(ran(of)),
        Reply::Survey(of) => To::Surveyed(survey_pb(of)),
        Reply::Recovering => To::Recovering(pb::RecoverReply {}),
        Reply::Watched(watched) => To::Watched(watched_pb(watched.as_deref())),
        Reply::Following { number, neighbours } => To::Following(following_pb(*number, neighbours)),
    }
}

pub(super) fn outcome(outcome: &Outcome) -> pb::Outcome {
    use pb::outcome::Outcome as To;
    let outcome = match outcome {
        Outcome::Found(found) => To::Found(record(found)),
        Outcome::NotFound => To::NotFound(pb::NotFound {}),
        Outcome::Created(at) => To::Created(version(at)),
        Outcome::Replaced(at) => To::Replaced(version(at)),
        Outcome::Deleted => To::Deleted(pb::Deleted {}),
        Outcome::PreconditionFailed(current) => {
            To::PreconditionFailed(pb::PreconditionFailed { current: current.as_ref().map(version) })
        }
    };
    pb::Outcome { outcome: Some(outcome) }
}

pub(super) fn trouble(trouble: &Trouble) -> pb::trouble::Kind {
    use pb::trouble::Kind as To;
    match trouble {
        Trouble::Full(why) => To::Full(why.clone()),
        Trouble::Damaged(key) => To::Damaged(key.as_bytes().to_vec()),
        Trouble::Broken(why) => To::Broken(why.clone()),
    }
}

fn item(item: &Item) -> pb::Item {
    pb::Item {
        key: item.key.as_bytes().to_vec(),
        size: item.size,
        version: Some(version(&item.version)),
        content_type: item.content_type.as_deref().map(str::to_owned),
        expires: item.expires.map(|at| at.0),
    }
}

fn info_pb(info: &NodeInfo) -> pb::InfoReply {
    pb::InfoReply {
        contact: Some(contact(&info.contact)),
        http: info.http.map(address),
        standing: standing_pb(info.standing).into(),
        predecessor: info.predecessor.as_ref().map(contact),
        successors: contacts(&info.successors),
        weight: info.weight.get().into(),
        slots: info.slots,
        slots_moving: info.slots_moving,
        keys: info.keys,
        bytes: info.bytes,
        uptime_ms: info.uptime_ms,
        version: info.version.to_string(),
    }
}

pub(super) fn record(record: &Record) -> pb::Record {
    pb::Record {
        value: record.value.to_vec(),
        content_type: record.content_type.as_deref().map(str::to_owned),
        version: Some(version(&record.version)),
        modified: record.modified.0,
        expires: record.expires.map(|at| at.0),
    }
}

pub(super) fn version(version: &Version) -> pb::Version {
    pb::Version { epoch: version.epoch, n: version.n, node: Some(u128_pb(version.node.0)), round: version.round }
}

// ----- names -----

pub(super) fn contacts(list: &[Contact]) -> Vec<pb::Contact> {
    list.iter().map(contact).collect()
}

fn contact(contact: &Contact) -> pb::Contact {
    pb::Contact { address: Some(address(contact.addr)), incarnation: Some(u128_pb(contact.incarnation.0)) }
}

fn address(addr: SocketAddr) -> pb::Address {
    let ip = match addr.ip() {
        IpAddr::V4(v4) => pb::address::Ip::V4(v4.to_bits()),
        IpAddr::V6(v6) => pb::address::Ip::V6(u128_pb(v6.to_bits())),
    };
    pb::Address { ip: Some(ip), port: addr.port().into() }
}

fn id(id: Id) -> pb::Id {
    let (hi, low) = id.parts();
    let pb::U128 { hi: mid, lo } = u128_pb(low);
    pb::Id { hi, mid, lo }
}

pub(super) fn u128_pb(value: u128) -> pb::U128 {
    #[allow(clippy::cast_possible_truncation)] // The two halves.
    pb::U128 { hi: (value >> 64) as u64, lo: value as u64 }
}

/// Numbers that limits keep far below 2^32.
fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
