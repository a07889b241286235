//! A [`UserReply`] to an HTTP answer. The reply decides what is said; the [`Shape`] only how.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Serialize;

use super::access::Denied;
use super::cors::shown_to;
use super::etag::etag;
use super::message::HttpResponse;
use super::metrics::render_metrics;
use super::problem::{in_trouble, problem, value_too_large};
use super::watch::{render_parked, render_too_many, render_too_old, render_watched};
use crate::base::Wall;
use crate::data::{Check, Condition, Failure, Item, Key, Outcome, Page, Record, UserReply, Version};

/// What the answer to a request needs to know of how it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Asked by `HEAD`.
    pub(super) head: bool,
    /// The preconditions of a read. Those of a write are part of its command.
    pub(super) condition: Condition,
    /// The page that asked, if it may read the answer.
    pub(super) origin: Option<String>,
}

impl Shape {
    /// The answer to the request that this is the shape of. `now` turns times of expiry into what is left.
    ///
    /// In a page of keys the cursor is the last key's bytes in URL-safe base64 without padding, or null at the end.
    pub fn render(&self, reply: UserReply, now: Wall) -> HttpResponse {
        let response = match reply {
            UserReply::Kv(outcome) => self.kv(outcome, now),
            UserReply::Stale { outcome, age } => {
                let age = age.map_or_else(|| "unknown".to_owned(), |age| age.0.div_ceil(1_000_000).to_string());
                self.kv(outcome, now).with("X-Chord-Stale-Age", age)
            }
            UserReply::Page(page) => render_page(&page, now),
            UserReply::Watched(watched) => render_watched(&watched, now),
            UserReply::Parked(number) => render_parked(number),
            UserReply::Json(document) => HttpResponse::json(200, document),
            UserReply::Leaving => HttpResponse::json(202, br#"{"status":"leaving"}"#.to_vec()),
            UserReply::Health(checks) => render_health(&checks),
            UserReply::Metrics(metrics) => render_metrics(&metrics),
            UserReply::Failed(failure) => render_failure(failure),
        };
        // A cache may keep what does not forbid it, and a kept answer is not linearizable.
        let response = shown_to(response.with("Cache-Control", "no-cache"), self.origin.as_deref());
        if self.head { response.without_body() } else { response }
    }

    /// The answer to a request that was understood and may not be asked.
    pub fn refused(&self, denied: Denied) -> HttpResponse {
        let response = shown_to(denied.response(), self.origin.as_deref());
        if self.head { response.without_body() } else { response }
    }

    fn kv(&self, outcome: Outcome, now: Wall) -> HttpResponse {
        match outcome {
            Outcome::Found(record) => self.found(&record, now),
            Outcome::NotFound => problem(404, "key_not_found", "there is no value under this key"),
            Outcome::Created(version) => HttpResponse::empty(201).with("ETag", etag(version)),
            Outcome::Replaced(version) => HttpResponse::empty(204).with("ETag", etag(version)),
            Outcome::Deleted => HttpResponse::empty(204),
            Outcome::PreconditionFailed(current) => precondition_failed(current),
        }
    }

    /// Evaluates the preconditions of a read in the order of RFC 9110, section 13.2.2.
    fn found(&self, record: &Record, now: Wall) -> HttpResponse {
        if self.condition.holds(Some(record)) {
            return value(record, self.head, now);
        }
        let if_match = Condition { if_none_match: None, ..self.condition.clone() };
        if if_match.holds(Some(record)) { not_modified(record) } else { precondition_failed(Some(record.version)) }
    }
}

fn value(record: &Record, head: bool, now: Wall) -> HttpResponse {
    let body = if head { Vec::new() } else { record.value.to_vec() };
    let mut response = HttpResponse::empty(200)
        .with("Content-Type", content_type(record.content_type.as_deref()))
        .with("ETag", etag(record.version))
        .with("Last-Modified", http_date(record.modified))
        // Values share their origin with the node's own pages: none may run as one of them.
        .with("X-Content-Type-Options", "nosniff")
        .with("Content-Security-Policy", "sandbox")
        // Nor may pages of others embed them.
        .with("Cross-Origin-Resource-Policy", "same-origin")
        .with_body(body);
    response.body_len = record.value.len();
    match record.expires {
        Some(at) => response.with("X-Chord-Expires-In", seconds_until(at, now).to_string()),
        None => response,
    }
}

fn not_modified(record: &Record) -> HttpResponse {
    let mut response = HttpResponse::empty(304).with("ETag", etag(record.version));
    response.body_len = record.value.len();
    response
}

fn precondition_failed(current: Option<Version>) -> HttpResponse {
    const CODE: &str = "precondition_failed";
    match current.map(etag) {
        Some(etag) => {
            let detail = format!("the precondition does not hold: the version under this key is {etag}");
            problem(412, CODE, &detail).with("ETag", etag)
        }
        None => problem(412, CODE, "the precondition does not hold: there is no value under this key"),
    }
}

fn render_page(page: &Page, now: Wall) -> HttpResponse {
    #[derive(Serialize)]
    struct Document<'a> {
        items: Vec<ItemJson<'a>>,
        cursor: Option<String>,
    }
    let last = page.items.last().filter(|_| page.more);
    json(&Document {
        items: page.items.iter().map(|item| ItemJson::of(item, now)).collect(),
        cursor: last.map(|item| URL_SAFE_NO_PAD.encode(item.key.as_bytes())),
    })
}

/// A key in a listing. Headers of a `GET` and this say the same in the same words.
#[derive(Serialize)]
pub(super) struct ItemJson<'a> {
    key: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    key_base64: bool,
    size: u64,
    etag: String,
    content_type: &'a str,
    expires_in: Option<u64>,
}

impl<'a> ItemJson<'a> {
    pub(super) fn of(item: &'a Item, now: Wall) -> Self {
        let (key, key_base64) = key_text(&item.key);
        Self {
            key,
            key_base64,
            size: item.size,
            etag: etag(item.version),
            content_type: content_type(item.content_type.as_deref()),
            expires_in: item.expires.map(|at| seconds_until(at, now)),
        }
    }
}

/// A key as text; one that is none in base64, and that it is so.
pub(super) fn key_text(key: &Key) -> (String, bool) {
    match std::str::from_utf8(key.as_bytes()) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (STANDARD.encode(key.as_bytes()), true),
    }
}

fn render_health(checks: &[Check]) -> HttpResponse {
    #[derive(Serialize)]
    struct Document<'a> {
        ok: bool,
        checks: Vec<CheckJson<'a>>,
    }
    #[derive(Serialize)]
    struct CheckJson<'a> {
        name: &'static str,
        ok: bool,
        detail: Option<&'a str>,
    }
    let checks: Vec<_> = checks
        .iter()
        .map(|Check { name, failed }| CheckJson { name, ok: failed.is_none(), detail: failed.as_deref() })
        .collect();
    let document = Document { ok: checks.iter().all(|check| check.ok), checks };
    HttpResponse { status: if document.ok { 200 } else { 503 }, ..json(&document) }
}

fn render_failure(failure: Failure) -> HttpResponse {
    let soon = |code, detail: &str| problem(503, code, detail).with("Retry-After", "1");
    match failure {
        Failure::Unavailable(detail) => soon("unavailable", &detail),
        Failure::Conflict(detail) => problem(409, "conflict", &detail),
        Failure::TooOld => render_too_old(),
        Failure::TooMany { limit } => render_too_many(limit),
        Failure::NotServing(detail) => soon("not_serving", &detail),
        Failure::Overloaded => soon("overloaded", "too many requests are in progress here; nothing was changed"),
        Failure::TooLarge { limit } => value_too_large(limit),
        Failure::Trouble(trouble) => in_trouble(&trouble),
        Failure::Timeout { maybe_applied: false } => {
            problem(504, "timeout", "no answer came before the deadline; nothing was changed")
        }
        Failure::Timeout { maybe_applied: true } => problem(504, "timeout", MAYBE_APPLIED),
    }
}

const MAYBE_APPLIED: &str = "no answer came before the deadline; the write may have happened or may yet happen. Read \
     the key to find out; to try again without overwriting what is newer, send the ETag that was read in If-Match, or \
     If-None-Match: * where the key was absent";

pub(super) fn json(document: &impl Serialize) -> HttpResponse {
    match serde_json::to_vec(document) {
        Ok(body) => HttpResponse::json(200, body),
        // Strings, numbers and lists always serialize; this keeps the promise of an answer all the same.
        Err(error) => problem(500, "internal", &error.to_string()),
    }
}

fn content_type(kept: Option<&str>) -> &str {
    kept.unwrap_or("application/octet-stream")
}

/// Whole seconds, rounded up, so that 0 is said only of what has expired.
fn seconds_until(at: Wall, now: Wall) -> u64 {
    at.0.saturating_sub(now.0).div_ceil(1_000)
}

/// An IMF-fixdate; a time after the year 9999, which has none, is the last that has one.
fn http_date(at: Wall) -> String {
    const LAST_SECOND: u64 = 253_402_300_799;
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs((at.0 / 1_000).min(LAST_SECOND)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::base::Incarnation;
    use crate::base::Span;
    use crate::data::Tag;

    const V1: &str = "\"1-2a-00000000000000000000000000000abc\"";
    const NOW: Wall = Wall(1_000_000_000_000);

    fn version(n: u64) -> Version {
        Version { epoch: 1, round: 0, n, node: Incarnation(0xabc) }
    }

    fn record() -> Record {
        Record {
            value: (*b"value").into(),
            content_type: Some("text/plain".into()),
            version: version(0x2a),
            modified: Wall(784_111_777_999),
            expires: None,
        }
    }

    fn render(reply: UserReply) -> HttpResponse {
        Shape::default().render(reply, NOW)
    }

    fn found(shape: &Shape, record: Record) -> HttpResponse {
        shape.render(UserReply::Kv(Outcome::Found(record)), NOW)
    }

    fn document(response: &HttpResponse) -> Value {
        assert_eq!(response.body_len, response.body.len());
        serde_json::from_slice(&response.body).unwrap()
    }

    #[test]
    fn a_value_comes_with_type_version_date_and_no_leave_to_cache_or_run_it() {
        let response = found(&Shape::default(), record());
        let expected = [
            ("Content-Type", "text/plain"),
            ("ETag", V1),
            ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "sandbox"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-cache"),
        ];
        assert_eq!(response.headers, expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!((response.status, response.body.as_slice(), response.body_len), (200, &b"value"[..], 5));
        let untyped = found(&Shape::default(), Record { content_type: None, ..record() });
        assert_eq!(untyped.header("Content-Type"), Some("application/octet-stream"));
    }

    #[test]
    fn expiry_is_told_in_whole_seconds_rounded_up() {
        for (left_ms, seconds) in [(1, "1"), (1_000, "1"), (1_001, "2"), (0, "0")] {
            let response = found(&Shape::default(), Record { expires: Some(Wall(NOW.0 + left_ms)), ..record() });
            assert_eq!(response.header("X-Chord-Expires-In"), Some(seconds), "{left_ms}");
        }
        let late = found(&Shape::default(), Record { expires: Some(Wall(NOW.0 - 5_000)), ..record() });
        assert_eq!(late.header("X-Chord-Expires-In"), Some("0"), "it expired on the way");
        assert_eq!(found(&Shape::default(), record()).header("X-Chord-Expires-In"), None);
    }

    #[test]
    fn any_wall_time_has_a_date() {
        for (ms, date) in [(0, "Thu, 01 Jan 1970 00:00:00 GMT"), (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT")] {
            assert_eq!(http_date(Wall(ms)), date);
        }
    }

    #[test]
    fn head_answers_as_get_with_the_length_but_without_the_body() {
        let head = Shape { head: true, ..Shape::default() };
        let item =
            Item { key: Key::new(*b"k").unwrap(), size: 1, version: version(1), content_type: None, expires: None };
        let replies = [
            UserReply::Kv(Outcome::Found(record())),
            UserReply::Kv(Outcome::NotFound),
            UserReply::Page(Page { items: vec![item], more: true }),
            UserReply::Json(b"{}".to_vec()),
            UserReply::Health(vec![]),
            UserReply::Failed(Failure::Overloaded),
        ];
        for reply in replies {
            let expected = render(reply.clone());
            assert!(expected.body_len > 0, "{reply:?}");
            assert_eq!(head.render(reply, NOW), expected.without_body());
        }
    }

    #[test]
    fn preconditions_of_a_read_are_evaluated_if_match_first() {
        let of = |n| Some(Tag::Of(vec![version(n)]));
        let (any, same, other, none) = (Some(Tag::Any), of(0x2a), of(9), None);
        let cases = [
            (&any, &none, 200),
            (&same, &none, 200),
            (&other, &none, 412),
            (&none, &other, 200),
            (&none, &same, 304),
            (&none, &any, 304),
            (&same, &other, 200),
            (&same, &same, 304),
            (&other, &same, 412),
            (&other, &other, 412),
        ];
        for (if_match, if_none_match, status) in cases {
            let condition = Condition { if_match: if_match.clone(), if_none_match: if_none_match.clone() };
            let shape = Shape { condition, ..Shape::default() };
            let response = found(&shape, record());
            assert_eq!(response.status, status, "{shape:?}");
            assert_eq!(response.header("ETag"), Some(V1), "{shape:?}");
            let absent = shape.render(UserReply::Kv(Outcome::NotFound), NOW);
            assert_eq!(absent.status, 404, "preconditions count only where there is a value (RFC 9110, 13.2.1)");
        }
    }

    #[test]
    fn not_modified_has_the_etag_and_the_length_but_no_body() {
        let condition = Condition { if_match: None, if_none_match: Some(Tag::Any) };
        let response = found(&Shape { condition, ..Shape::default() }, record());
        assert_eq!((response.status, response.body.len(), response.body_len), (304, 0, 5));
        assert_eq!(response.header("ETag"), Some(V1));
        assert_eq!(response.header("Content-Type"), None);
    }

    #[test]
    fn writes_answer_with_their_status_and_version() {
        let cases = [
            (Outcome::Created(version(0x2a)), 201, Some(V1)),
            (Outcome::Replaced(version(0x2a)), 204, Some(V1)),
            (Outcome::Deleted, 204, None),
        ];
        for (outcome, status, etag) in cases {
            let response = render(UserReply::Kv(outcome));
            assert_eq!((response.status, response.header("ETag"), response.body_len), (status, etag, 0));
        }
    }

    #[test]
    fn a_failed_precondition_is_412_and_gives_the_version_that_is_there() {
        let there = render(UserReply::Kv(Outcome::PreconditionFailed(Some(version(0x2a)))));
        assert_eq!((there.status, there.header("ETag")), (412, Some(V1)));
        assert_eq!(document(&there)["code"], "precondition_failed");
        assert!(document(&there)["detail"].as_str().unwrap().contains(V1));
        let absent = render(UserReply::Kv(Outcome::PreconditionFailed(None)));
        assert_eq!((absent.status, absent.header("ETag")), (412, None));
        assert_eq!(document(&absent)["code"], "precondition_failed");
    }

    #[test]
    fn only_a_stale_read_is_told_its_age() {
        for (age, told) in [(None, "unknown"), (Some(Span::millis(2_100)), "3")] {
            for outcome in [Outcome::Found(record()), Outcome::NotFound] {
                let stale = render(UserReply::Stale { outcome: outcome.clone(), age });
                let fresh = render(UserReply::Kv(outcome));
                assert_eq!((stale.status, &stale.body), (fresh.status, &fresh.body));
                assert_eq!(stale.header("X-Chord-Stale-Age"), Some(told));
                assert_eq!(fresh.header("X-Chord-Stale-Age"), None);
            }
        }
    }

    #[test]
    fn a_page_lists_items_and_where_to_go_on() {
        let item = |key: &[u8], expires| Item {
            key: Key::new(key).unwrap(),
            size: 7,
            version: version(0x2a),
            content_type: None,
            expires,
        };
        let typed =
            Item { content_type: Some("text/css".into()), ..item("ключ/a".as_bytes(), Some(Wall(NOW.0 + 1_500))) };
        let page = Page { items: vec![typed, item(b"\xff\xfe", None)], more: true };
        let response = render(UserReply::Page(page.clone()));
        assert_eq!((response.status, response.header("Content-Type")), (200, Some("application/json")));
        let expected = json!({
            "items": [
                {"key": "ключ/a", "size": 7, "etag": V1, "content_type": "text/css", "expires_in": 2},
                {"key": "//4=", "key_base64": true, "size": 7, "etag": V1,
                 "content_type": "application/octet-stream", "expires_in": null},
            ],
            "cursor": "__4",
        });
        assert_eq!(document(&response), expected);
        let last = document(&render(UserReply::Page(Page { more: false, ..page })));
        assert_eq!(last["cursor"], Value::Null);
        assert_eq!(document(&render(UserReply::Page(Page::default()))), json!({"items": [], "cursor": null}));
    }

    #[test]
    fn documents_and_leaving_are_json() {
        let node = render(UserReply::Json(b"{\"id\":1}".to_vec()));
        assert_eq!((node.status, node.header("Content-Type")), (200, Some("application/json")));
        assert_eq!(document(&node), json!({"id": 1}));
        let leaving = render(UserReply::Leaving);
        assert_eq!((leaving.status, leaving.header("Content-Type")), (202, Some("application/json")));
        assert_eq!(document(&leaving), json!({"status": "leaving"}));
    }

    #[test]
    fn health_is_200_or_503_with_every_check_by_name() {
        let check = |name, failed: Option<&str>| Check { name, failed: failed.map(str::to_owned) };
        let well = render(UserReply::Health(vec![check("loop", None)]));
        assert_eq!((well.status, well.header("Content-Type")), (200, Some("application/json")));
        assert_eq!(document(&well), json!({"ok": true, "checks": [{"name": "loop", "ok": true, "detail": null}]}));
        let ill = render(UserReply::Health(vec![check("loop", None), check("ring", Some("alone"))]));
        let checks = json!([
            {"name": "loop", "ok": true, "detail": null},
            {"name": "ring", "ok": false, "detail": "alone"},
        ]);
        assert_eq!((ill.status, document(&ill)), (503, json!({"ok": false, "checks": checks})));
        assert_eq!(document(&render(UserReply::Health(vec![]))), json!({"ok": true, "checks": []}));
    }

    #[test]
    fn every_failure_is_a_problem_and_says_when_to_come_back() {
        let cases = [
            (UserReply::Kv(Outcome::NotFound), 404, "key_not_found", None, "no value"),
            (UserReply::Failed(Failure::Unavailable("no owner".into())), 503, "unavailable", Some("1"), "no owner"),
            (UserReply::Failed(Failure::NotServing("leaving".into())), 503, "not_serving", Some("1"), "leaving"),
            (UserReply::Failed(Failure::Overloaded), 503, "overloaded", Some("1"), "too many"),
            (UserReply::Failed(Failure::TooLarge { limit: 77 }), 413, "value_too_large", None, "77 bytes"),
            (UserReply::Failed(Failure::Timeout { maybe_applied: true }), 504, "timeout", None, "Read the key"),
            (UserReply::Failed(Failure::Timeout { maybe_applied: false }), 504, "timeout", None, "nothing was changed"),
        ];
        for (reply, status, code, retry_after, says) in cases {
            let response = render(reply.clone());
            assert_eq!(response.status, status, "{reply:?}");
            assert_eq!(response.header("Content-Type"), Some("application/problem+json"), "{reply:?}");
            assert_eq!(response.header("Retry-After"), retry_after, "{reply:?}");
            let document = document(&response);
            assert_eq!(document["code"], code, "{reply:?}");
            assert!(document["detail"].as_str().unwrap().contains(says), "{document}");
        }
    }
}
