//! Recovery from a lost majority, for an operator: which slots cannot go on, whom they miss, what may be lost; and, once the
//! operator has named those who are gone for good, on with what is left.
//!
//! ```text
//! ask every node about itself ──▶ ask every node for its views ──▶ report (dry run)
//!                                   ▲        │ twice the same, and the missing are those named
//!                                   │        ▼
//!                                   │   call those who are missing: nobody answers
//!                                   │        ▼
//!                                   └─── tell the heirs; until no slot is left: report
//! ```
//!
//! Nodes are asked one after the other, so what they say is of different moments: a slot counts only once two rounds have
//! said the same of it.

use std::collections::{BTreeMap, BTreeSet};

use super::chord_node::ChordNode;
use super::inside::Inside;
use super::message::{Call, Reply};
use super::report::{CopiesLeft, Missing, RecoverReport};
use super::task::{Next, Wake};
use super::walk::{SILENCE, WalkTask, json};
use crate::base::{Contact, Incarnation, Now, Span};
use crate::data::{Failure, Slot, UserReply};
use crate::replication::chain::is_majority;
use crate::replication::copies::{Recovery, SURVEYED_AT_ONCE};
use crate::replication::survey::{Case, Survey};
use crate::replication::{View, runs_of};

/// Such a request in progress.
#[derive(Debug)]
pub(super) struct RecoverTask {
    // Who is gone for good, as the operator says; `None`: a dry run.
    lost: Option<BTreeSet<String>>,
    walk: WalkTask,
    step: Step,
    // What the round before has found.
    before: Option<Vec<Case>>,
    // What was to be done at first, once the heirs were told.
    begun: Option<RecoverReport>,
}

#[derive(Debug)]
enum Step {
    Walk,
    Survey { survey: Survey, open: BTreeMap<u64, (Contact, Slot)> },
    // Those who are missing are called.
    Try { open: BTreeMap<u64, Contact> },
    Tell { open: BTreeMap<u64, Contact> },
    // A while, before the views are asked for again.
    Pause,
}

/// Between two rounds.
const SURVEY_AGAIN: Span = Span::millis(200);
/// Runs of slots in one message.
const RUNS_AT_ONCE: usize = 512;
/// Of the epochs that attempts are given, those that do not tell the time.
const ATTEMPT_BITS: u32 = 10;
/// How a report names the members of slots of which nobody knows a view any more.
const UNKNOWN: &str = "unknown";

impl RecoverTask {
    pub fn new(lost: Option<Vec<String>>) -> Self {
        let lost = lost.map(|lost| lost.into_iter().collect());
        Self { lost, walk: WalkTask::default(), step: Step::Walk, before: None, begun: None }
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
            Step::Try { open } => {
                if let Wake::Reply { request, reply: Reply::Info(info), .. } = &wake
                    && open.get(request).is_some_and(|called| called.incarnation == info.contact.incarnation)
                {
                    let text = format!("{} answers: it is not lost, only not in the ring yet", info.contact.addr);
                    return Next::Done(UserReply::Failed(Failure::Conflict(text)));
                }
                if is_over(open, &wake) { self.tell_heirs(now, id, task) } else { Next::Pause(SILENCE) }
            }
            Step::Tell { open } => {
                if is_over(open, &wake) {
                    pause(task)
                } else {
                    Next::Pause(SILENCE)
                }
            }
            Step::Pause if matches!(wake, Wake::Go) => self.survey(now, id, task),
            Step::Pause => Next::Pause(SURVEY_AGAIN),
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
        let slots = inside.params.space.slots();
        let living: Vec<Contact> = task.walk.living().collect();
        let Some(before) = task.before.replace(cases) else { return pause(task) };
        let cases: Vec<Case> = task.before.iter().flatten().filter(|case| before.contains(case)).cloned().collect();
        let report = report(slots, &cases, &living);
        let Some(lost) = &task.lost else { return Next::Done(json(&report)) };
        if task.before.as_ref().is_some_and(Vec::is_empty) {
            let done = task.begun.clone().unwrap_or(report);
            return Next::Done(json(&RecoverReport { recovered: Some(done.unavailable), ..done }));
        }
        if cases.is_empty() {
            return pause(task);
        }
        let is_begun = task.begun.is_some();
        if let Some(refusal) = refusal(lost, is_begun, &cases, &report, task.walk.unreachable()) {
            return Next::Done(UserReply::Failed(Failure::Conflict(refusal)));
        }
        if is_begun {
            task.before = Some(cases);
            return self.tell_heirs(now, id, task);
        }
        let ring = task.walk.report(inside.overlay.me().id, &inside.params);
        if !ring.whole {
            let text =
                "the nodes that are left are not one ring yet: ask again in some seconds (chordkv ring shows it)";
            return Next::Done(UserReply::Failed(Failure::Conflict(text.to_owned())));
        }
        let missing: BTreeSet<Contact> = cases.iter().flat_map(|case| case.missing.iter()).copied().collect();
        task.begun = Some(report);
        task.before = Some(cases);
        let open: BTreeMap<u64, Contact> =
            missing.into_iter().map(|contact| (self.call(id, contact, Call::Info), contact)).collect();
        let nobody = open.is_empty();
        task.step = Step::Try { open };
        if nobody { self.tell_heirs(now, id, task) } else { Next::Pause(SILENCE) }
    }

    /// As often as there are slots left: whoever was told already goes on.
    fn tell_heirs(&mut self, now: Now, id: u64, task: &mut RecoverTask) -> Next {
        let mut by_heir: BTreeMap<Contact, Vec<&Case>> = BTreeMap::new();
        for case in task.before.iter().flatten() {
            by_heir.entry(case.heir).or_default().push(case);
        }
        let me = self.inside.as_ref().map(|inside| inside.overlay.me());
        // Later attempts lie above, and no two are the same.
        let next = now.wall.0 << ATTEMPT_BITS | self.rng.below(1 << ATTEMPT_BITS);
        let mut open = BTreeMap::new();
        for (heir, cases) in by_heir {
            let what = cases.into_iter().map(|case| (case.slot, (case.epoch, case.of, &case.sources)));
            let recovery = |(run, (epoch, of, sources)): (_, (_, _, &Vec<_>))| {
                let sources = sources.clone();
                Recovery { run, epoch, of, sources, next }
            };
            let recoveries: Vec<Recovery> = runs_of(what).into_iter().map(recovery).collect();
            for some in recoveries.chunks(RUNS_AT_ONCE) {
                if Some(heir) == me {
                    self.recover_here(now, some);
                } else {
                    open.insert(self.call(id, heir, Call::Recover(some.to_vec())), heir);
                }
            }
        }
        let is_told = open.is_empty();
        task.step = Step::Tell { open };
        if is_told { pause(task) } else { Next::Pause(SILENCE) }
    }

    /// Goes on with what is left of some slots; not with those that it serves together with others who answer.
    pub(super) fn recover_here(&mut self, now: Now, recoveries: &[Recovery]) {
        let Some(Inside { copies, overlay, .. }) = &mut self.inside else { return };
        let may = |view: &View| {
            let answering = view.members.iter().filter(|member| overlay.answers(member)).count();
            !is_majority(answering, view)
        };
        for recovery in recoveries {
            copies.recover(now.mono, recovery, &may);
        }
        self.watchers_have_missed(now);
    }
}

/// Takes what has come of some calls. Whether nothing is waited for any more: whoever has not answered by now will not.
fn is_over(open: &mut BTreeMap<u64, Contact>, wake: &Wake) -> bool {
    match wake {
        Wake::Reply { request, .. } | Wake::Undelivered { request, .. } | Wake::Lost { request, .. } => {
            open.remove(request);
        }
        Wake::Go => open.clear(),
        _ => {}
    }
    open.is_empty()
}

fn pause(task: &mut RecoverTask) -> Next {
    task.step = Step::Pause;
    Next::Pause(SURVEY_AGAIN)
}

fn went_silent<'a>(contacts: impl Iterator<Item = &'a Contact>) -> UserReply {
    let silent: Vec<String> = contacts.map(|contact| contact.addr.to_string()).collect();
    let text = format!("{} did not tell what it keeps; ask again", silent.join(", "));
    UserReply::Failed(Failure::Unavailable(text))
}

fn report(slots: u32, cases: &[Case], living: &[Contact]) -> RecoverReport {
    let mut missing: BTreeMap<Incarnation, Contact> = BTreeMap::new();
    let mut left: BTreeMap<(usize, usize, u64), u32> = BTreeMap::new();
    for case in cases {
        missing.extend(case.missing.iter().map(|contact| (contact.incarnation, *contact)));
        let behind = if case.sources.is_empty() { 0 } else { case.epoch - case.of };
        *left.entry((case.sources.len(), case.members, behind)).or_default() += 1;
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
        copies_left: left
            .into_iter()
            .map(|((left, of, behind), slots)| CopiesLeft { left, of, behind, slots })
            .collect(),
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
fn refusal(
    lost: &BTreeSet<String>,
    is_begun: bool,
    cases: &[Case],
    report: &RecoverReport,
    silent: &[Contact],
) -> Option<String> {
    let missing: BTreeSet<String> = report.missing.iter().map(|node| node.addr.clone()).collect();
    let all = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    if !missing.is_subset(lost) || !is_begun && missing != *lost {
        let (missing, lost) = (all(&missing), all(lost));
        return Some(format!("the nodes that are missing are {missing}, not {lost}: look at the dry run again"));
    }
    // Another node at the address of one that is lost may have something, too.
    let known: BTreeSet<Incarnation> = cases.iter().flat_map(|case| &case.missing).map(|c| c.incarnation).collect();
    let others = silent.iter().filter(|contact| !known.contains(&contact.incarnation)).map(|c| c.addr.to_string());
    let others: BTreeSet<String> = others.collect();
    let text = |names: String| {
        format!("{names} does not answer, and may have copies: start it, or ask again when the ring has given it up")
    };
    (!is_begun && !others.is_empty()).then(|| text(all(&others)))
}
