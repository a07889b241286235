//! One operation on one key, from any node to a member of its slot's view and back.
//!
//! The first member of the view coordinates; when it is silent, the next one does. Every try has the same name, so
//! trying again does nothing twice; what may have been carried out and cannot be found out is *unknown*, and the user is
//! told so.

use super::chord_node::ChordNode;
use super::job::Asker;
use super::message::{Call, Reply};
use super::task::{Next, Wake};
use crate::base::{Contact, Now, Span};
use crate::data::register::OpId;
use crate::data::{Command, Failure, Place, Put, UserReply};
use crate::replication::View;
use crate::replication::copies::{Operation, Ran};

/// An operation on its way.
#[derive(Debug)]
pub(super) struct OperateTask {
    place: Place,
    command: Command,
    id: Option<OpId>,
    // It may have been carried out by an earlier try.
    again: bool,
    asked: Option<(u64, Contact)>,
    looking: bool,
    // How often others were asked for the view meanwhile.
    looks: u32,
    // This node coordinates.
    running: bool,
    // Counts the members that did not answer.
    turn: usize,
    // Counts those that took too long.
    late: u32,
    view: Option<View>,
}

/// How long a view that is not served yet is left alone, and a slot whose members do not answer.
const BUSY_PAUSE: Span = Span::millis(4);
const LOST_PAUSE: Span = Span::millis(20);
/// How long a lookup may take, and two round trips, before others are asked for the view, and how many. What they said is looked
/// at after that time and a round trip, and others are asked, twice as long later each time, up to so many times.
const LOOK_AROUND_AFTER: Span = Span::millis(60);
const LOOK_AROUND_MAX: usize = 3;
const LOOK_AROUND_AGAIN: Span = Span::millis(10);
const LOOKS_MAX: u32 = 5;
/// Silence after which another member is asked at the latest.
const ASK_ANOTHER_MAX: Span = Span::secs(2);

impl OperateTask {
    pub fn new(place: Place, command: Command, value_bytes_max: usize) -> Result<Self, UserReply> {
        match &command {
            Command::Put(Put { value, .. }) if value.len() > value_bytes_max => {
                Err(UserReply::Failed(Failure::TooLarge { limit: value_bytes_max }))
            }
            _ => Ok(Self {
                place,
                command,
                id: None,
                again: false,
                asked: None,
                looking: false,
                looks: 0,
                running: false,
                turn: 0,
                late: 0,
                view: None,
            }),
        }
    }

    fn may_be_done(&self) -> bool {
        self.command.is_write() && (self.again || self.running || self.asked.is_some())
    }

    pub fn timed_out(&self, missing: &[Contact]) -> Failure {
        if self.may_be_done() {
            return Failure::Timeout { maybe_applied: true };
        }
        let missing: Vec<String> = missing.iter().map(|member| member.addr.to_string()).collect();
        Failure::Unavailable(match (&self.view, missing.as_slice()) {
            (None, _) => "no node that holds this key was found in time".to_owned(),
            (Some(_), []) => "the nodes that hold this key did not agree in time".to_owned(),
            (Some(view), missing) => {
                format!(
                    "of the {} nodes that hold this key these are missing: {}",
                    view.members.len(),
                    missing.join(", ")
                )
            }
        })
    }
}

impl ChordNode {
    pub(super) fn next_op_id(&mut self, now: Now) -> OpId {
        self.next_op += 1;
        OpId { node: self.op_node, n: self.next_op, issued: now.wall }
    }

    pub(super) fn run_operate(&mut self, now: Now, id: u64, task: &mut OperateTask, wake: Wake) -> Next {
        match wake {
            Wake::Go => {
                if task.running {
                    return Next::Wait;
                }
                if task.looking {
                    return self.look_around(now, id, task);
                }
                if let Some((request, _)) = task.asked.take() {
                    // It took too long.
                    self.drop_call(request);
                    task.again = true;
                    task.turn += 1;
                    task.late += 1;
                }
                self.try_operate(now, id, task)
            }
            Wake::Reply { reply: Reply::Ran(ran), .. } => {
                task.asked = None;
                self.after_ran(now, id, task, ran)
            }
            Wake::Operated(ran) => {
                task.running = false;
                self.after_ran(now, id, task, ran)
            }
            // An answer came from elsewhere meanwhile.
            Wake::Found(_) if !task.looking => Next::Unmoved,
            Wake::Found(Ok(answer)) => {
                task.looking = false;
                let me = self.inside.as_ref().map(|inside| inside.overlay.me());
                if Some(answer.owner) == me {
                    // It may have become the owner just now.
                    task.turn += 1;
                    return self.look_around(now, id, task);
                }
                if let (None, Some(inside)) = (&task.view, &mut self.inside) {
                    // The next operation needs no lookup.
                    inside.copies.ask_views(answer.owner, &[task.place.slot]);
                }
                self.ask_operate(now, id, task, answer.owner)
            }
            Wake::Found(Err(_)) => {
                task.looking = false;
                task.turn += 1;
                self.pause(LOST_PAUSE)
            }
            Wake::Lost { .. } => {
                task.asked = None;
                task.again = true;
                task.turn += 1;
                self.try_operate(now, id, task)
            }
            Wake::Undelivered { .. } | Wake::Reply { .. } => {
                task.asked = None;
                task.turn += 1;
                self.pause(BUSY_PAUSE)
            }
            _ => Next::Unmoved,
        }
    }

    fn after_ran(&mut self, now: Now, id: u64, task: &mut OperateTask, ran: Ran) -> Next {
        match ran {
            Ran::Done(outcome) => Next::Done(UserReply::Kv(outcome)),
            Ran::Unknown if task.command.is_write() => {
                Next::Done(UserReply::Failed(Failure::Timeout { maybe_applied: true }))
            }
            Ran::Unknown => self.pause(BUSY_PAUSE),
            Ran::Failed(trouble) => Next::Done(UserReply::Failed(Failure::Trouble(trouble))),
            Ran::NotNow { elsewhere, again } => {
                task.again |= again;
                let news = |view: &View| task.view.as_ref().is_none_or(|known| view.epoch > known.epoch);
                if let (Some(view), Some(inside)) = (elsewhere.filter(news), &mut self.inside) {
                    inside.learn(now, task.place.slot, view);
                    task.turn = 0;
                    return self.try_operate(now, id, task);
                }
                task.turn += 1;
                self.pause(BUSY_PAUSE)
            }
        }
    }

    /// Lets this node coordinate, or asks who should.
    fn try_operate(&mut self, now: Now, id: u64, task: &mut OperateTask) -> Next {
        let Some(inside) = &mut self.inside else { return self.pause(LOST_PAUSE) };
        let view = inside.copies.view(task.place.slot).cloned();
        let answers = |contact: &&Contact| inside.overlay.answers(contact);
        let living: Vec<Contact> = view.iter().flat_map(|view| view.members.iter()).filter(answers).copied().collect();
        task.view = view;
        let me = inside.overlay.me();
        // After every member was asked in vain it is asked for the owner, who may know a newer view.
        let turn = task.turn % (living.len() + 1);
        match living.get(turn) {
            Some(member) if *member == me => {
                let operation = self.operation(now, task);
                match self.operate_here(now, Asker::Task(id), &task.place, operation) {
                    None => {
                        task.running = true;
                        Next::Wait
                    }
                    Some(Ran::NotNow { elsewhere: None, .. }) => {
                        task.turn += 1;
                        self.pause(BUSY_PAUSE)
                    }
                    Some(ran) => self.after_ran(now, id, task, ran),
                }
            }
            Some(member) => self.ask_operate(now, id, task, *member),
            None => {
                if !inside.overlay.standing().is_member() {
                    task.turn += 1;
                    return self.pause(LOST_PAUSE);
                }
                // The turn is over with the answer of the owner, or without one: counted twice, the only member of a view would
                // never be asked again.
                task.looking = true;
                inside.overlay.lookup(now.mono, id, inside.owner_target(task.place.slot));
                Next::Pause(LOOK_AROUND_AFTER + inside.overlay.usual_round_trip() * 2)
            }
        }
    }

    /// The owner of a slot may have died just now, and whoever follows it does not know the slot's view yet: others may.
    fn look_around(&mut self, now: Now, id: u64, task: &mut OperateTask) -> Next {
        let Some(inside) = &mut self.inside else { return Next::Wait };
        let known = inside.copies.view(task.place.slot).map_or(0, |view| view.epoch);
        if known > task.view.as_ref().map_or(0, |view| view.epoch) {
            (task.looking, task.turn) = (false, 0);
            return self.try_operate(now, id, task);
        }
        let mut others: Vec<Contact> = inside.overlay.successors().to_vec();
        others.retain(|contact| inside.overlay.answers(contact));
        for _ in 0..LOOK_AROUND_MAX.min(others.len()) {
            let other = others.swap_remove(self.rng.index(others.len()));
            inside.copies.ask_views(other, &[task.place.slot]);
        }
        task.looks += 1;
        Next::Pause(LOOK_AROUND_AGAIN * (1 << task.looks.min(LOOKS_MAX)) + inside.overlay.usual_round_trip())
    }

    fn operation(&mut self, now: Now, task: &mut OperateTask) -> Operation {
        let id = match task.id {
            Some(id) => id,
            None => *task.id.insert(self.next_op_id(now)),
        };
        Operation { id, command: task.command.clone(), again: task.again }
    }

    fn ask_operate(&mut self, now: Now, id: u64, task: &mut OperateTask, to: Contact) -> Next {
        let operation = self.operation(now, task);
        let call = Call::Operate { key: task.place.key.clone(), operation };
        task.asked = Some((self.call(id, to, call), to));
        let patience = self.inside.as_ref().map(|inside| inside.overlay.patience(&to, task.late));
        Next::Pause(patience.map_or(ASK_ANOTHER_MAX, |patience| patience.min(ASK_ANOTHER_MAX)))
    }

    /// Members of the view of a key that do not answer.
    pub(super) fn missing_for(&self, task: &OperateTask) -> Vec<Contact> {
        let (Some(inside), Some(view)) = (&self.inside, &task.view) else { return Vec::new() };
        let silent = |contact: &&Contact| !inside.overlay.answers(contact);
        view.members.iter().filter(silent).copied().collect()
    }
}
