//! Lists of entity tags (RFC 9110, sections 8.8.3, 13.1.1 and 13.1.2): the text of a precondition to a [`Tag`].

use super::message::WHITESPACE;
use super::problem::quoted;
use crate::base::limits::CONDITIONS_MAX;
use crate::data::{Tag, Version};

/// How a tag of the list is compared (RFC 9110, section 8.8.3.2). Versions themselves are strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// `If-Match`: a weak tag matches nothing.
    Strong,
    /// `If-None-Match`: by what stands in the quotes.
    Weak,
}

/// The text of `ETag` for a version.
pub(super) fn etag(version: Version) -> String {
    format!("\"{version}\"")
}

/// Reads `*` or a list of entity tags. Tags that no version prints are read and dropped. The error says what is wrong.
///
/// An empty list, which the grammar allows, is refused: what sent it had no tag to send.
pub(super) fn entity_tags(text: &str, comparison: Comparison) -> Result<Tag, String> {
    if text.trim_matches(WHITESPACE) == "*" {
        return Ok(Tag::Any);
    }
    let mut versions = Vec::new();
    let mut count = 0;
    let mut rest = text.trim_start_matches(SEPARATORS);
    while !rest.is_empty() {
        let (tag, after) = first(rest)?;
        count += 1;
        if count > CONDITIONS_MAX {
            return Err(format!("there are more than {CONDITIONS_MAX} entity tags"));
        }
        let comparable = !tag.weak || comparison == Comparison::Weak;
        if comparable && let Ok(version) = tag.opaque.parse() {
            versions.push(version);
        }
        let after = after.trim_start_matches(WHITESPACE);
        if !after.is_empty() && !after.starts_with(',') {
            return Err(format!("a comma is missing before {}", quoted(after)));
        }
        rest = after.trim_start_matches(SEPARATORS);
    }
    if count == 0 {
        return Err("it is empty; give \"*\" or an entity tag".to_owned());
    }
    Ok(Tag::Of(versions))
}

struct EntityTag<'a> {
    weak: bool,
    opaque: &'a str,
}

/// The tag that `text` begins with, and what follows it.
fn first(text: &str) -> Result<(EntityTag<'_>, &str), String> {
    let (weak, quoted_tag) = match text.strip_prefix("W/") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let Some(tag) = quoted_tag.strip_prefix('"') else {
        let reason =
            if text.starts_with('*') { "\"*\" must stand alone" } else { "an entity tag stands in double quotes" };
        return Err(format!("{reason}, here is {}", quoted(text)));
    };
    let Some((opaque, after)) = tag.split_once('"') else {
        return Err(format!("the closing quote is missing after {}", quoted(tag)));
    };
    if let Some(bad) = opaque.chars().find(|&c| !is_etag_char(c)) {
        return Err(format!("an entity tag cannot contain {bad:?}"));
    }
    Ok((EntityTag { weak, opaque }, after))
}

fn is_etag_char(c: char) -> bool {
    c.is_ascii_graphic() || !c.is_ascii()
}

/// Between the tags of a list; empty elements are allowed (RFC 9110, section 5.6.1.2).
const SEPARATORS: [char; 3] = [',', ' ', '\t'];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Incarnation;

    const V1: &str = "\"1-2a-00000000000000000000000000000abc\"";
    const V2: &str = "\"1-2b-00000000000000000000000000000abc\"";

    fn version(n: u64) -> Version {
        Version { epoch: 1, round: 0, n, node: Incarnation(0xabc) }
    }

    #[test]
    fn an_etag_is_the_version_in_quotes_and_reads_back() {
        assert_eq!(etag(version(0x2a)), V1);
        assert_eq!(entity_tags(V1, Comparison::Strong), Ok(Tag::Of(vec![version(0x2a)])));
    }

    #[test]
    fn lists_of_tags_are_read_as_rfc_9110_says() {
        let (one, two) = (version(0x2a), version(0x2b));
        let cases = [
            ("*".to_owned(), Tag::Any, Tag::Any),
            (" *\t".to_owned(), Tag::Any, Tag::Any),
            (format!("{V1},{V2}"), Tag::Of(vec![one, two]), Tag::Of(vec![one, two])),
            (format!(" , {V1}\t, ,{V2} ,"), Tag::Of(vec![one, two]), Tag::Of(vec![one, two])),
            (format!("W/{V1}, {V2}"), Tag::Of(vec![two]), Tag::Of(vec![one, two])),
            ("\"\", \"of another store\"".replace(' ', ""), Tag::Of(vec![]), Tag::Of(vec![])),
            ("\"a,b\"".to_owned(), Tag::Of(vec![]), Tag::Of(vec![])),
            ("\"é\"".to_owned(), Tag::Of(vec![]), Tag::Of(vec![])),
            (V1.to_uppercase(), Tag::Of(vec![]), Tag::Of(vec![])),
        ];
        for (text, strong, weak) in cases {
            assert_eq!(entity_tags(&text, Comparison::Strong), Ok(strong), "{text}");
            assert_eq!(entity_tags(&text, Comparison::Weak), Ok(weak), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused_with_the_reason() {
        let cases = [
            ("", "empty"),
            (" , ,", "empty"),
            ("1-2a-00000000000000000000000000000abc", "double quotes"),
            ("w/\"a\"", "double quotes"),
            ("W/ \"a\"", "double quotes"),
            ("'a'", "double quotes"),
            ("*, \"a\"", "stand alone"),
            ("\"a\", *", "stand alone"),
            ("\"a", "closing quote"),
            ("\"a\" \"b\"", "comma"),
            ("\"a\"b", "comma"),
            ("\"a b\"", "cannot contain ' '"),
            ("\"a\u{7f}\"", "cannot contain"),
        ];
        for (text, reason) in cases {
            let error = entity_tags(text, Comparison::Weak).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn at_most_32_tags_are_taken_whether_ours_or_not() {
        let list = |n: usize| vec!["\"x\""; n].join(",");
        assert_eq!(entity_tags(&list(CONDITIONS_MAX), Comparison::Strong), Ok(Tag::Of(vec![])));
        assert!(entity_tags(&list(CONDITIONS_MAX + 1), Comparison::Strong).unwrap_err().contains("more than 32"));
    }
}
