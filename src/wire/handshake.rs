//! The handshake: versions and ring parameters are compared before anything else is said.
//!
//! The dialler sends its [`Hello`]; the other side judges it and answers with its own or with a [`Refusal`]; the dialler
//! judges in turn. Both sides of one comparison come to the same verdict, and the reason names both values.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::Incarnation;
use crate::node::{Hope, RingParams, Wishes};

/// The lowest protocol version that this program speaks.
pub const PROTOCOL_MIN: u32 = 2;
/// The highest.
pub const PROTOCOL_MAX: u32 = 2;
/// The largest first frame.
pub const HELLO_BYTES_MAX: usize = 4_096;

/// How a node introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The protocol versions that it speaks, lowest and highest.
    pub protocol: (u32, u32),
    /// Its advertised address.
    pub addr: SocketAddr,
    /// Who it is.
    pub incarnation: Incarnation,
    /// Its ring; `None` while it is in none.
    pub ring: Option<RingParams>,
    /// What it insists on, while it is in none.
    pub wishes: Wishes,
    /// The program's version, for people.
    pub software: Arc<str>,
}

/// Who judges.
pub type Local = Hello;

/// Why a connection ends before it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people: a sentence that names both sides' values.
    pub reason: String,
}

/// The kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// No protocol version in common.
    Version,
    /// Another ring.
    Ring,
    /// A ring parameter differs from what one side insists on.
    Parameter,
    /// Neither side is in a ring: try again later.
    NotReady,
    /// A node has dialled itself.
    SelfDial,
    /// The first frame was no valid hello.
    Malformed,
    /// Too many connections: try again later.
    Busy,
}

impl RefusalCode {
    /// Whether trying again helps.
    pub fn hope(self) -> Hope {
        match self {
            _ if self.is_fatal() => Hope::None,
            Self::NotReady => Hope::Soon,
            _ => Hope::Some,
        }
    }

    /// Whether trying again cannot help.
    pub fn is_fatal(self) -> bool {
        matches!(self, Self::Version | Self::Ring | Self::Parameter)
    }
}

/// Judges a peer's hello. The ring's parameters that hold between the two, or the refusal to send.
pub fn judge(local: &Local, remote: &Hello) -> Result<RingParams, Refusal> {
    let refuse = |code, reason: String| Err(Refusal { code, reason });
    let ((own_min, own_max), (min, max)) = (local.protocol, remote.protocol);
    if own_max < min || max < own_min {
        return refuse(
            RefusalCode::Version,
            format!(
                "no common protocol version: {} speaks {min} to {max} (chordkv {}), {} speaks {own_min} to {own_max} \
                 (chordkv {}); upgrade the older one",
                remote.addr, remote.software, local.addr, local.software
            ),
        );
    }
    if remote.incarnation == local.incarnation || remote.addr == local.addr {
        return refuse(RefusalCode::SelfDial, format!("{} is this node itself, or uses its address", remote.addr));
    }
    match (&local.ring, &remote.ring) {
        (Some(own), Some(other)) if own.ring != other.ring => refuse(
            RefusalCode::Ring,
            format!("{} is in ring {:032x}, {} in ring {:032x}", local.addr, own.ring, remote.addr, other.ring),
        ),
        (Some(own), Some(other)) if own != other => refuse(
            RefusalCode::Parameter,
            format!("{} and {} disagree on the parameters of their ring", local.addr, remote.addr),
        ),
        (Some(own), Some(_)) => Ok(*own),
        (Some(own), None) => fulfil(own, &remote.wishes),
        (None, Some(other)) => fulfil(other, &local.wishes),
        (None, None) => refuse(RefusalCode::NotReady, format!("{} is in no ring yet; it is tried again", local.addr)),
    }
}

fn fulfil(ring: &RingParams, wishes: &Wishes) -> Result<RingParams, Refusal> {
    match ring.first_difference(wishes) {
        None => Ok(*ring),
        Some((name, wish, has)) => Err(Refusal {
            code: RefusalCode::Parameter,
            reason: format!("the ring has --{name} {has}, not {wish}; leave --{name} out to adopt the ring's"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(port: u16, ring: Option<u128>, capacity: Option<u32>) -> Hello {
        let wishes = Wishes { capacity, ..Wishes::default() };
        Hello {
            protocol: (PROTOCOL_MIN, PROTOCOL_MAX),
            addr: ([127, 0, 0, 1], port).into(),
            incarnation: Incarnation(u128::from(port)),
            ring: ring.map(|id| RingParams::create(id, &wishes).unwrap()),
            wishes,
            software: Arc::from("test"),
        }
    }

    fn refusal(local: &Hello, remote: &Hello) -> (RefusalCode, String) {
        let first = judge(local, remote).unwrap_err();
        let second = judge(remote, local).unwrap_err();
        assert_eq!(first.code, second.code, "both sides judge alike");
        (first.code, first.reason)
    }

    #[test]
    fn members_of_one_ring_and_its_joiners_are_let_in() {
        let member = hello(1, Some(9), None);
        assert_eq!(judge(&member, &hello(2, Some(9), None)), Ok(member.ring.unwrap()));
        assert_eq!(judge(&member, &hello(2, None, None)), Ok(member.ring.unwrap()));
        assert_eq!(judge(&hello(2, None, Some(160)), &member), Ok(member.ring.unwrap()));
    }

    #[test]
    fn whatever_differs_is_refused_by_both_sides_with_a_sentence() {
        let member = hello(1, Some(9), None);
        let (code, reason) = refusal(&member, &hello(2, None, Some(32)));
        assert_eq!(code, RefusalCode::Parameter);
        assert_eq!(reason, "the ring has --capacity 160, not 32; leave --capacity out to adopt the ring's");
        assert_eq!(refusal(&member, &hello(2, Some(8), None)).0, RefusalCode::Ring);
        assert_eq!(refusal(&member, &hello(2, Some(9), Some(32))).0, RefusalCode::Parameter);
        assert_eq!(refusal(&hello(1, None, None), &hello(2, None, None)).0, RefusalCode::NotReady);
        assert_eq!(refusal(&member, &member).0, RefusalCode::SelfDial);
        let old = Hello { protocol: (7, 9), ..hello(2, Some(9), None) };
        let (code, reason) = refusal(&member, &old);
        assert_eq!(code, RefusalCode::Version);
        assert!(reason.contains("7 to 9"), "{reason}");
    }
}
