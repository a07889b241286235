//! How a [`Chain`] is written down: a line for each view, readable for whoever opens the file; before them, if something of
//! the slot was kept and dropped before, up to which epoch it is over.
//!
//! ```text
//! over epoch
//! epoch flags complete-at members promised accepted-turn accepted-members
//! ```
//!
//! Flags are `c` (its records are here), `f` (frozen) and `a` (agreed to be in the next), or `-`; a member is `incarnation@address`, a turn
//! `n@incarnation`, and what there is nothing of is `-`.

use std::fmt::Write;

use super::chain::{Chain, Known, MEMBERS_MAX, Members, Turn};
use super::view::View;
use crate::base::{Capacity, Contact, Incarnation};

impl Chain {
    /// The text of it; `None` if it knows of nothing.
    pub fn to_row(&self) -> Option<String> {
        let mut row = String::new();
        // Writing to a string cannot fail.
        if self.over > 0 {
            let _ = writeln!(row, "over {}", self.over);
        }
        for known in &self.known {
            let all = [('c', known.complete), ('f', known.frozen), ('a', known.agreed)];
            let flags: String = all.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| *flag).collect();
            let flags = if flags.is_empty() { "-" } else { &flags };
            let _ = write!(row, "{} {flags} {:x} ", known.view.epoch, known.complete_at);
            write_members(&mut row, &known.view.members);
            for turn in [known.promised, known.accepted.as_ref().map(|(turn, _)| *turn)] {
                let _ = match turn {
                    Some(Turn { n, node }) => write!(row, " {n}@{node}"),
                    None => write!(row, " -"),
                };
            }
            row.push(' ');
            write_members(&mut row, known.accepted.as_ref().map_or(&[], |(_, members)| members));
            row.push('\n');
        }
        (!row.is_empty()).then_some(row)
    }

    /// Of a text that [`Chain::to_row`] gave. `None`: it is no such text.
    pub fn from_row(me: Incarnation, capacity: Capacity, row: &str) -> Option<Self> {
        let mut chain = Self::new(me);
        for line in row.lines() {
            if let Some(over) = line.strip_prefix("over ") {
                chain.over = over.parse().ok()?;
                continue;
            }
            let parts: Vec<&str> = line.split(' ').collect();
            let &[epoch, flags, complete_at, members, promised, accepted, bid] = parts.as_slice() else { return None };
            let members = read_members(capacity, members)?;
            let accepted = match read_turn(accepted)? {
                Some(turn) => Some((turn, read_members(capacity, bid)?)),
                None => None,
            };
            chain.known.push(Known {
                complete: flags.contains('c'),
                frozen: flags.contains('f'),
                agreed: flags.contains('a'),
                promised: read_turn(promised)?,
                accepted,
                complete_at: u64::from_str_radix(complete_at, 16).ok()?,
                ..Known::new(View { epoch: epoch.parse().ok()?, members })
            });
        }
        let is_sorted = chain.known.is_sorted_by(|a, b| a.view.epoch < b.view.epoch);
        chain.complete_what_was_before();
        is_sorted.then_some(chain)
    }
}

fn write_members(row: &mut String, members: &[Contact]) {
    if members.is_empty() {
        row.push('-');
    }
    for (n, member) in members.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(row, "{comma}{}@{}", member.incarnation, member.addr);
    }
}

fn read_members(capacity: Capacity, text: &str) -> Option<Members> {
    let member = |text: &str| {
        let (incarnation, addr) = text.split_once('@')?;
        Some(Contact::new(capacity, addr.parse().ok()?, read_incarnation(incarnation)?))
    };
    let members: Option<Vec<Contact>> = text.split(',').map(member).collect();
    members.filter(|members| members.len() <= MEMBERS_MAX).map(Members::from)
}

/// The outer `None`: it is none and does not say so.
#[allow(clippy::option_option)] // See above.
fn read_turn(text: &str) -> Option<Option<Turn>> {
    if text == "-" {
        return Some(None);
    }
    let (n, node) = text.split_once('@')?;
    Some(Some(Turn { n: n.parse().ok()?, node: read_incarnation(node)? }))
}

fn read_incarnation(text: &str) -> Option<Incarnation> {
    u128::from_str_radix(text, 16).ok().map(Incarnation)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let member = |n: u16| Contact::new(Capacity::MAX, ([10, 0, 0, 1], n).into(), Incarnation(u128::from(n) << 90));
        let view = |epoch, members: &[u16]| View { epoch, members: members.iter().map(|n| member(*n)).collect() };
        let me = member(1).incarnation;
        let mut chain = Chain::create(view(1, &[1, 2, 3]), me);
        let turn = Turn { n: 7, node: member(2).incarnation };
        assert!(chain.prepare(1, turn).is_some());
        assert!(chain.accept(1, turn, &Arc::from([member(1), member(2), member(4)])).is_some());
        chain.learn(&[view(2, &[1, 2, 4]), view(3, &[2, 4])]);
        chain.is_complete_at(2, member(2).incarnation);
        let row = chain.to_row().expect("some views");
        assert_eq!(Chain::from_row(me, Capacity::MAX, &row), Some(chain), "{row}");
        let mut invited = Chain::new(member(9).incarnation);
        invited.learn(&[view(1, &[1, 2, 3])]);
        assert!(invited.is_free());
        invited.agree();
        let row = invited.to_row().expect("a view");
        let again = Chain::from_row(member(9).incarnation, Capacity::MAX, &row).expect("it is readable");
        assert!(again == invited && !again.is_free(), "{row}");
        assert_eq!(Chain::new(me).to_row(), None);
        let mut back = Chain::after(me, 5);
        assert_eq!(Chain::from_row(me, Capacity::MAX, &back.to_row().expect("an epoch")), Some(back.clone()));
        back.learn(&[view(4, &[1]), view(5, &[2]), view(6, &[2, 1])]);
        assert_eq!(back.views(), [view(5, &[2]), view(6, &[2, 1])], "what was before is over");
        assert_eq!(Chain::from_row(me, Capacity::MAX, &back.to_row().expect("views")), Some(back));
        for bad in ["", "over what", "1 c 0 - - - -\n1 c 0 - - - -", "x", "1 c 0 what - - -", "1 c 0 1@nowhere - - -"] {
            let read = Chain::from_row(me, Capacity::MAX, bad);
            assert!(read.is_none() || read == Some(Chain::new(me)), "{bad}");
        }
    }
}
