//! Recovery from a lost majority, for an operator: which slots cannot go on, whom they miss, what may be lost; and, once the
//! operator has named those who are gone for good, on with what is left.
//!
//! ```text
//! ask every node about itself ──▶ ask every node for its views ──▶ report (dry run)
//!                                            │ the missing are those named
//!                                            ▼
//!                                 tell the heirs ──▶ ask for views again, until no slot is left ──▶ report
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::chord_node::ChordNode;
use super::message::{Call, Reply};
use super::report::{CopiesLeft, Missing, RecoverReport};
use super::task::{Next, Wake};
use super::walk::{WalkTask, json};
use crate::base::{Contact, Incarnation, Now, Span};
use crate::data::{Failure, Slot, UserReply};
use crate::replication::copies::{Recovery, SURVEYED_AT_ONCE};
use crate::replication::runs_of;
use crate::replication::survey::{Case, Survey};

/// Such a request in progress.
#[derive(Debug)]
pub(super) struct RecoverTask {
    // Who is gone for good, as the operator says; `None`: a dry run.
    lost: Option<BTreeSet<String>>,
    walk: WalkTask,
    step: Step,
    // What was found first, once somebody was told to go on.
    begun: Option<RecoverReport>,
}

#[derive(Debug)]
enum Step {
    Walk,
    Survey { survey: Survey, open: BTreeMap<u64, (Contact, Slot)> },
    Tell { open: BTreeSet<u64> },
    // A while, before the views are asked for again.
    Pause,
}

/// Silence after which a node counts as unreachable.
const SILENCE: Span = Span::secs(2);
const SURVEY_AGAIN: Span = Span::millis(50);
/// Runs of slots in one message.
const RUNS_AT_ONCE: usize = 512;
/// How a report names the members of slots of which nobody knows a view any more.
const UNKNOWN: &str = "unknown";

impl RecoverTask {
    pub fn new(lost: Option<Vec<String>>) -> Self {
        let lost = lost.map(|lost| lost.into_iter().collect());
        Self { lost, walk: WalkTask::default(), step: Step::Walk, begun: None }
    }

    pub fn timed_out(&self) -> Failure {
        Failure::Unavailable(match self.begun {
            None => "not every node has told what it keeps in time; ask again".to_owned(),
            Some(_) => "it goes on, and was not over in time; ask again to see what is left to do".to_owned(),
        })
    }
}

impl ChordNode {
    pub(super) fn run_recover(&mut self, now: Now, id: u64, task: &mut RecoverTask, wake: Wake) -> Next {
        match &mut task.step {
            Step::Walk => match self.walk(now, id, &mut task.walk, wake) {
                Some(next) => next,
                None => self.survey(now, id, task),
            },
            Step::Survey { survey, open } => {
                let (request, reply) = match wake {
                    Wake::Reply { request, reply: Reply::Survey(said), .. } => (request, Some(said)),
                    Wake::Reply { request, .. } | Wake::Undelivered { request, .. } | Wake::Lost { request, .. } => {
                        (request, None)
                    }
                    // The pause is over: somebody is silent.
                    Wake::Go => return Next::Done(went_silent(open.values().map(|(contact, _)| contact))),
                    _ => return Next::Pause(SILENCE),
                };
                let Some((contact, from)) = open.remove(&request) else { return Next::Pause(SILENCE) };
                let Some(said) = reply else { return Next::Done(went_silent([&contact].into_iter())) };
                survey.add(contact.incarnation, said);
                let next = from.0.saturating_add(SURVEYED_AT_ONCE);
                let slots = self.inside.as_ref().map_or(0, |inside| inside.params.space.slots());
                if next < slots {
                    open.insert(self.call(id, contact, Call::Survey(Slot(next))), (contact, Slot(next)));
                }
                if open.is_empty() { self.surveyed(now, id, task) } else { Next::Pause(SILENCE) }
            }
            Step::Tell { open } => {
                match wake {
                    Wake::Reply { request, .. } | Wake::Undelivered { request, .. } | Wake::Lost { request, .. } => {
                        open.remove(&request);
                    }
                    Wake::Go => open.clear(),
                    _ => {}
                }
                if open.is_empty() {
                    task.step = Step::Pause;
                    return Next::Pause(SURVEY_AGAIN);
                }
                Next::Pause(SILENCE)
            }
            Step::Pause => self.survey(now, id, task),
        }
    }

    /// Asks everybody for views.
    fn survey(&mut self, now: Now, id: u64, task: &mut RecoverTask) -> Next {
        let Some(inside) = &self.inside else { return Next::Pause(SURVEY_AGAIN) };
        let (space, me) = (inside.params.space, inside.overlay.me());
        let mut survey = Survey::new(space, task.walk.living());
        for from in (0..space.slots()).step_by(SURVEYED_AT_ONCE as usize) {
            survey.add(me.incarnation, inside.copies.survey(Slot(from)));
        }
        let others: Vec<Contact> = task.walk.living().filter(|contact| *contact != me).collect();
        let call = |contact| (self.call(id, contact, Call::Survey(Slot(0))), (contact, Slot(0)));
        let open: BTreeMap<_, _> = others.into_iter().map(call).collect();
        let is_alone = open.is_empty();
        task.step = Step::Survey { survey, open };
        if is_alone { self.surveyed(now, id, task) } else { Next::Pause(SILENCE) }
    }

    /// Everybody has told what it knows.
    fn surveyed(&mut self, now: Now, id: u64, task: &mut RecoverTask) -> Next {
        let Step::Survey { survey, .. } = &task.step else { return Next::Wait };
        let cases = survey.cases();
        let Some(inside) = &self.inside else { return Next::Wait };
        let living: Vec<Contact> = task.walk.living().collect();
        let report = report(inside.params.space.slots(), &cases, &living);
        let Some(lost) = &task.lost else { return Next::Done(json(&report)) };
        if let Some(begun) = &task.begun {
            // Whoever was told and has not begun had heard of something newer: the operator should look again.
            let is_over = cases.is_empty();
            let recovered = begun.unavailable - report.unavailable.min(begun.unavailable);
            task.step = Step::Pause;
            return if is_over { done(begun, recovered) } else { Next::Pause(SURVEY_AGAIN) };
        }
        if cases.is_empty() {
            return done(&report, 0);
        }
        if let Some(refusal) = refusal(lost, &report, task.walk.unreachable()) {
            return Next::Done(UserReply::Failed(Failure::Conflict(refusal)));
        }
        let ring = task.walk.report(inside.overlay.me().id, &inside.params);
        if !ring.whole {
            let text =
                "the nodes that are left are not one ring yet: ask again in some seconds (chordkv ring shows it)";
            return Next::Done(UserReply::Failed(Failure::Conflict(text.to_owned())));
        }
        task.begun = Some(report);
        self.tell_heirs(now, id, task, &cases)
    }

    fn tell_heirs(&mut self, now: Now, id: u64, task: &mut RecoverTask, cases: &[Case]) -> Next {
        let mut by_heir: BTreeMap<Contact, Vec<&Case>> = BTreeMap::new();
        for case in cases {
            by_heir.entry(case.heir).or_default().push(case);
        }
        let me = self.inside.as_ref().map(|inside| inside.overlay.me());
        let mut open = BTreeSet::new();
        for (heir, cases) in by_heir {
            let what = cases.into_iter().map(|case| (case.slot, (case.epoch, case.of, &case.sources)));
            let recovery = |(run, (epoch, of, sources)): (_, (_, _, &Vec<_>))| Recovery {
                run,
                epoch,
                of,
                sources: sources.clone(),
            };
            let recoveries: Vec<Recovery> = runs_of(what).into_iter().map(recovery).collect();
            for some in recoveries.chunks(RUNS_AT_ONCE) {
                if Some(heir) == me {
                    self.recover_here(now, some);
                } else {
                    open.insert(self.call(id, heir, Call::Recover(some.to_vec())));
                }
            }
        }
        task.step = Step::Tell { open };
        Next::Pause(SURVEY_AGAIN)
    }

    /// Goes on with what is left of some slots. With how many it begins.
    pub(super) fn recover_here(&mut self, now: Now, recoveries: &[Recovery]) -> u32 {
        let Some(inside) = &mut self.inside else { return 0 };
        let begun: usize = recoveries.iter().map(|recovery| inside.copies.recover(now.mono, recovery)).sum();
        u32::try_from(begun).unwrap_or(u32::MAX)
    }
}

fn done(report: &RecoverReport, recovered: u32) -> Next {
    Next::Done(json(&RecoverReport { recovered: Some(recovered), ..report.clone() }))
}

fn went_silent<'a>(contacts: impl Iterator<Item = &'a Contact>) -> UserReply {
    let silent: Vec<String> = contacts.map(|contact| contact.addr.to_string()).collect();
    let text = format!("{} did not tell what it keeps; ask again", silent.join(", "));
    UserReply::Failed(Failure::Unavailable(text))
}

fn report(slots: u32, cases: &[Case], living: &[Contact]) -> RecoverReport {
    let mut missing: BTreeMap<Incarnation, Contact> = BTreeMap::new();
    let mut left: BTreeMap<(usize, usize), u32> = BTreeMap::new();
    for case in cases {
        missing.extend(case.missing.iter().map(|contact| (contact.incarnation, *contact)));
        *left.entry((case.sources.len(), case.members)).or_default() += 1;
    }
    let mut missing: Vec<Missing> = missing.values().map(|contact| missing_node(contact, living)).collect();
    if cases.iter().any(|case| case.members == 0) {
        missing.push(Missing { addr: UNKNOWN.to_owned(), incarnation: None, is_another: false });
    }
    missing.sort_by(|a, b| a.addr.cmp(&b.addr));
    RecoverReport {
        slots,
        unavailable: u32::try_from(cases.len()).unwrap_or(u32::MAX),
        missing,
        copies_left: left.into_iter().map(|((left, of), slots)| CopiesLeft { left, of, slots }).collect(),
        recovered: None,
    }
}

fn missing_node(contact: &Contact, living: &[Contact]) -> Missing {
    Missing {
        addr: contact.addr.to_string(),
        incarnation: Some(contact.incarnation.to_string()),
        is_another: living.iter().any(|living| living.addr == contact.addr),
    }
}

/// Why the word of the operator does not fit what was found.
fn refusal(lost: &BTreeSet<String>, report: &RecoverReport, silent: &[Contact]) -> Option<String> {
    let missing: BTreeSet<String> = report.missing.iter().map(|node| node.addr.clone()).collect();
    let all = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    if missing != *lost {
        let text =
            format!("the nodes that are missing are {}, not {}: look at the dry run again", all(&missing), all(lost));
        return Some(text);
    }
    let others: BTreeSet<String> = silent.iter().map(|contact| contact.addr.to_string()).collect();
    let others: BTreeSet<String> = others.difference(lost).cloned().collect();
    let text = |names: String| {
        format!("{names} does not answer, and may have copies: start it, or ask again when the ring has given it up")
    };
    (!others.is_empty()).then(|| text(all(&others)))
}
