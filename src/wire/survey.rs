//! What is said when slots are recovered from lost majorities, to protobuf and back.

use super::decode::{Decoded, Reader, WireError, run as run_of};
use super::encode::{contacts, run, view};
use super::pb;
use crate::replication::SlotRun;
use crate::replication::chain::MEMBERS_MAX;
use crate::replication::copies::Recovery;
use crate::replication::survey::{Said, Surveyed};

pub(super) fn survey_pb(said: &[(SlotRun, Said)]) -> pb::SurveyReply {
    let surveyed = |(of, complete): &Surveyed| pb::SurveyedView { view: Some(view(of)), complete: *complete };
    let entry = |(of, said): &(SlotRun, Said)| pb::Surveyed {
        run: Some(run(*of)),
        views: said.views.iter().map(surveyed).collect(),
        over: said.over,
    };
    pb::SurveyReply { surveyed: said.iter().map(entry).collect() }
}

pub(super) fn recover_pb(recoveries: &[Recovery]) -> pb::RecoverCall {
    let entry = |of: &Recovery| pb::Recovery {
        run: Some(run(of.run)),
        epoch: of.epoch,
        of: of.of,
        sources: contacts(&of.sources),
        next: of.next,
    };
    pb::RecoverCall { recoveries: recoveries.iter().map(entry).collect() }
}

impl Reader<'_> {
    pub(super) fn survey(&mut self, reply: pb::SurveyReply) -> Decoded<Vec<(SlotRun, Said)>> {
        let mut said = Vec::with_capacity(reply.surveyed.len());
        for of in reply.surveyed {
            let mut views = Vec::with_capacity(of.views.len());
            for surveyed in of.views {
                let view = self.view(surveyed.view.ok_or(WireError::Missing("the view"))?)?;
                views.push((view, surveyed.complete));
            }
            said.push((run_of(of.run)?, Said { views, over: of.over }));
        }
        Ok(said)
    }

    pub(super) fn recoveries(&mut self, call: pb::RecoverCall) -> Decoded<Vec<Recovery>> {
        let recovery = |of: pb::Recovery| {
            let sources = self.contacts(of.sources)?;
            if sources.len() > MEMBERS_MAX {
                return Err(WireError::TooLarge("a list of contacts"));
            }
            Ok(Recovery { run: run_of(of.run)?, epoch: of.epoch, of: of.of, sources, next: of.next })
        };
        call.recoveries.into_iter().map(recovery).collect()
    }
}
