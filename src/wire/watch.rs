//! What is said about keys that somebody watches.

use super::decode::{Decoded, Reader, WireError, key, record as record_of, u128_of, version as version_of};
use super::encode::{contacts, record, u128_pb, version};
use super::pb;
use crate::base::Span;
use crate::base::limits::{FILTER_BYTES_MAX, FILTERS_MAX, HINTS_MAX, KEY_BYTES_MAX, WATCHED_AT_ONCE_MAX};
use crate::data::{Filter, Hint, Key, Resume, Seen, Watched};
use crate::node::{Call, Message, Reply};

/// Longer than anybody is told of changes without asking again.
const LASTS_MAX_MS: u64 = 3_600_000;

pub(super) fn follow_pb(filters: &[Filter], lasts: Span) -> pb::FollowCall {
    use pb::watch_filter::Filter as To;
    let filter = |filter: &Filter| match filter {
        Filter::Key(key) => To::Key(key.as_bytes().to_vec()),
        Filter::Prefix(prefix) => To::Prefix(prefix.clone()),
    };
    let filters = filters.iter().map(|of| pb::WatchFilter { filter: Some(filter(of)) }).collect();
    pb::FollowCall { filters, lasts_ms: lasts.as_millis() }
}

pub(super) fn following_pb(number: u64, neighbours: &[crate::base::Contact]) -> pb::FollowReply {
    pb::FollowReply { number, neighbours: contacts(neighbours) }
}

fn resume_pb(resume: Resume) -> pb::WatchResume {
    pb::WatchResume { sum: Some(u128_pb(resume.sum)), node: resume.node }
}

pub(super) fn watch_pb(prefix: &[u8], from: Resume) -> pb::WatchCall {
    pb::WatchCall { prefix: prefix.to_vec(), from: Some(resume_pb(from)) }
}

pub(super) fn watched_pb(watched: Option<&Watched>) -> pb::WatchReply {
    let seen =
        |seen: &Seen| pb::WatchSeen { key: seen.key.as_bytes().to_vec(), record: seen.record.as_ref().map(record) };
    let all = watched.into_iter().flat_map(|watched| &watched.seen);
    pb::WatchReply { resume: watched.map(|watched| resume_pb(watched.resume)), seen: all.map(seen).collect() }
}

pub(super) fn notice_pb(number: u64, hints: &[(Key, Hint)]) -> pb::WatchNotice {
    let hint = |(key, hint): &(Key, Hint)| {
        let (ballot, there) = match hint {
            Hint::Accepted { ballot, there } => (Some(version(ballot)), there.as_ref().map(version)),
            Hint::Unknown => (None, None),
        };
        pb::WatchHint { key: key.as_bytes().to_vec(), ballot, there }
    };
    pb::WatchNotice { number, hints: hints.iter().map(hint).collect() }
}

pub(super) fn follow(call: pb::FollowCall) -> Decoded<Call> {
    use pb::watch_filter::Filter as From;
    let filter = |of: pb::WatchFilter| match of.filter.ok_or(WireError::Missing("a filter"))? {
        From::Key(of) => Ok(Filter::Key(key(of)?)),
        From::Prefix(of) if of.len() <= KEY_BYTES_MAX => Ok(Filter::Prefix(of)),
        From::Prefix(_) => Err(WireError::TooLarge("a prefix")),
    };
    let filters: Vec<Filter> = call.filters.into_iter().map(filter).collect::<Decoded<_>>()?;
    let bytes: usize = filters.iter().map(|filter| filter.bytes().len()).sum();
    if filters.len() > FILTERS_MAX || bytes > FILTER_BYTES_MAX {
        return Err(WireError::TooLarge("what is watched"));
    }
    Ok(Call::Follow { filters, lasts: Span::millis(call.lasts_ms.min(LASTS_MAX_MS)) })
}

fn resume(resume: pb::WatchResume) -> Decoded<Resume> {
    Ok(Resume { sum: u128_of(resume.sum.ok_or(WireError::Missing("a token"))?), node: resume.node })
}

pub(super) fn watch(call: pb::WatchCall) -> Decoded<Call> {
    if call.prefix.len() > KEY_BYTES_MAX {
        return Err(WireError::TooLarge("a prefix"));
    }
    Ok(Call::Watch { prefix: call.prefix, from: resume(call.from.ok_or(WireError::Missing("a token"))?)? })
}

pub(super) fn watched(reply: pb::WatchReply) -> Decoded<Reply> {
    let Some(of) = reply.resume else { return Ok(Reply::Watched(None)) };
    if reply.seen.len() > WATCHED_AT_ONCE_MAX {
        return Err(WireError::TooLarge("the changes"));
    }
    let seen = |of: pb::WatchSeen| Ok(Seen { key: key(of.key)?, record: of.record.map(record_of).transpose()? });
    let seen = reply.seen.into_iter().map(seen).collect::<Decoded<_>>()?;
    Ok(Reply::Watched(Some(Box::new(Watched { seen, resume: resume(of)? }))))
}

pub(super) fn notice(notice: pb::WatchNotice) -> Decoded<Message> {
    if notice.hints.len() > HINTS_MAX {
        return Err(WireError::TooLarge("a notice"));
    }
    let hint = |of: pb::WatchHint| {
        let hint = match of.ballot {
            Some(ballot) => {
                Hint::Accepted { ballot: version_of(ballot)?, there: of.there.map(version_of).transpose()? }
            }
            None => Hint::Unknown,
        };
        Ok((key(of.key)?, hint))
    };
    let hints = notice.hints.into_iter().map(hint).collect::<Decoded<_>>()?;
    Ok(Message::Notice { number: notice.number, hints })
}

impl Reader<'_> {
    pub(super) fn following(&mut self, reply: pb::FollowReply) -> Decoded<Reply> {
        Ok(Reply::Following { number: reply.number, neighbours: self.contacts(reply.neighbours)? })
    }
}
