//! Watching keys over HTTP: the request, the answer, and how one is put off.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::duration::duration;
use super::message::{Headers, HttpResponse};
use super::problem::{bad_query, problem, quoted};
use super::render::{ItemJson, json, key_text};
use super::target::Query;
use crate::base::{Span, Wall};
use crate::data::{Filter, Item, Key, Resume, Seen, UserRequest, WatchQuery, Watched};

/// How long a request waits unless it says so, and at most.
const WAIT_DEFAULT: Span = Span::secs(30);
const WAIT_MAX: Span = Span::secs(300);

/// A request to be told of changes.
pub(super) fn watch(query: &str, headers: Headers<'_>) -> Result<UserRequest, HttpResponse> {
    let query = Query::parse(query, &["key", "prefix", "resume", "wait"])?;
    let filter = match (query.bytes("key"), query.prefix()?) {
        (Some(key), None) => Filter::Key(Key::new(key).map_err(|error| bad_query(&error.to_string()))?),
        (None, Some(prefix)) => Filter::Prefix(prefix),
        (None, None) => return Err(bad_query("say what to watch: key= names one key, prefix= those that begin so")),
        (Some(_), Some(_)) => return Err(bad_query("key or prefix, not both")),
    };
    let from = match query.text("resume").as_deref() {
        // As with the cursor of a listing, so that a loop can begin with one.
        None | Some("") => None,
        Some(text) => Some(resume(text)?),
    };
    let wait = query.text("wait").map_or(Ok(WAIT_DEFAULT), |text| wait(&text))?;
    let parked = headers.all(PARKED_FIELD).next().and_then(|number| number.parse().ok());
    Ok(UserRequest::Watch(WatchQuery { filter, from, wait, parked }))
}

fn resume(text: &str) -> Result<Resume, HttpResponse> {
    let no_token = |_| bad_query(&format!("{} is no resume token; send the one of the answer before", quoted(text)));
    text.parse().map_err(no_token)
}

fn wait(text: &str) -> Result<Span, HttpResponse> {
    let wait = duration(text).map_err(|reason| bad_query(&format!("wait={}: {reason}", quoted(text))))?;
    let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
    if micros > WAIT_MAX.0 {
        return Err(bad_query("wait is at most 5m; ask again with the resume token"));
    }
    Ok(Span(micros))
}

/// The field by which the gate is told to put a request off, and the one by which it tells that it comes again.
pub const PARK_FIELD: &str = "X-Gate-Park";
/// See [`PARK_FIELD`].
pub const PARKED_FIELD: &str = "x-gate-parked";

pub(super) fn render_parked(number: u64) -> HttpResponse {
    HttpResponse::empty(202).with(PARK_FIELD, number.to_string())
}

pub(super) fn render_too_old() -> HttpResponse {
    let detail = "what has changed since this resume token is not known any more: watch without one, list the keys, and \
                  go on from the new token";
    problem(410, "resume_too_old", detail)
}

pub(super) fn render_too_many(limit: usize) -> HttpResponse {
    let detail = format!("more is watched through this node than there is room for, {limit}: watch longer prefixes");
    problem(507, "watch_too_large", &detail)
}

#[derive(Serialize)]
struct Document<'a> {
    events: Vec<EventJson<'a>>,
    resume: String,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum EventJson<'a> {
    Put {
        #[serde(flatten)]
        item: ItemJson<'a>,
        value: String,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        value_base64: bool,
    },
    Delete {
        key: String,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        key_base64: bool,
    },
}

pub(super) fn render_watched(watched: &Watched, now: Wall) -> HttpResponse {
    let items: Vec<Option<Item>> = watched.seen.iter().map(item).collect();
    let events = watched.seen.iter().zip(&items).map(|(seen, item)| event(seen, item.as_ref(), now)).collect();
    json(&Document { events, resume: watched.resume.to_string() })
}

fn item(seen: &Seen) -> Option<Item> {
    let record = seen.record.as_ref()?;
    Some(Item {
        key: seen.key.clone(),
        size: record.value.len() as u64,
        version: record.version,
        content_type: record.content_type.clone(),
        expires: record.expires,
    })
}

fn event<'a>(seen: &Seen, item: Option<&'a Item>, now: Wall) -> EventJson<'a> {
    let value = seen.record.as_ref().map(|record| &record.value);
    let (Some(item), Some(value)) = (item, value) else {
        let (key, key_base64) = key_text(&seen.key);
        return EventJson::Delete { key, key_base64 };
    };
    let (value, value_base64) = match std::str::from_utf8(value) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (STANDARD.encode(value), true),
    };
    EventJson::Put { item: ItemJson::of(item, now), value, value_base64 }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::base::Incarnation;
    use crate::data::http::{HttpRequest, Limits, Shape, parse};
    use crate::data::{Failure, Record, UserReply, Version};

    fn asked(query: &str, headers: &[(&str, &str)]) -> Result<WatchQuery, (u16, String)> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let target = format!("/v1/watch{query}");
        let request = HttpRequest { method: "GET".to_owned(), target, headers, body: Vec::new() };
        match parse(request, &Limits { value_bytes_max: 8, origins: Vec::new() }) {
            Ok(asked) => match asked.request {
                UserRequest::Watch(query) => Ok(query),
                other => panic!("{other:?}"),
            },
            Err(refusal) => Err((refusal.status, String::from_utf8(refusal.body).expect("a document"))),
        }
    }

    fn render(reply: UserReply) -> (HttpResponse, Value) {
        let response = Shape::default().render(reply, Wall(1_000_000));
        let document = serde_json::from_slice(&response.body).unwrap_or_default();
        (response, document)
    }

    #[test]
    fn a_watch_names_a_key_or_a_prefix_where_to_go_on_and_how_long_to_wait() {
        let all = asked("?prefix=", &[]).expect("all keys");
        assert_eq!(
            (all.filter, all.from, all.wait, all.parked),
            (Filter::Prefix(Vec::new()), None, WAIT_DEFAULT, None)
        );
        let token = "000000000000000000000000000000ab0000000c";
        let one = asked(&format!("?key=a%2Fb&wait=2m&resume={token}"), &[("x-gate-parked", "7")]).expect("one key");
        assert_eq!(one.filter, Filter::Key(Key::new(*b"a/b").expect("a key")));
        assert_eq!((one.from, one.wait, one.parked), (Some(Resume { sum: 0xab, node: 12 }), Span::secs(120), Some(7)));
        assert_eq!(asked("?prefix=a&resume=", &[]).expect("a beginning").from, None);
        for (query, says) in [
            ("", "say what to watch"),
            ("?key=a&prefix=b", "not both"),
            ("?key=", "the key is empty"),
            ("?prefix=a&resume=ab", "no resume token"),
            ("?prefix=a&resume=%2B00000000000000000000000000000ab0000000c", "no resume token"),
            ("?prefix=a&wait=6m", "at most 5m"),
            ("?prefix=a&wait=6", "wait="),
            ("?prefix=a&limit=6", "limit"),
        ] {
            let (status, detail) = asked(query, &[]).expect_err(query);
            assert!(status == 400 && detail.contains(says), "{query}: {detail}");
        }
    }

    #[test]
    fn events_say_what_is_there_now() {
        let record = |value: &[u8]| Record {
            value: value.into(),
            content_type: Some("text/plain".into()),
            version: Version { epoch: 1, round: 0, n: 0x2a, node: Incarnation(0xabc) },
            modified: Wall(0),
            expires: Some(Wall(1_001_500)),
        };
        let seen = |key: &[u8], record| Seen { key: Key::new(key).expect("a key"), record };
        let watched = Watched {
            seen: vec![seen(b"a", Some(record(b"text"))), seen(b"b", Some(record(&[0xff]))), seen(&[0xfe], None)],
            resume: Resume { sum: 0xab, node: 12 },
        };
        let (response, document) = render(UserReply::Watched(watched));
        assert_eq!(response.status, 200);
        assert_eq!(document["resume"], "000000000000000000000000000000ab0000000c");
        let etag = "\"1-2a-00000000000000000000000000000abc\"";
        let expected = json!({"type": "put", "key": "a", "size": 4, "etag": etag, "content_type": "text/plain",
            "expires_in": 2, "value": "text"});
        assert_eq!(document["events"][0], expected);
        assert_eq!(
            (&document["events"][1]["value"], &document["events"][1]["value_base64"]),
            (&json!("/w=="), &json!(true))
        );
        assert_eq!(document["events"][2], json!({"type": "delete", "key": "/g==", "key_base64": true}));
    }

    #[test]
    fn what_cannot_be_told_says_what_to_do() {
        let (response, document) = render(UserReply::Failed(Failure::TooOld));
        assert_eq!((response.status, &document["code"]), (410, &json!("resume_too_old")));
        let (response, document) = render(UserReply::Failed(Failure::TooMany { limit: 9 }));
        assert_eq!((response.status, &document["code"]), (507, &json!("watch_too_large")));
        let (response, _) = render(UserReply::Parked(7));
        assert_eq!((response.status, response.header("X-Gate-Park")), (202, Some("7")));
    }
}
