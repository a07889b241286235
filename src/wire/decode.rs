//! Bytes to domain messages: everything a peer can get wrong is found here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use prost::Message as _;

use super::copies::operation;
use super::frame::Packet;
use super::handshake::{Hello, Refusal, RefusalCode};
use super::weigh::is_moderate;
use super::{pb, watch};
use crate::base::limits::{
    CONDITIONS_MAX, CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, LIST_LIMIT_MAX, SUCCESSORS_MAX, TEXT_BYTES_MAX,
    VALUE_BYTES_LIMIT,
};
use crate::base::{Capacity, Contact, Id, Ids, Incarnation, Span, Wall, Weight};
use crate::data::{
    Command, Condition, Cursor, Item, Key, ListQuery, Outcome, Page, Put, Record, Slot, Tag, Trouble, Version,
};
use crate::node::{Call, Message, NodeInfo, Reply, RingParams, Wishes};
use crate::overlay::{Aim, CONTACTS_PAGE, Found, JoinVerdict, Lookup, NextHop, RingMessage, Standing, Want};
use crate::replication::{SlotRun, View};

/// Why bytes are no message. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Not protobuf.
    Malformed,
    /// An envelope without a body, or with one that this version does not know. A newer peer may send such a thing:
    /// ignore it.
    Unknown,
    /// A field that must be there is not.
    Missing(&'static str),
    /// A field has a value that it cannot have.
    Invalid(&'static str),
    /// A field is larger than its bound.
    TooLarge(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the frame is not protobuf"),
            Self::Unknown => f.write_str("the message is of an unknown kind"),
            Self::Missing(what) => write!(f, "{what} is missing"),
            Self::Invalid(what) => write!(f, "{what} is invalid"),
            Self::TooLarge(what) => write!(f, "{what} is too large"),
        }
    }
}

impl std::error::Error for WireError {}

pub(super) type Decoded<T> = Result<T, WireError>;

/// Reads one frame without its prefix. Ids follow from addresses in a ring of this capacity.
pub fn decode(frame: &[u8], capacity: Capacity) -> Decoded<Packet> {
    decode_with(frame, &mut Ids::new(capacity, None))
}

/// The same for whoever reads many frames: most addresses come again, and `ids` remembers what they hash to.
pub fn decode_with(frame: &[u8], ids: &mut Ids) -> Decoded<Packet> {
    use pb::envelope::Body;
    if !is_moderate(frame) {
        return Err(WireError::TooLarge("what the frame stands for"));
    }
    let envelope = pb::Envelope::decode(frame).map_err(|_| WireError::Malformed)?;
    let mut reader = Reader { ids };
    let message = match envelope.body.ok_or(WireError::Unknown)? {
        Body::Hello(hello) => return hello_of(hello).map(|hello| Packet::Hello(Box::new(hello))),
        Body::Refusal(refusal) => return Ok(Packet::Refusal(refusal_of(&refusal))),
        Body::Goodbye(pb::Goodbye {}) => return Ok(Packet::Goodbye),
        Body::WatchNotice(of) => watch::notice(of)?,
        Body::Call(call) => {
            Message::Call { request: call.request, call: reader.call(call.call.ok_or(WireError::Unknown)?)? }
        }
        Body::Reply(reply) => {
            Message::Reply { request: reply.request, reply: reader.reply(reply.reply.ok_or(WireError::Unknown)?)? }
        }
        body => match reader.ring(body)? {
            Ok(message) => Message::Ring(message),
            Err(body) => Message::Copies(Box::new(reader.copies(body)?)),
        },
    };
    Ok(Packet::Message(message))
}

/// What decoding needs to know of the ring.
pub(super) struct Reader<'a> {
    ids: &'a mut Ids,
}

// ----- handshake -----

fn hello_of(hello: pb::Hello) -> Decoded<Hello> {
    let wishes = hello.wishes.unwrap_or_default();
    let size = |n: u32| n as usize;
    Ok(Hello {
        protocol: (hello.protocol_min, hello.protocol_max),
        addr: address(hello.address)?,
        incarnation: incarnation(hello.incarnation)?,
        ring: hello.ring.map(params).transpose()?,
        wishes: Wishes {
            capacity: wishes.capacity,
            slot_bits: wishes.slot_bits,
            successors: wishes.successors.map(size),
            replicas: wishes.replicas.map(size),
            value_bytes_max: wishes.value_bytes_max.map(size),
        },
        software: text(hello.software, "the software version")?,
    })
}

fn params(params: pb::RingParams) -> Decoded<RingParams> {
    let [r, copies, value] = [params.successors, params.replicas, params.value_bytes_max].map(|n| n as usize);
    let ring = params.ring.map(u128_of).ok_or(WireError::Missing("the ring's id"))?;
    RingParams::checked(ring, params.capacity, params.slot_bits, r, copies, value)
        .map_err(|_| WireError::Invalid("a ring parameter"))
}

fn refusal_of(refusal: &pb::Refusal) -> Refusal {
    let code = match refusal.code() {
        pb::RefusalCode::Version => RefusalCode::Version,
        pb::RefusalCode::Ring => RefusalCode::Ring,
        pb::RefusalCode::Parameter => RefusalCode::Parameter,
        pb::RefusalCode::NotReady => RefusalCode::NotReady,
        pb::RefusalCode::Self_ => RefusalCode::SelfDial,
        pb::RefusalCode::Malformed => RefusalCode::Malformed,
        pb::RefusalCode::Busy | pb::RefusalCode::Unspecified => RefusalCode::Busy,
    };
    // Shown to an operator: no control characters from strangers.
    let reason: String = refusal.reason.chars().filter(|c| !c.is_control()).take(4 * TEXT_BYTES_MAX).collect();
    Refusal { code, reason }
}

// ----- ring and slots -----

impl Reader<'_> {
    /// A message of the ring, or the body back if it is none.
    fn ring(&mut self, body: pb::envelope::Body) -> Decoded<Result<RingMessage, pb::envelope::Body>> {
        use pb::envelope::Body;
        Ok(Ok(match body {
            Body::GetNeighbours(m) => RingMessage::GetNeighbours { request: m.request },
            Body::Neighbours(m) => RingMessage::Neighbours {
                request: m.request,
                standing: standing(m.standing)?,
                predecessor: m.predecessor.map(|c| self.contact(c)).transpose()?,
                successors: self.contacts(m.successors)?,
                weights: weights(&m.weights)?,
            },
            Body::Notify(pb::Notify {}) => RingMessage::Notify,
            Body::Lookup(m) => RingMessage::Lookup {
                hop: m.hop,
                lookup: Lookup {
                    request: m.request,
                    origin: self.some_contact(m.origin, "the origin")?,
                    target: self.id(m.target)?,
                    want: if m.before { Want::Before } else { Want::Owner },
                    aim: aim(m.aim)?,
                    hops: m.hops,
                    silent: m.silent,
                    silent_last: m.silent_last.map(|who| Incarnation(u128_of(who))),
                },
            },
            Body::LookupAck(m) if m.hops.len() > 1_024 => return Err(WireError::TooLarge("the acknowledgement")),
            Body::LookupAck(m) => RingMessage::LookupAck { hops: m.hops },
            Body::LookupRefused(m) => RingMessage::LookupRefused { hop: m.hop },
            Body::Found(m) => RingMessage::Found(Found {
                request: m.request,
                owner: self.some_contact(m.owner, "the owner")?,
                before: self.some_contact(m.before, "the member before")?,
                hops: m.hops,
                silent: m.silent,
            }),
            Body::GetNextHop(m) => RingMessage::GetNextHop { request: m.request, target: self.id(m.target)? },
            Body::NextHop(m) => RingMessage::NextHop {
                request: m.request,
                next: match m.next {
                    Some(pb::next_hop::Next::Owner(owner)) => NextHop::Owner(self.contact(owner)?),
                    Some(pb::next_hop::Next::Closer(closer)) => NextHop::Closer(self.contact(closer)?),
                    None => NextHop::Refused,
                },
            },
            Body::Join(m) => RingMessage::Join { request: m.request },
            Body::JoinReply(m) => RingMessage::JoinReply { request: m.request, verdict: self.verdict(m.verdict)? },
            Body::Offer(m) => RingMessage::Offer { contact: self.some_contact(m.contact, "the contact")? },
            Body::GetContacts(m) => RingMessage::GetContacts { request: m.request, after: self.id(m.after)? },
            Body::KnownContacts(m) => {
                RingMessage::Contacts { request: m.request, contacts: self.known_contacts(m.contacts)? }
            }
            Body::ProbeFor(m) => RingMessage::ProbeFor { contact: self.some_contact(m.contact, "the contact")? },
            Body::Vouch(m) => RingMessage::Vouch { contact: self.some_contact(m.contact, "the contact")? },
            Body::Leave(m) => RingMessage::Leave { request: m.request, successors: self.contacts(m.successors)? },
            Body::LeaveReply(m) => RingMessage::LeaveReply { request: m.request, released: m.released },
            other => return Ok(Err(other)),
        }))
    }

    fn verdict(&mut self, verdict: Option<pb::join_reply::Verdict>) -> Decoded<JoinVerdict> {
        use pb::join_reply::Verdict;
        Ok(match verdict.ok_or(WireError::Missing("the verdict"))? {
            Verdict::Granted(list) => JoinVerdict::Granted(self.contacts(list.contacts)?),
            Verdict::NotHere(pb::NotHere {}) => JoinVerdict::NotHere,
            Verdict::RetryAfterMs(ms) => JoinVerdict::RetryAfter(ms.min(60_000)),
            Verdict::DuplicateId(other) => JoinVerdict::DuplicateId(self.contact(other)?),
        })
    }

    pub(super) fn cursor(&mut self, cursor: pb::Cursor) -> Decoded<Cursor> {
        Ok((self.id(cursor.id)?, key(cursor.key)?))
    }

    pub(super) fn view(&mut self, view: pb::View) -> Decoded<View> {
        Ok(View { epoch: view.epoch, members: self.members(view.members)?.into() })
    }

    pub(super) fn contacts(&mut self, list: Vec<pb::Contact>) -> Decoded<Vec<Contact>> {
        if list.len() > SUCCESSORS_MAX {
            return Err(WireError::TooLarge("a list of contacts"));
        }
        list.into_iter().map(|contact| self.contact(contact)).collect()
    }

    fn known_contacts(&mut self, list: Vec<pb::KnownContact>) -> Decoded<Vec<(Contact, Span)>> {
        if list.len() > CONTACTS_PAGE {
            return Err(WireError::TooLarge("a page of contacts"));
        }
        let known = list.into_iter().map(|known| {
            let contact = self.some_contact(known.contact, "the contact")?;
            Ok((contact, Span::secs(u64::from(known.seconds))))
        });
        known.collect()
    }

    pub(super) fn contact(&mut self, contact: pb::Contact) -> Decoded<Contact> {
        Ok(self.ids.contact(address(contact.address)?, incarnation(contact.incarnation)?))
    }

    fn some_contact(&mut self, contact: Option<pb::Contact>, what: &'static str) -> Decoded<Contact> {
        self.contact(contact.ok_or(WireError::Missing(what))?)
    }

    fn id(&mut self, id: Option<pb::Id>) -> Decoded<Id> {
        let id = id.ok_or(WireError::Missing("an id"))?;
        let id = Id::from_parts(id.hi, u128_of(pb::U128 { hi: id.mid, lo: id.lo }));
        if self.ids.capacity().holds(id) { Ok(id) } else { Err(WireError::Invalid("an id")) }
    }

    // ----- data -----

    fn call(&mut self, call: pb::call::Call) -> Decoded<Call> {
        use pb::call::Call as From;
        Ok(match call {
            From::Operate(call) => {
                Call::Operate { key: key(call.key)?, operation: operation(call.command, call.operation, call.again)? }
            }
            From::List(list) => {
                let limit = list.limit as usize;
                let longest = list.prefix.len().max(list.after.as_ref().map_or(0, Vec::len));
                if !(1..=LIST_LIMIT_MAX).contains(&limit) || longest > KEY_BYTES_MAX {
                    return Err(WireError::Invalid("the listing"));
                }
                Call::List { query: ListQuery { prefix: list.prefix, after: list.after, limit }, all: list.all }
            }
            From::Peek(of) => Call::Peek(key(of.key)?),
            From::Holder(of) => Call::Holder(Slot(of.slot)),
            From::Info(pb::InfoCall {}) => Call::Info,
            From::Survey(of) => Call::Survey(Slot(of.from)),
            From::Recover(of) => Call::Recover(self.recoveries(of)?),
            From::Follow(of) => watch::follow(of)?,
            From::Watch(of) => watch::watch(of)?,
        })
    }

    fn reply(&mut self, reply: pb::reply::Reply) -> Decoded<Reply> {
        use pb::reply::Reply as From;
        Ok(match reply {
            From::List(list) => {
                if list.items.len() > LIST_LIMIT_MAX {
                    return Err(WireError::TooLarge("the page"));
                }
                let items = list.items.into_iter().map(item).collect::<Decoded<_>>()?;
                Reply::List { served: epoch_runs(list.served)?, page: Page { items, more: list.more } }
            }
            From::Peeked(of) => {
                let age = of.age_ms.map(Span::millis);
                Reply::Peeked(of.outcome.map(|of| outcome(Some(of))).transpose()?.map(|outcome| (outcome, age)))
            }
            From::Holder(of) => Reply::Holder(of.view.map(|view| self.view(view)).transpose()?),
            From::Info(info) => Reply::Info(Box::new(self.info(info)?)),
            From::Ran(ran) => Reply::Ran(self.ran(ran)?),
            From::Surveyed(of) => Reply::Survey(self.survey(of)?),
            From::Recovering(pb::RecoverReply {}) => Reply::Recovering,
            From::Following(of) => self.following(of)?,
            From::Watched(of) => watch::watched(of)?,
        })
    }

    fn info(&mut self, info: pb::InfoReply) -> Decoded<NodeInfo> {
        Ok(NodeInfo {
            contact: self.some_contact(info.contact, "the node")?,
            http: info.http.map(|addr| address(Some(addr))).transpose()?,
            standing: standing(info.standing)?,
            predecessor: info.predecessor.map(|c| self.contact(c)).transpose()?,
            successors: self.contacts(info.successors)?,
            // A node that does not know of weights says nothing.
            weight: Weight::new(info.weight.max(1)).ok_or(WireError::Invalid("the weight"))?,
            slots: info.slots,
            slots_moving: info.slots_moving,
            keys: info.keys,
            bytes: info.bytes,
            uptime_ms: info.uptime_ms,
            version: text(info.version, "the software version")?,
        })
    }
}

pub(super) fn outcome(outcome: Option<pb::Outcome>) -> Decoded<Outcome> {
    use pb::outcome::Outcome as From;
    Ok(match outcome.and_then(|outcome| outcome.outcome).ok_or(WireError::Unknown)? {
        From::Found(found) => Outcome::Found(record(found)?),
        From::NotFound(pb::NotFound {}) => Outcome::NotFound,
        From::Created(at) => Outcome::Created(version(at)?),
        From::Replaced(at) => Outcome::Replaced(version(at)?),
        From::Deleted(pb::Deleted {}) => Outcome::Deleted,
        From::PreconditionFailed(of) => Outcome::PreconditionFailed(of.current.map(version).transpose()?),
    })
}

pub(super) fn command(command: Option<pb::operate_call::Command>) -> Decoded<Command> {
    use pb::operate_call::Command as From;
    Ok(match command.ok_or(WireError::Unknown)? {
        From::Get(pb::Get {}) => Command::Get,
        From::Put(put) => Command::Put(Put {
            value: value(put.value)?,
            content_type: content_type(put.content_type)?,
            ttl_ms: put.ttl_ms,
            condition: condition(put.condition)?,
        }),
        From::Delete(delete) => Command::Delete(condition(delete.condition)?),
    })
}

fn condition(condition: Option<pb::Condition>) -> Decoded<Condition> {
    let tag = |tag: pb::Tag| match tag {
        pb::Tag { any: true, .. } => Ok(Tag::Any),
        pb::Tag { versions, .. } if versions.len() > CONDITIONS_MAX => Err(WireError::TooLarge("a condition")),
        pb::Tag { versions, .. } => versions.into_iter().map(version).collect::<Decoded<_>>().map(Tag::Of),
    };
    let condition = condition.unwrap_or_default();
    Ok(Condition {
        if_match: condition.if_match.map(tag).transpose()?,
        if_none_match: condition.if_none_match.map(tag).transpose()?,
    })
}

pub(super) fn key(bytes: Vec<u8>) -> Decoded<Key> {
    Key::new(bytes).map_err(|_| WireError::Invalid("a key"))
}

fn value(bytes: Vec<u8>) -> Decoded<Arc<[u8]>> {
    if bytes.len() > VALUE_BYTES_LIMIT { Err(WireError::TooLarge("a value")) } else { Ok(bytes.into()) }
}

fn content_type(text: Option<String>) -> Decoded<Option<Arc<str>>> {
    // It goes into a response header as it is.
    let fits = |text: &String| text.len() <= CONTENT_TYPE_BYTES_MAX && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    match text {
        Some(text) if !fits(&text) => Err(WireError::Invalid("a content type")),
        text => Ok(text.map(Arc::from)),
    }
}

pub(super) fn record(record: pb::Record) -> Decoded<Record> {
    Ok(Record {
        value: value(record.value)?,
        content_type: content_type(record.content_type)?,
        version: record.version.ok_or(WireError::Missing("the version")).and_then(version)?,
        modified: Wall(record.modified),
        expires: record.expires.map(Wall),
    })
}

pub(super) fn version(version: pb::Version) -> Decoded<Version> {
    Ok(Version { epoch: version.epoch, round: version.round, node: incarnation(version.node)?, n: version.n })
}

pub(super) fn trouble(trouble: pb::trouble::Kind) -> Decoded<Trouble> {
    use pb::trouble::Kind as From;
    Ok(match trouble {
        From::Full(why) => Trouble::Full(why),
        From::Damaged(bytes) => Trouble::Damaged(key(bytes)?),
        From::Broken(why) => Trouble::Broken(why),
    })
}

fn item(item: pb::Item) -> Decoded<Item> {
    Ok(Item {
        key: key(item.key)?,
        size: item.size,
        version: item.version.ok_or(WireError::Missing("the version")).and_then(version)?,
        content_type: content_type(item.content_type)?,
        expires: item.expires.map(Wall),
    })
}

// ----- names and numbers -----

/// Of one member and those in its list.
fn weights(weights: &[u32]) -> Decoded<Vec<Weight>> {
    if weights.len() > SUCCESSORS_MAX + 1 {
        return Err(WireError::TooLarge("the list of weights"));
    }
    let weight = |weight: &u32| Weight::new(*weight).ok_or(WireError::Invalid("a weight"));
    weights.iter().map(weight).collect()
}

fn standing(standing: i32) -> Decoded<Standing> {
    Ok(match pb::Standing::try_from(standing).map_err(|_| WireError::Invalid("the standing"))? {
        pb::Standing::Joining => Standing::Joining,
        pb::Standing::Member => Standing::Member,
        pb::Standing::Leaving => Standing::Leaving,
        pb::Standing::Orphan => Standing::Orphan,
        pb::Standing::Left => Standing::Left,
    })
}

fn aim(aim: i32) -> Decoded<Aim> {
    Ok(match pb::Aim::try_from(aim).map_err(|_| WireError::Invalid("the aim"))? {
        pb::Aim::Way => Aim::Way,
        pb::Aim::Listed => Aim::Listed,
        pb::Aim::Neighbour => Aim::Neighbour,
        pb::Aim::Walk => Aim::Walk,
    })
}

pub(super) fn runs(runs: Vec<pb::SlotRun>) -> Decoded<Vec<SlotRun>> {
    runs.into_iter().map(|of| run(Some(of))).collect()
}

pub(super) fn run(run: Option<pb::SlotRun>) -> Decoded<SlotRun> {
    let run = run.ok_or(WireError::Missing("the slots"))?;
    Ok(SlotRun { first: Slot(run.first), count: run.count })
}

pub(super) fn epoch_runs(runs: Vec<pb::EpochRun>) -> Decoded<Vec<(SlotRun, u64)>> {
    runs.into_iter().map(|of| Ok((run(of.run)?, of.epoch))).collect()
}

fn address(address: Option<pb::Address>) -> Decoded<SocketAddr> {
    let address = address.ok_or(WireError::Missing("an address"))?;
    let ip = match address.ip.ok_or(WireError::Missing("an address"))? {
        pb::address::Ip::V4(bits) => IpAddr::V4(Ipv4Addr::from_bits(bits)),
        pb::address::Ip::V6(bits) => IpAddr::V6(Ipv6Addr::from_bits(u128_of(bits))),
    };
    match u16::try_from(address.port) {
        Ok(port) if port != 0 && !ip.is_unspecified() && !ip.is_multicast() => Ok(SocketAddr::new(ip, port)),
        _ => Err(WireError::Invalid("an address")),
    }
}

pub(super) fn incarnation(value: Option<pb::U128>) -> Decoded<Incarnation> {
    value.map(u128_of).map(Incarnation).ok_or(WireError::Missing("an incarnation"))
}

pub(super) fn u128_of(value: pb::U128) -> u128 {
    u128::from(value.hi) << 64 | u128::from(value.lo)
}

fn text(text: String, what: &'static str) -> Decoded<Arc<str>> {
    if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(WireError::Invalid(what));
    }
    Ok(text.into())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
