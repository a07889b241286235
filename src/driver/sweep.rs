//! Connections that nobody uses or that lead nowhere: slow to say hello, idle, or without an answer.

use std::io;

use mio::Registry;
use tracing::debug;

use super::connection::{Phase, SILENCE_TIME};
use super::peers::{Peers, SWEEP_INTERVAL};
use crate::base::{Contact, Span, Time};

/// How long connecting, and then the handshake, may take.
const HANDSHAKE_TIME: Span = Span::secs(3);
/// After so long without traffic a connection is given back; the next message makes a new one.
const IDLE_TIME: Span = Span::secs(60);

impl Peers {
    /// Looks after connections that are slow to say hello, refused or idle.
    pub fn sweep(&mut self, now: Time, registry: &Registry) {
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept(now, registry);
        }
        if self.next_sweep > now {
            return;
        }
        // After a stop of the whole process everybody seems silent, until what came meanwhile is read.
        let late = now.since(self.next_sweep) > SWEEP_INTERVAL;
        self.next_sweep = now + SWEEP_INTERVAL;
        if late {
            return;
        }
        for at in 0..self.slots.len() {
            let Some(connection) = &self.slots[at].connection else { continue };
            let quiet_for = now.since(connection.last_traffic);
            match connection.phase {
                Phase::Open(_) if quiet_for >= IDLE_TIME * 2 => self.retire_at_once(at),
                Phase::Open(_) if quiet_for >= IDLE_TIME && connection.is_flushed() => self.retire(at),
                Phase::Open(peer) if connection.unanswered_for(now) >= SILENCE_TIME => {
                    self.look_for_answer(now, at, peer);
                }
                Phase::Open(_) => {}
                _ if now.since(connection.phase_since) >= HANDSHAKE_TIME => {
                    self.on_half_greeting(now, at, io::ErrorKind::TimedOut);
                }
                _ => {}
            }
        }
    }

    /// It is given back, whatever the peer would still say on it.
    pub(super) fn retire_at_once(&mut self, at: usize) {
        if let Some(Phase::Open(peer)) = self.close(at).map(|connection| connection.phase) {
            self.tell_goodbye(peer);
        }
    }

    /// The next message needs a new connection; what the peer has still to say on this one is heard.
    fn retire(&mut self, at: usize) {
        if let Some(connection) = &mut self.slots[at].connection {
            connection.finish();
        }
        self.by_addr.retain(|_, slot| *slot != at);
    }

    /// Gives a connection up whose peer does not answer. Perhaps it has nothing to say; a new connection, made with the
    /// next message, tells.
    fn look_for_answer(&mut self, now: Time, at: usize, peer: Contact) {
        let connections = self.slots.iter().filter_map(|slot| slot.connection.as_ref());
        // It may answer over another.
        let heard = connections.filter(|c| c.peer() == Some(peer)).map(|c| c.last_heard).max();
        let Some(connection) = &mut self.slots[at].connection else { return };
        if heard > connection.unanswered_since {
            connection.unanswered_since = None;
        } else if connection.is_flushed() {
            self.retire(at);
        } else if now.since(connection.last_traffic) >= SILENCE_TIME {
            // Over a slow link a large message takes longer than that, but something moves.
            debug!(peer = %peer.addr, "the peer takes nothing: its connection is given up");
            let left = connection.peer_left;
            self.close(at);
            self.lost(peer, left);
        }
    }
}
