//! Rules of the copies that a test can switch off, one at a time, to see that it notices.
//!
//! Outside the library's own tests nothing is ever switched off.

use super::Copies;

/// A rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))]
pub enum Mutation {
    /// After an outcome that is not known a member goes on as if it had the word of the key.
    KeepsTheWord,
    /// A newcomer is voted for without being asked.
    NobodyIsAsked,
    /// Whoever has agreed to be a member does not write that down.
    ForgetsAgreements,
    /// A member answers also when it does not serve the view.
    AnswersUnserved,
    /// The records of one member are enough for the next view.
    OneSource,
    /// Whoever has dropped a slot does not remember up to which epoch it was over.
    ForgetsTheEnd,
    /// What a source cannot read counts as what it does not have.
    DamagedIsAbsent,
    /// What cannot be read is put right by what a single other member has.
    BelievesOne,
    /// Removals of the present view are forgotten, too.
    CollectsThePresent,
    /// Removals are forgotten once a majority has them.
    CollectsByMajority,
    /// What a newcomer has copied ahead stays, though nobody of those it fetches from has it any more.
    KeepsWhatNobodyHas,
    /// When operations were asked for that are forgotten is not passed on to the members of the next view.
    EvictedStaysBehind,
    /// Whoever tries again does so under a new name.
    TriesBlindly,
}

impl Copies {
    #[cfg(test)]
    pub(super) fn mutated(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)] // It is used in tests.
    pub(super) fn mutated(&self, _: Mutation) -> bool {
        false
    }
}
