//! Request targets (RFC 9112, section 3.2; RFC 3986): path, strict percent-decoding, query parameters, routes.

use percent_encoding::percent_decode_str;

use super::message::HttpResponse;
use super::problem::{bad_query, quoted};
use crate::base::limits::KEY_BYTES_MAX;

/// A known path; keys are still percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Kv(&'a str),
    List,
    Watch,
    Lookup(&'a str),
    Ring,
    Node,
    Leave,
    Recover,
    Livez,
    Readyz,
    Metrics,
}

impl<'a> Route<'a> {
    /// `None` for an unknown path.
    pub fn of(path: &'a str) -> Option<Self> {
        if let Some(key) = path.strip_prefix("/v1/kv/") {
            return Some(Self::Kv(key));
        }
        if let Some(key) = path.strip_prefix("/v1/lookup/") {
            return Some(Self::Lookup(key));
        }
        match path {
            "/v1/kv" => Some(Self::List),
            "/v1/watch" => Some(Self::Watch),
            "/v1/ring" => Some(Self::Ring),
            "/v1/node" => Some(Self::Node),
            "/v1/node/leave" => Some(Self::Leave),
            "/v1/recover" => Some(Self::Recover),
            "/livez" => Some(Self::Livez),
            "/readyz" => Some(Self::Readyz),
            "/metrics" => Some(Self::Metrics),
            _ => None,
        }
    }

    /// What `Allow` says.
    pub fn methods(self) -> &'static [&'static str] {
        match self {
            Self::Kv(_) => &["GET", "HEAD", "PUT", "DELETE"],
            Self::Leave => &["POST"],
            Self::Recover => &["GET", "HEAD", "POST"],
            // Not HEAD: an answer without a body tells nothing.
            Self::Watch => &["GET"],
            Self::List | Self::Lookup(_) | Self::Ring | Self::Node | Self::Livez | Self::Readyz | Self::Metrics => {
                &["GET", "HEAD"]
            }
        }
    }
}

/// Path and query of a target, the query without its `?`.
pub(super) fn split(target: &str) -> (&str, &str) {
    let target = without_authority(target).unwrap_or(target);
    target.split_once('?').unwrap_or((target, ""))
}

/// Percent-decodes. The error is the text that is no escape.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, String> {
    for (at, _) in text.match_indices('%') {
        let escape = &text[at..];
        let mut digits = escape.bytes().skip(1).take(2).filter(u8::is_ascii_hexdigit);
        if digits.by_ref().count() < 2 {
            return Err(escape.chars().take(3).collect());
        }
    }
    Ok(percent_decode_str(text).collect())
}

/// The parameters of a query: each allowed, each at most once.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(&'static str, Vec<u8>)>);

impl Query {
    /// Reads `name=value&…`. A `+` is a space, empty parts are skipped, a name without `=` has an empty value.
    pub fn parse(text: &str, allowed: &[&'static str]) -> Result<Self, HttpResponse> {
        let mut query = Self::default();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decode_query(name)?, decode_query(value)?);
            let Some(known) = allowed.iter().find(|known| known.as_bytes() == name) else {
                return Err(unknown(&String::from_utf8_lossy(&name), allowed));
            };
            if query.0.iter().any(|(taken, _)| taken == known) {
                return Err(bad_query(&format!("the parameter {} is given more than once", quoted(known))));
            }
            query.0.push((known, value));
        }
        Ok(query)
    }

    /// The value of a parameter as bytes.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_slice())
    }

    /// The parameter `prefix`, which is not longer than a key can be.
    pub fn prefix(&self) -> Result<Option<Vec<u8>>, HttpResponse> {
        match self.bytes("prefix") {
            Some(prefix) if prefix.len() > KEY_BYTES_MAX => {
                Err(bad_query(&format!("the prefix is longer than a key can be, {KEY_BYTES_MAX} bytes")))
            }
            prefix => Ok(prefix.map(<[u8]>::to_vec)),
        }
    }

    /// The value of a parameter as text; what is not UTF-8 becomes replacement characters, which nothing here accepts.
    pub fn text(&self, name: &str) -> Option<String> {
        self.bytes(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }
}

fn decode_query(text: &str) -> Result<Vec<u8>, HttpResponse> {
    decode(&text.replace('+', " ")).map_err(|bad| bad_query(&bad_escape(&bad, "the query")))
}

/// The detail for an escape that is none.
pub(super) fn bad_escape(bad: &str, place: &str) -> String {
    format!("{} in {place} is no percent escape; a plain % is written %25", quoted(bad))
}

fn unknown(name: &str, allowed: &[&'static str]) -> HttpResponse {
    let known = match allowed {
        [] => "this request takes none".to_owned(),
        names => format!("this request takes {}", names.join(", ")),
    };
    bad_query(&format!("the parameter {} is unknown; {known}", quoted(name)))
}

/// What follows the authority of a target in absolute form, which every server must take (RFC 9112, section 3.2.2).
fn without_authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    known.then(|| rest.find('/').map_or("/", |at| &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_splits_at_the_first_question_mark_in_both_forms() {
        let cases = [
            ("/v1/kv/a", ("/v1/kv/a", "")),
            ("/v1/kv/a?", ("/v1/kv/a", "")),
            ("/v1/kv/a?b?c", ("/v1/kv/a", "b?c")),
            ("http://host:8000/v1/kv/a?b", ("/v1/kv/a", "b")),
            ("HTTPS://host", ("/", "")),
            ("/v1/kv/http://x/y", ("/v1/kv/http://x/y", "")),
            ("*", ("*", "")),
            ("", ("", "")),
        ];
        for (target, parts) in cases {
            assert_eq!(split(target), parts, "{target}");
        }
    }

    #[test]
    fn decoding_is_strict_and_names_the_offending_text() {
        let good: [(&str, &[u8]); 5] =
            [("", b""), ("a+b", b"a+b"), ("%00%fF%2f", b"\0\xff/"), ("%2525", b"%25"), ("é", "é".as_bytes())];
        for (text, bytes) in good {
            assert_eq!(decode(text).as_deref(), Ok(bytes), "{text}");
        }
        for (text, bad) in [
            ("a%", "%"),
            ("a%4", "%4"),
            ("%zzb", "%zz"),
            ("%4é", "%4é"),
            ("%%41", "%%4"),
            ("%+1a", "%+1"),
            ("ok%20%G0", "%G0"),
        ] {
            assert_eq!(decode(text), Err(bad.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_query_decodes_plus_as_space_and_skips_empty_parts() {
        let query = Query::parse("&prefix=a+b%2B%ff&&limit&", &["prefix", "limit"]).unwrap();
        assert_eq!(query.bytes("prefix"), Some(&b"a b+\xff"[..]));
        assert_eq!(query.text("limit").as_deref(), Some(""));
        assert_eq!(query.bytes("cursor"), None);
        assert_eq!(Query::parse("pre%66ix=a=b", &["prefix"]).unwrap().bytes("prefix"), Some(&b"a=b"[..]));
    }
}
