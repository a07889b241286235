//! A feed by hand.

use std::collections::BTreeSet;

use super::feed::{Feed, Found};
use crate::base::Incarnation;
use crate::data::{Filter, Hint, Item, Key, Version};

fn key(name: &str) -> Key {
    Key::new(name.as_bytes()).expect("a key")
}

fn version(n: u64) -> Version {
    Version { epoch: 1, round: 0, node: Incarnation(1), n }
}

fn item(name: &str, n: u64) -> Item {
    Item { key: key(name), size: 1, version: version(n), content_type: None, expires: None }
}

fn feed(items: &[(&str, u64)]) -> Feed {
    let mut feed = Feed::new(Filter::Prefix(Vec::new()), 7);
    for (name, n) in items {
        feed.told(&item(name, *n), true);
    }
    feed.begin();
    feed
}

/// A read from its beginning to its end.
fn read(feed: &mut Feed, name: &str, found: Option<u64>) {
    let number = feed.begin_read(&key(name));
    feed.end_read(&key(name), number, found.map_or(Found::Nothing, |n| Found::Is(version(n))));
}

fn keys(names: &[&str]) -> BTreeSet<Key> {
    names.iter().map(|name| key(name)).collect()
}

#[test]
fn two_feeds_of_the_same_keys_know_each_others_tokens_however_they_came_there() {
    let mut one = feed(&[("a", 1), ("b", 2)]);
    let mut other = feed(&[("b", 7), ("c", 9)]);
    for (name, found) in [("c", None), ("a", Some(1)), ("b", Some(2))] {
        read(&mut other, name, found);
    }
    let token = one.sum();
    assert_eq!(token, other.sum());
    assert_eq!((one.find(token), other.find(token)), (Some(0), Some(3)));
    read(&mut one, "a", Some(5));
    assert_ne!(one.sum(), token);
    assert_eq!(one.find(token), Some(0));
    assert_eq!(one.find(1), None);
    assert_eq!(one.candidates(0, 9), [key("a")]);
    read(&mut one, "a", Some(5));
    assert_eq!(one.candidates(1, 9), [], "the same again is no change");
}

fn hint(feed: &mut Feed, name: &str, n: u64, there: Option<u64>) -> bool {
    feed.hint(&key(name), Hint::Accepted { ballot: version(n), there: there.map(version) })
}

#[test]
fn a_hint_of_what_is_known_is_no_news() {
    let mut feed = feed(&[("a", 1)]);
    assert!(!hint(&mut feed, "a", 1, Some(1)));
    assert!(hint(&mut feed, "a", 2, None));
    assert!(!feed.hint(&key("a"), Hint::Unknown), "it is to be read already");
    assert!(hint(&mut feed, "z", 5, Some(5)));
    assert_eq!(feed.candidates(0, 9), [key("a"), key("z")]);
    assert_eq!(feed.candidates(0, 1), [key("a")]);
    read(&mut feed, "a", None);
    assert!(!hint(&mut feed, "a", 2, None), "the other members say the same later");
    assert!(hint(&mut feed, "z", 5, Some(5)) || feed.is_dirty());
    assert!(!hint(&mut feed, "a", 1, Some(1)), "it is old");
}

#[test]
fn what_came_and_went_before_anybody_read_it_is_told_as_gone() {
    let mut feed = feed(&[]);
    let (before, first) = (feed.sum(), feed.first_token());
    assert!(hint(&mut feed, "a", 5, Some(5)));
    assert!(!hint(&mut feed, "a", 6, None));
    read(&mut feed, "a", None);
    assert_eq!(feed.changed(&key("a")), Some(1), "a listing may have shown it");
    // The same once more, and what was put is read before it is heard of.
    let number = feed.begin_read(&key("a"));
    assert!(hint(&mut feed, "a", 7, Some(7)));
    feed.end_read(&key("a"), number, Found::Nothing);
    assert_eq!(feed.changed(&key("a")), Some(2));
    assert!(!hint(&mut feed, "a", 8, None));
    read(&mut feed, "a", None);
    assert_eq!(feed.changed(&key("a")), Some(3));
    // The state is as before, and yet whoever began then is to be told; whoever was told is not.
    assert_eq!((feed.sum(), feed.find(first)), (before, Some(0)));
    let after = feed.token(3);
    assert_eq!((after, feed.find(after)), (before, Some(3)));
}

#[test]
fn whatever_not_enough_of_those_who_have_copies_tell_alike_is_to_be_read() {
    let mut feed = feed(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
    feed.begin_listing();
    for told in [[("a", 1), ("b", 2), ("c", 30)], [("a", 1), ("c", 3), ("d", 4)], [("c", 3), ("d", 4), ("e", 5)]] {
        for (name, n) in told {
            feed.told(&item(name, n), false);
        }
    }
    assert_eq!(feed.candidates(0, 9), [key("c"), key("e")], "others are told of at once");
    feed.end_listing(2);
    assert_eq!(feed.candidates(0, 9), [key("b"), key("c"), key("e")], "one alone has b");
    read(&mut feed, "b", None);
    feed.begin_listing();
    feed.end_listing(0);
    assert_eq!(feed.candidates(1, 9), [key("c"), key("e")]);
}

#[test]
fn of_two_reads_the_one_that_began_last_counts() {
    let mut feed = feed(&[("a", 1)]);
    let early = feed.begin_read(&key("a"));
    let late = feed.begin_read(&key("a"));
    feed.end_read(&key("a"), late, Found::Is(version(3)));
    feed.end_read(&key("a"), early, Found::Nothing);
    assert!(!feed.differs(&key("a"), Some(version(3))), "it was seen before what is there now");
    // It cannot be read: somebody else has to.
    let third = feed.begin_read(&key("a"));
    feed.end_read(&key("a"), third, Found::Unread);
    assert_eq!(feed.candidates(9, 9), [key("a")]);
}

#[test]
fn whoever_has_seen_a_part_goes_on_behind_it() {
    let mut feed = feed(&[]);
    for (at, name) in ["a", "b", "c", "d"].iter().enumerate() {
        read(&mut feed, name, Some(at as u64));
    }
    assert_eq!(feed.candidates(0, 2), [key("a"), key("b")]);
    let at = feed.seen_up_to(0, &keys(&["a", "b"]));
    assert_eq!(at, 2);
    let part = feed.token(at);
    assert_eq!(feed.find(part), Some(2));
    assert_eq!(feed.seen_up_to(at, &keys(&["d"])), 2, "c was not seen");
    read(&mut feed, "c", None);
    assert_eq!(feed.candidates(at, 9), [key("d"), key("c")], "only the latest of c");
    let end = feed.seen_up_to(at, &keys(&["c", "d"]));
    assert_eq!(feed.token(end), feed.sum());
}

#[test]
fn what_is_gone_for_long_is_forgotten_and_whoever_has_not_seen_it_is_told_so() {
    let mut feed = feed(&[("keep", 1)]);
    let before = feed.sum();
    for n in 0..super::feed::GONE_MAX as u64 + 10 {
        let name = format!("{n}");
        read(&mut feed, &name, Some(n));
        read(&mut feed, &name, None);
    }
    assert_eq!(feed.len(), super::feed::GONE_MAX + 1);
    assert_eq!(before, feed.sum());
    let part = feed.token(3);
    assert_eq!(feed.find(part), None);
}

/// Somebody has accepted it, and a read did not see it yet: it is chosen later, and others say so in the same ballot.
#[test]
fn what_was_heard_of_before_it_was_chosen_is_read_again() {
    let mut feed = feed(&[("a", 1)]);
    assert!(hint(&mut feed, "a", 2, Some(2)));
    read(&mut feed, "a", Some(1));
    assert!(hint(&mut feed, "a", 2, Some(2)));
    read(&mut feed, "a", Some(2));
    assert!(!hint(&mut feed, "a", 2, Some(2)));
}

#[test]
fn tokens_of_the_same_place_are_one_and_do_not_push_others_out() {
    let mut feed = feed(&[]);
    let first = feed.first_token();
    read(&mut feed, "a", Some(1));
    for _ in 0..5_000 {
        assert_eq!(feed.token(1), feed.sum());
    }
    assert_eq!(feed.find(first), Some(0));
    assert_eq!(feed.len(), 1);
}
