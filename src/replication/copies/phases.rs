//! In the midst of what a node is, for tests that interrupt it there.

use super::Copies;

/// All phases of a change of view, and of what becomes of it.
pub(crate) const PHASES: [&str; 9] = [
    "asks for promises",
    "asks for votes",
    "has promised",
    "has voted",
    "has invited",
    "copies ahead",
    "waits to be voted for",
    "fetches",
    "has the records, and others do not yet",
];

impl Copies {
    /// The phases that some slot of this node is in.
    pub(crate) fn phases(&self) -> Vec<&'static str> {
        let of_slot = |(slot, held): (&_, &super::Held)| {
            let standing = held.election.as_ref().map(|standing| standing.has_proposed());
            let invited = self.invited.get(slot);
            let (promised, voted) = held.chain.votes();
            let in_phase = [
                standing == Some(false),
                standing == Some(true),
                promised,
                voted,
                held.inviting.is_some(),
                invited.is_some_and(|invited| !invited.is_ready),
                invited.is_some_and(|invited| invited.is_ready),
                held.fetching.is_some(),
                held.chain.served().is_some() && held.chain.views().len() > 1,
            ];
            PHASES.into_iter().zip(in_phase).filter(|(_, is_in)| *is_in).map(|(phase, _)| phase).collect::<Vec<_>>()
        };
        self.held.iter().flat_map(of_slot).collect()
    }
}
