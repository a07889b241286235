//! The copies inside the node: what they want done, and what the node asks of them.

use super::chord_node::{ChordNode, NodeTimer};
use super::inside::Inside;
use super::io::Output;
use super::job::Asker;
use super::message::{Message, Reply};
use super::operate::OperateTask;
use super::task::{Kind, Wake, Whose};
use crate::base::Now;
use crate::data::{Command, Place};
use crate::replication::View;
use crate::replication::copies::{CopiesEffect, MAINTAIN_INTERVAL, Operation, Ran};

/// Expired records of others that are read at once.
const READ_FOR_OTHERS_MAX: usize = 16;
/// The ticket of lookups for the copies; tasks count from 1.
pub(super) const OWNER_TICKET: u64 = 0;

impl ChordNode {
    pub(super) fn on_copies_effect(&mut self, now: Now, effect: CopiesEffect) {
        match effect {
            CopiesEffect::Send { to, message } => {
                // Views name a member's place of their time: where all have moved, nobody is left there to decide otherwise.
                let to = self.inside.as_ref().map_or(to, |inside| inside.overlay.whereabouts(to));
                self.outputs.push_back(Output::Send { to, message: Message::Copies(message) });
                return;
            }
            CopiesEffect::Store { ticket, work } => {
                self.store_for_copies(ticket, work);
                return;
            }
            CopiesEffect::Ran { asker, ran } => {
                if let Some(asker) = self.operations.remove(&asker) {
                    self.tell_ran(now, asker, ran);
                }
                return;
            }
            CopiesEffect::FindOwner(slot) => {
                if let Some(inside) = &mut self.inside {
                    inside.overlay.lookup(now.mono, OWNER_TICKET, inside.owner_target(slot));
                }
                return;
            }
            CopiesEffect::Changed { key, hint, coordinated } => {
                self.on_changed(now, key, hint, coordinated);
                return;
            }
            CopiesEffect::Took(_) => self.moved.took += 1,
            CopiesEffect::Gave(_) => self.moved.gave += 1,
            CopiesEffect::Restless => {}
        }
        self.timers.set_no_later(NodeTimer::Maintain, now.mono + MAINTAIN_INTERVAL);
    }

    /// Lets this node coordinate an operation, if it is a member of the key's view; the asker hears of it. `Some`: it does
    /// not.
    pub(super) fn operate_here(&mut self, now: Now, asker: Asker, place: &Place, operation: Operation) -> Option<Ran> {
        let again = operation.again;
        let Some(Inside { overlay, copies, .. }) = &mut self.inside else {
            return Some(Ran::NotNow { elsewhere: None, again });
        };
        if !overlay.standing().is_member() {
            let me = overlay.me().incarnation;
            let elsewhere = copies.view(place.slot).filter(|view| !view.has(me)).cloned();
            return Some(Ran::NotNow { elsewhere, again });
        }
        self.next_operation += 1;
        self.operations.insert(self.next_operation, asker);
        let refused = copies.run(now, self.next_operation, place, operation);
        if refused.is_some() {
            self.operations.remove(&self.next_operation);
        }
        refused
    }

    fn tell_ran(&mut self, now: Now, asker: Asker, ran: Ran) {
        match asker {
            Asker::Task(id) => self.wake(now, id, Wake::Operated(ran)),
            Asker::Peer { to, request } => self.reply(to, request, Reply::Ran(ran)),
            Asker::Nobody => {}
        }
    }

    /// Records have expired: those that this node is the first to look after are removed as a user would find out. Whether
    /// there are any. The others after a while, too: their first member may not have them.
    pub(super) fn remove_expired(&mut self, now: Now, due: Vec<Place>) -> bool {
        let Some(inside) = &self.inside else { return false };
        let me = inside.overlay.me().incarnation;
        let is_first = |view: &View| view.primary().is_some_and(|first| first.incarnation == me);
        let (own, others): (Vec<Place>, Vec<Place>) =
            due.into_iter().partition(|place| inside.copies.view(place.slot).is_some_and(is_first));
        let is_late = self.jobs.is_late(now.mono, !others.is_empty());
        for place in others.into_iter().take(if is_late { READ_FOR_OTHERS_MAX } else { 0 }) {
            if let Ok(read) = OperateTask::new(place, Command::Get, 0) {
                self.start_task(now, Whose::Nobody, Kind::Operate(read));
            }
        }
        let mut is_any = false;
        for place in own {
            let id = self.next_op_id(now);
            let operation = Operation { id, command: Command::Get, again: false };
            is_any |= self.operate_here(now, Asker::Nobody, &place, operation).is_none();
        }
        is_any
    }
}
