//! The views of one slot, as one of its members knows them: which is the newest, whether its records are here, and the vote
//! on the next (`protocol.md` section 4, view changes).
//!
//! A view is decided by the members of the one before (Paxos, one decision for each epoch). Whoever is in it fetches
//! from a majority of those, who freeze first; then it is complete. What is here decides alone whether a member serves.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::view::View;
use crate::base::{Contact, Incarnation};

/// Orders the proposals of the next view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// Counts.
    pub n: u64,
    /// Who proposes.
    pub node: Incarnation,
}

/// Those of a view.
pub type Members = Arc<[Contact]>;

/// What a member has accepted as the next view.
pub type Bid = (Turn, Members);

/// What a member tells that promises its vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// What it has accepted before.
    pub accepted: Option<Bid>,
    /// Whether it has the records of the present view.
    pub complete: bool,
}

/// A view of which this node may still have to tell others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) view: View,
    pub(super) complete: bool,
    pub(super) frozen: bool,
    // This node is none of its members, and has agreed to be one of the next.
    pub(super) agreed: bool,
    pub(super) promised: Option<Turn>,
    pub(super) accepted: Option<Bid>,
    // Whose records are known to be there: a bit for each member.
    pub(super) complete_at: u64,
}

/// See the module. Whatever changes here must be on disk before anybody is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    me: Incarnation,
    // Views before this epoch are over for this node.
    pub(super) over: u64,
    // By epoch, from the oldest whose records may still be asked for on.
    pub(super) known: Vec<Known>,
}

/// Members of a view, at most.
pub const MEMBERS_MAX: usize = 64;

/// Whether so many of a view are a majority.
pub fn is_majority(count: usize, view: &View) -> bool {
    count > view.members.len() / 2
}

impl View {
    /// Whether this is one of its members.
    pub fn has(&self, who: Incarnation) -> bool {
        self.members.iter().any(|member| member.incarnation == who)
    }
}

impl Known {
    /// Whether all members have its records.
    fn is_everywhere(&self) -> bool {
        self.complete_at.count_ones() as usize >= self.view.members.len()
    }

    pub(super) fn new(view: View) -> Self {
        Self { view, complete: false, frozen: false, agreed: false, promised: None, accepted: None, complete_at: 0 }
    }
}

impl Chain {
    /// Of somebody who has heard of no view yet.
    pub fn new(me: Incarnation) -> Self {
        Self { me, over: 0, known: Vec::new() }
    }

    /// Of somebody who has kept something of the slot before, and dropped it when the view of this epoch was known: what
    /// was before that must not begin again, whoever still speaks of it.
    pub fn after(me: Incarnation, over: u64) -> Self {
        Self { over, ..Self::new(me) }
    }

    /// Up to which epoch the slot's views are over for this node, once it drops what it keeps of it.
    pub fn over(&self) -> u64 {
        self.newest().map_or(self.over, |view| view.epoch)
    }

    /// Of the first member of the first view: it has all there is.
    pub fn create(view: View, me: Incarnation) -> Self {
        let mut chain = Self::new(me);
        chain.known.push(Known { complete: true, ..Known::new(view) });
        chain
    }

    /// Agrees to be a member of the view after the newest, if asked to be: it will be waited for.
    pub fn agree(&mut self) {
        let me = self.me;
        if let Some(last) = self.known.last_mut().filter(|last| !last.view.has(me)) {
            last.agreed = true;
        }
    }

    /// Whether it has agreed to be a member of the view after the newest.
    pub fn has_agreed(&self) -> bool {
        self.known.last().is_some_and(|last| last.agreed)
    }

    /// Whether nobody waits for this node: it is in none of the views that are left, and has not agreed to be in the next.
    pub fn is_free(&self) -> bool {
        !self.has_agreed() && !self.known.iter().any(|known| known.view.has(self.me))
    }

    /// Whether it knows of no view.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether nothing is on its way: only the newest view is left, and this node serves it.
    pub fn is_at_rest(&self) -> bool {
        self.known.len() == 1 && self.served().is_some()
    }

    /// The highest turn that was promised in the vote on what follows this epoch.
    pub fn turn(&self, epoch: u64) -> Option<Turn> {
        self.at(epoch)?.promised
    }

    /// Members of the newest view that are not known to have its records.
    pub fn incomplete(&self) -> Vec<Contact> {
        let Some(last) = self.known.last() else { return Vec::new() };
        let members = last.view.members.iter().enumerate();
        members.filter(|(at, _)| last.complete_at & 1 << at == 0).map(|(_, member)| *member).collect()
    }

    /// The newest view heard of.
    pub fn newest(&self) -> Option<&View> {
        self.known.last().map(|known| &known.view)
    }

    /// All views that somebody may have to know of, oldest first.
    pub fn views(&self) -> Vec<View> {
        self.known.iter().map(|known| known.view.clone()).collect()
    }

    fn at(&self, epoch: u64) -> Option<&Known> {
        self.known.iter().find(|known| known.view.epoch == epoch)
    }

    fn at_mut(&mut self, epoch: u64) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.view.epoch == epoch)
    }

    /// The view that this member serves: the newest, if its records are here and it is not frozen.
    pub fn served(&self) -> Option<&View> {
        let last = self.known.last()?;
        (last.complete && !last.frozen && last.view.has(self.me)).then_some(&last.view)
    }

    /// Hears of views, oldest first. An older one than the newest is frozen from then on. True if that was news.
    pub fn learn(&mut self, views: &[View]) -> bool {
        // What is older was over before; but whoever has no records of any view may have missed how it began.
        let is_base =
            self.known.iter().any(|known| known.complete) || self.known.first().is_some_and(Known::is_everywhere);
        let oldest = self.known.first().map(|known| known.view.epoch).filter(|_| is_base);
        let mut news = false;
        let over = self.over;
        let news_of = |view: &&View| view.epoch >= over && oldest.is_none_or(|oldest| view.epoch > oldest);
        for view in views.iter().filter(news_of) {
            let at = self.known.partition_point(|known| known.view.epoch < view.epoch);
            if self.known.get(at).is_none_or(|known| known.view.epoch != view.epoch) {
                self.known.insert(at, Known::new(view.clone()));
                news = true;
            }
        }
        let Some((_, older)) = self.known.split_last_mut() else { return news };
        for known in older {
            known.frozen = true;
        }
        self.complete_what_was_before();
        news
    }

    /// Whoever has the records of a view has what was chosen in all those before it: their records came from a majority each
    /// time. To fetch those of an earlier one all the same would take out of the store what is newer.
    pub(super) fn complete_what_was_before(&mut self) {
        let me = self.me;
        let Some(latest) = self.known.iter().rfind(|known| known.complete).map(|known| known.view.epoch) else {
            return;
        };
        let lacking = |known: &&Known| known.view.epoch < latest && known.view.has(me) && !known.complete;
        let before: Vec<u64> = self.known.iter().filter(lacking).map(|known| known.view.epoch).collect();
        for epoch in before {
            if let Some(known) = self.at_mut(epoch) {
                known.complete = true;
            }
            self.is_complete_at(epoch, me);
        }
    }

    // ----- the vote on the next view -----

    /// A member of the view of this epoch promises to vote for nothing below; the error is what it promised before.
    /// `None`: it does not know that view.
    pub fn prepare(&mut self, epoch: u64, turn: Turn) -> Option<Result<Promise, Turn>> {
        let me = self.me;
        let known = self.at_mut(epoch).filter(|known| known.view.has(me))?;
        match known.promised {
            Some(promised) if promised >= turn => Some(Err(promised)),
            _ => {
                known.promised = Some(turn);
                Some(Ok(Promise { accepted: known.accepted.clone(), complete: known.complete }))
            }
        }
    }

    /// A member votes, unless it has promised another turn.
    pub fn accept(&mut self, epoch: u64, turn: Turn, members: &Members) -> Option<Result<(), Turn>> {
        let me = self.me;
        let known = self.at_mut(epoch).filter(|known| known.view.has(me))?;
        match known.promised {
            Some(promised) if promised > turn => Some(Err(promised)),
            _ => {
                known.promised = Some(turn);
                known.accepted = Some((turn, Arc::clone(members)));
                Some(Ok(()))
            }
        }
    }

    /// Whether a promise, and a vote, on what follows the newest view is out.
    #[cfg(test)]
    pub(super) fn votes(&self) -> (bool, bool) {
        self.known.last().map_or((false, false), |last| (last.promised.is_some(), last.accepted.is_some()))
    }

    // ----- records on their way -----

    /// The views whose records this member lacks, each with the view of those who have them, the newest first. The newest
    /// is enough, as a majority had the records of the one before it when it was proposed; the others are for when too
    /// many of those are gone.
    pub fn wanted(&self) -> Vec<(View, View)> {
        let pairs = self.known.windows(2).rev().filter(|pair| pair[1].view.epoch == pair[0].view.epoch + 1);
        let lacking = pairs.filter(|pair| pair[1].view.has(self.me) && !pair[1].complete);
        lacking.map(|pair| (pair[1].view.clone(), pair[0].view.clone())).collect()
    }

    /// Somebody fetches the records of this epoch for the next view: if they are here, they are frozen from now on.
    pub fn give(&mut self, epoch: u64) -> bool {
        let me = self.me;
        match self.at_mut(epoch) {
            Some(known) if known.complete && known.view.has(me) => {
                known.frozen = true;
                true
            }
            _ => false,
        }
    }

    /// The records of this epoch are here.
    pub fn complete(&mut self, epoch: u64) {
        let me = self.me;
        if let Some(known) = self.at_mut(epoch) {
            known.complete = true;
        }
        self.complete_what_was_before();
        self.is_complete_at(epoch, me);
    }

    /// A view of this node alone, by the word of an operator: whatever was before is over.
    pub fn force(&mut self, view: View) {
        let epoch = view.epoch;
        self.known = vec![Known::new(view)];
        self.complete(epoch);
    }

    /// Whether the records of this epoch are here.
    pub fn has_records(&self, epoch: u64) -> bool {
        self.at(epoch).is_some_and(|known| known.complete)
    }

    /// A member has the records of this epoch. Once all have, older ones are over; true if this node's own are to go, as
    /// it is in none of the views that are left.
    pub fn is_complete_at(&mut self, epoch: u64, who: Incarnation) -> bool {
        let Some(known) = self.at_mut(epoch) else { return false };
        let Some(at) = known.view.members.iter().position(|member| member.incarnation == who) else { return false };
        known.complete_at |= 1 << at;
        if !known.is_everywhere() {
            return false;
        }
        self.known.retain(|known| known.view.epoch >= epoch);
        !self.known.iter().any(|known| known.view.has(self.me))
    }
}

/// A proposal of the next view.
#[derive(Clone, Debug)]
pub struct Election {
    /// The view whose members vote.
    pub of: View,
    /// Its turn.
    pub turn: Turn,
    wish: Members,
    promised: Vec<(Incarnation, Promise)>,
    proposed: bool,
    voted: BTreeSet<Incarnation>,
}

impl Election {
    /// Asks the members of a view for their promise.
    pub fn new(of: View, turn: Turn, wish: Members) -> Self {
        Self { of, turn, wish, promised: Vec::new(), proposed: false, voted: BTreeSet::new() }
    }

    /// A member promises. What to ask all members to vote for, once enough have: what is already under way goes before
    /// one's own wish. And only once a majority has the records of the present view, or the next would have none. Where
    /// fewer are to go on than before, all of those have to be there: of two that are left over one that has died would
    /// leave nobody who may decide.
    pub fn promised(&mut self, from: Incarnation, promise: Promise) -> Option<Members> {
        if self.proposed || !self.of.has(from) || self.promised.iter().any(|(who, _)| *who == from) {
            return None;
        }
        self.promised.push((from, promise));
        let complete = self.promised.iter().filter(|(_, promise)| promise.complete).count();
        if !is_majority(self.promised.len(), &self.of) || !is_majority(complete, &self.of) {
            return None;
        }
        let bids = self.promised.iter().filter_map(|(_, promise)| promise.accepted.as_ref());
        if let Some((_, members)) = bids.max_by_key(|(turn, _)| *turn) {
            self.wish = Arc::clone(members);
        } else if self.wish.len() < self.of.members.len() {
            let has_promised = |member: &Contact| self.promised.iter().any(|(who, _)| *who == member.incarnation);
            let mut go_on = self.wish.iter().filter(|member| self.of.has(member.incarnation));
            if !go_on.all(has_promised) {
                return None;
            }
        }
        self.proposed = true;
        Some(Arc::clone(&self.wish))
    }

    #[cfg(test)]
    pub(super) fn has_proposed(&self) -> bool {
        self.proposed
    }

    /// A member has voted for it. The next view, once it is decided.
    pub fn voted(&mut self, from: Incarnation) -> Option<View> {
        if !self.proposed || !self.of.has(from) || !self.voted.insert(from) {
            return None;
        }
        let is_first_majority = is_majority(self.voted.len(), &self.of) && !is_majority(self.voted.len() - 1, &self.of);
        is_first_majority.then(|| View { epoch: self.of.epoch + 1, members: Arc::clone(&self.wish) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Capacity;

    fn who(n: u128) -> Incarnation {
        Incarnation(n)
    }

    fn view(epoch: u64, members: &[u16]) -> View {
        let member = |n: &u16| Contact::new(Capacity::MAX, ([10, 0, 0, 1], *n).into(), who(u128::from(*n)));
        View { epoch, members: members.iter().map(member).collect() }
    }

    fn turn(n: u64, node: u128) -> Turn {
        Turn { n, node: who(node) }
    }

    #[test]
    fn a_member_serves_the_newest_view_only_and_only_with_its_records() {
        let mut chain = Chain::create(view(1, &[1, 2, 3]), who(1));
        assert_eq!(chain.served(), Some(&view(1, &[1, 2, 3])));
        assert!(chain.learn(&[view(1, &[1, 2, 3]), view(2, &[1, 2, 4])]));
        assert!(!chain.learn(&[view(2, &[1, 2, 4])]), "no news");
        assert_eq!(chain.served(), None, "its records are still to be fetched");
        assert_eq!(chain.wanted(), [(view(2, &[1, 2, 4]), view(1, &[1, 2, 3]))]);
        chain.complete(2);
        assert_eq!((chain.served(), chain.wanted()), (Some(&view(2, &[1, 2, 4])), Vec::new()));
        assert!(chain.give(2));
        assert_eq!(chain.served(), None, "whoever has given serves no more");
        assert!(!chain.give(3) && !Chain::new(who(9)).give(1));
    }

    #[test]
    fn records_of_old_go_once_all_of_a_later_view_have_theirs() {
        let mut leaver = Chain::create(view(1, &[1, 2, 3]), who(3));
        leaver.learn(&[view(2, &[1, 2, 4])]);
        assert!(!leaver.is_complete_at(2, who(1)) && !leaver.is_complete_at(2, who(1)));
        assert!(!leaver.is_complete_at(2, who(4)), "one may still fetch from here");
        assert!(!leaver.is_complete_at(2, who(3)), "it is none of them");
        assert!(leaver.is_complete_at(2, who(2)));
        assert_eq!(leaver.views(), [view(2, &[1, 2, 4])]);
        let mut stayer = Chain::create(view(1, &[1, 2, 3]), who(1));
        stayer.learn(&[view(2, &[1, 2, 4])]);
        stayer.complete(2);
        assert!(![2, 4].into_iter().any(|n| stayer.is_complete_at(2, who(n))), "its records are those of the view");
        assert_eq!(stayer.served(), Some(&view(2, &[1, 2, 4])));
    }

    /// One that comes in two views later makes up for the one that it missed.
    #[test]
    fn an_incomplete_member_fetches_from_view_to_view() {
        let mut chain = Chain::new(who(4));
        chain.learn(&[view(2, &[1, 2, 4]), view(3, &[1, 4, 5])]);
        assert!(chain.learn(&[view(1, &[1, 2, 3])]), "it missed the beginning");
        let (third, second) = ((view(3, &[1, 4, 5]), view(2, &[1, 2, 4])), (view(2, &[1, 2, 4]), view(1, &[1, 2, 3])));
        assert_eq!(chain.wanted(), [third, second], "the newest is enough, if it is to be had");
        chain.complete(2);
        assert!(!chain.learn(&[view(0, &[1])]), "that is over");
        assert_eq!(chain.served(), None, "that one is over");
        assert!(chain.give(2), "and yet its records may be needed");
        assert_eq!(chain.wanted(), [(view(3, &[1, 4, 5]), view(2, &[1, 2, 4]))]);
    }

    /// It fetched records of long ago while it served, and took for gone what they do not have.
    #[test]
    fn whoever_has_the_newest_records_fetches_none_of_those_before() {
        let views = [view(1, &[1, 2, 3]), view(2, &[1, 2, 4]), view(3, &[1, 4, 5]), view(4, &[4, 5, 1])];
        let mut chain = Chain::new(who(4));
        chain.learn(&[views[0].clone(), views[2].clone(), views[3].clone()]);
        chain.complete(4);
        assert_eq!((chain.wanted(), chain.served()), (Vec::new(), Some(&views[3])));
        assert!(chain.has_records(3) && chain.give(3), "what others may need of those is here");
        assert!(chain.learn(&views), "it hears of one between");
        assert_eq!((chain.wanted(), chain.served()), (Vec::new(), Some(&views[3])));
        assert!(chain.has_records(2) && !chain.has_records(1), "of the first it was no member");
        // One that is complete says nothing of those that follow.
        let mut chain = Chain::new(who(4));
        chain.learn(&views);
        chain.complete(3);
        assert_eq!(chain.wanted(), [(views[3].clone(), views[2].clone())]);
    }

    #[test]
    fn what_may_be_decided_is_proposed_again() {
        let of = view(1, &[1, 2, 3]);
        let mut voters = [1, 2, 3].map(|n| Chain::create(of.clone(), who(n)));
        let (first, other) = (view(2, &[1, 2, 4]), view(2, &[2, 3, 5]));
        let mut election = Election::new(of.clone(), turn(1, 1), Arc::clone(&first.members));
        let promise = |voter: &mut Chain, turn| voter.prepare(1, turn).expect("a member").expect("no later turn");
        assert_eq!(election.promised(who(1), promise(&mut voters[0], turn(1, 1))), None);
        let members = election.promised(who(2), promise(&mut voters[1], turn(1, 1))).expect("a majority");
        assert_eq!(members, first.members);
        assert_eq!(voters[0].accept(1, turn(1, 1), &members), Some(Ok(())));
        assert_eq!(election.voted(who(1)), None);
        // Somebody else asks meanwhile, and meets the one vote that was given.
        let mut later = Election::new(of.clone(), turn(2, 3), Arc::clone(&other.members));
        assert_eq!(later.promised(who(1), promise(&mut voters[0], turn(2, 3))), None);
        let members = later.promised(who(3), promise(&mut voters[2], turn(2, 3))).expect("a majority");
        assert_eq!(members, first.members, "not its own wish");
        assert_eq!(voters[0].accept(1, turn(1, 1), &members), Some(Err(turn(2, 3))), "promised away");
        assert_eq!(later.voted(who(1)), None);
        assert_eq!(later.voted(who(3)), Some(first));
        assert_eq!(later.voted(who(2)), None, "it was decided before");
        assert!(voters[1].prepare(1, turn(1, 1)).is_some_and(|promise| promise.is_err()), "said twice");
    }

    #[test]
    fn fewer_go_on_only_if_all_of_them_promise() {
        let of = view(1, &[1, 2, 3]);
        let mut election = Election::new(of.clone(), turn(1, 1), view(2, &[2, 3]).members);
        let promise = |accepted| Promise { accepted, complete: true };
        assert_eq!(election.promised(who(1), promise(None)), None);
        assert_eq!(election.promised(who(2), promise(None)), None, "3 may be dead, and 2 alone would be no majority");
        assert!(election.promised(who(3), promise(None)).is_some());
        // What may be decided already is proposed all the same.
        let bid = (turn(1, 1), view(2, &[2, 3]).members);
        let mut later = Election::new(of, turn(2, 1), view(2, &[1, 2]).members);
        assert_eq!(later.promised(who(1), promise(None)), None);
        assert_eq!(later.promised(who(2), promise(Some(bid.clone()))), Some(bid.1));
    }

    #[test]
    fn no_view_is_proposed_before_a_majority_has_the_records_of_this_one() {
        let of = view(2, &[1, 2, 3]);
        let mut election = Election::new(of.clone(), turn(1, 1), Arc::clone(&of.members));
        let promise = |complete| Promise { accepted: None, complete };
        assert_eq!(election.promised(who(1), promise(true)), None);
        assert_eq!(election.promised(who(2), promise(false)), None, "one of three has them");
        assert_eq!(election.promised(who(7), promise(true)), None, "no member");
        assert_eq!(election.promised(who(3), promise(true)), Some(of.members));
    }
}
