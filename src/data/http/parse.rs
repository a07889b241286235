//! An HTTP request to a [`UserRequest`] and the [`Shape`] of its answer. Each refusal says what would be right.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::cors;
use super::duration::duration;
use super::etag::{Comparison, entity_tags};
use super::message::{Headers, HttpRequest, HttpResponse, Limits};
use super::problem::{bad_header, bad_key, bad_query, problem, quoted, value_too_large};
use super::render::Shape;
use super::target::{Query, Route, bad_escape, decode, split};
use super::watch::watch;
use crate::base::limits::{CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX};
use crate::data::{Command, Condition, Key, ListQuery, Put, UserRequest};

/// A request understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What to do.
    pub request: UserRequest,
    /// What the answer needs to know of how it was asked.
    pub shape: Shape,
}

/// Understands a request.
///
/// # Errors
///
/// A ready answer: a problem document with status 400, 403, 404, 405 or 413, or what a browser asks beforehand; nothing was
/// done.
pub fn parse(request: HttpRequest, limits: &Limits) -> Result<Asked, HttpResponse> {
    let head = request.method == "HEAD";
    let origin = cors::allowed(Headers(&request.headers), limits).map(str::to_owned);
    match understand(request, head, origin.as_deref(), limits) {
        Ok(mut asked) => {
            asked.shape.origin = origin;
            Ok(asked)
        }
        Err(refusal) => {
            let refusal = cors::shown_to(refusal, origin.as_deref());
            Err(if head { refusal.without_body() } else { refusal })
        }
    }
}

fn understand(request: HttpRequest, head: bool, origin: Option<&str>, limits: &Limits) -> Result<Asked, HttpResponse> {
    let HttpRequest { method, target, headers, body } = request;
    let (path, query) = split(&target);
    let route = Route::of(path).ok_or_else(|| no_such_path(path))?;
    if method == "OPTIONS" && origin.is_some() {
        return Err(cors::preflight(route));
    }
    if !route.methods().contains(&method.as_str()) {
        return Err(wrong_method(&method, route));
    }
    if origin.is_none() && !matches!(method.as_str(), "GET" | "HEAD") {
        cors::refuse_foreign_page(Headers(&headers))?;
    }
    let mut shape = Shape { head, ..Shape::default() };
    let request = match route {
        Route::Kv(text) => {
            let (key, headers) = (key_of(text)?, Headers(&headers));
            match method.as_str() {
                "PUT" => UserRequest::Kv { key, command: Command::Put(put(query, headers, body, limits)?) },
                "DELETE" => UserRequest::Kv { key, command: Command::Delete(delete(query, headers)?) },
                _ => {
                    let stale;
                    (stale, shape.condition) = get(query, headers)?;
                    if stale { UserRequest::ReadAny(key) } else { UserRequest::Kv { key, command: Command::Get } }
                }
            }
        }
        Route::List => list(query)?,
        Route::Watch => watch(query, Headers(&headers))?,
        Route::Lookup(text) => alone(UserRequest::Lookup(key_of(text)?), query)?,
        Route::Ring => alone(UserRequest::Ring, query)?,
        Route::Node => alone(UserRequest::Node, query)?,
        Route::Leave => alone(UserRequest::Leave, query)?,
        Route::Recover => recover(&method, query)?,
        Route::Livez => alone(UserRequest::Livez, query)?,
        Route::Readyz => alone(UserRequest::Readyz, query)?,
        Route::Metrics => alone(UserRequest::Metrics, query)?,
    };
    Ok(Asked { request, shape })
}

fn no_such_path(path: &str) -> HttpResponse {
    let detail = format!(
        "there is nothing at {}; a key is at /v1/kv/{{key}}, a listing at /v1/kv, the ring at /v1/ring",
        quoted(path)
    );
    problem(404, "no_such_path", &detail)
}

fn wrong_method(method: &str, route: Route<'_>) -> HttpResponse {
    let allow = route.methods().join(", ");
    let detail = format!("{} is not for this path; it takes {allow}", quoted(method));
    problem(405, "method_not_allowed", &detail).with("Allow", allow)
}

/// The key that a path ends with.
fn key_of(text: &str) -> Result<Key, HttpResponse> {
    if text.is_empty() {
        return Err(bad_key("the key is missing: /v1/kv/{key} names one key, GET /v1/kv?prefix={prefix} lists keys"));
    }
    let bytes = decode(text).map_err(|bad| bad_key(&bad_escape(&bad, "the key")))?;
    Key::new(bytes).map_err(|error| bad_key(&error.to_string()))
}

/// Without `lost` nothing is changed, and so only POST takes it.
fn recover(method: &str, query: &str) -> Result<UserRequest, HttpResponse> {
    if method != "POST" {
        return alone(UserRequest::Recover { lost: None }, query);
    }
    let query = Query::parse(query, &["lost"])?;
    let lost = query.text("lost").unwrap_or_default();
    let lost: Vec<String> = lost.split(',').map(str::trim).filter(|addr| !addr.is_empty()).map(str::to_owned).collect();
    if lost.is_empty() {
        return Err(bad_query(
            "lost is missing: the addresses of all nodes that are gone for good, with commas between, as GET /v1/recover \
             names them",
        ));
    }
    Ok(UserRequest::Recover { lost: Some(lost) })
}

/// A request that takes no parameters.
fn alone(request: UserRequest, query: &str) -> Result<UserRequest, HttpResponse> {
    Query::parse(query, &[]).map(|_| request)
}

/// Whether a stale value will do, and the conditions that the answer depends on.
fn get(query: &str, headers: Headers<'_>) -> Result<(bool, Condition), HttpResponse> {
    let query = Query::parse(query, &["consistency"])?;
    let stale = match query.text("consistency").as_deref() {
        None | Some("linearizable") => false,
        Some("stale") => true,
        Some(other) => {
            return Err(bad_query(&format!("consistency is linearizable or stale, not {}", quoted(other))));
        }
    };
    Ok((stale, condition(headers)?))
}

fn put(query: &str, headers: Headers<'_>, body: Vec<u8>, limits: &Limits) -> Result<Put, HttpResponse> {
    let query = Query::parse(query, &["ttl"])?;
    let ttl_ms = query.text("ttl").map(|text| ttl_ms(&text)).transpose()?;
    if headers.all("content-range").next().is_some() {
        // RFC 9110, section 14.5: kept as a whole value, the part would destroy the rest.
        return Err(bad_header("Content-Range: a value can only be put as a whole"));
    }
    let content_type = content_type(headers)?;
    let condition = write_condition(headers)?;
    if body.len() > limits.value_bytes_max {
        return Err(value_too_large(limits.value_bytes_max));
    }
    Ok(Put { value: body.into(), content_type, ttl_ms, condition })
}

fn delete(query: &str, headers: Headers<'_>) -> Result<Condition, HttpResponse> {
    Query::parse(query, &[])?;
    write_condition(headers)
}

/// A TTL in ms, rounded up.
fn ttl_ms(text: &str) -> Result<u64, HttpResponse> {
    let refused = |reason: &str| {
        bad_query(&format!(
            "ttl={}: {reason}; write a duration with its unit, such as ttl=30s or ttl=1h30m",
            quoted(text)
        ))
    };
    let ttl = duration(text).map_err(|reason| refused(&reason))?;
    match u64::try_from(ttl.as_nanos().div_ceil(1_000_000)) {
        Ok(0) => Err(refused("a value that expires at once cannot be put")),
        Ok(ms) if ttl <= TTL_MAX => Ok(ms),
        _ => Err(refused("it is longer than 100 years; without a ttl the value stays")),
    }
}

fn content_type(headers: Headers<'_>) -> Result<Option<Arc<str>>, HttpResponse> {
    let mut lines = headers.all("content-type");
    let Some(text) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(bad_header("Content-Type is given more than once"));
    }
    // The space stands before parameters: `text/plain; charset=utf-8`.
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if !visible || text.is_empty() || text.len() > CONTENT_TYPE_BYTES_MAX {
        let detail = format!("Content-Type must have 1 to {CONTENT_TYPE_BYTES_MAX} bytes of visible ASCII");
        return Err(bad_header(&detail));
    }
    Ok(Some(text.into()))
}

/// The precondition of a write. `If-Unmodified-Since` is refused where it would count, as ignoring it loses updates.
fn write_condition(headers: Headers<'_>) -> Result<Condition, HttpResponse> {
    let condition = condition(headers)?;
    if condition.if_match.is_none() && headers.all("if-unmodified-since").next().is_some() {
        return Err(bad_header("If-Unmodified-Since is too coarse for a write; send the ETag in If-Match instead"));
    }
    Ok(condition)
}

fn condition(headers: Headers<'_>) -> Result<Condition, HttpResponse> {
    let tag = |name, shown, comparison| {
        let tag = headers.list(name).map(|text| entity_tags(&text, comparison)).transpose();
        tag.map_err(|reason| bad_header(&format!("{shown}: {reason}")))
    };
    Ok(Condition {
        if_match: tag("if-match", "If-Match", Comparison::Strong)?,
        if_none_match: tag("if-none-match", "If-None-Match", Comparison::Weak)?,
    })
}

fn list(query: &str) -> Result<UserRequest, HttpResponse> {
    let query = Query::parse(query, &["prefix", "limit", "cursor", "scope"])?;
    let prefix = query.prefix()?.unwrap_or_default();
    let limit = match query.text("limit") {
        None => LIST_LIMIT_DEFAULT,
        Some(text) => limit(&text)?,
    };
    // An empty cursor is the beginning, so that a loop over pages can start with one.
    let after = match query.bytes("cursor") {
        None | Some([]) => None,
        Some(text) => Some(cursor(text, &prefix)?),
    };
    let only_here = match query.text("scope").as_deref() {
        None | Some("ring") => false,
        Some("node") => true,
        Some(other) => {
            let other = quoted(other);
            return Err(bad_query(&format!(
                "scope is ring (all keys) or node (those that this node holds), not {other}"
            )));
        }
    };
    let query = ListQuery { prefix, after, limit };
    Ok(if only_here { UserRequest::ListHere(query) } else { UserRequest::List(query) })
}

fn limit(text: &str) -> Result<usize, HttpResponse> {
    let number = if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None };
    number
        .filter(|limit| (1..=LIST_LIMIT_MAX).contains(limit))
        .ok_or_else(|| bad_query(&format!("limit is a number from 1 to {LIST_LIMIT_MAX}, not {}", quoted(text))))
}

/// The last key of the page before; see [`Shape::render`] for how it is written.
fn cursor(text: &[u8], prefix: &[u8]) -> Result<Vec<u8>, HttpResponse> {
    let key = URL_SAFE_NO_PAD.decode(text).ok();
    key.filter(|key| key.len() <= KEY_BYTES_MAX && key.starts_with(prefix)).ok_or_else(|| {
        let text = String::from_utf8_lossy(text);
        let detail = format!("{} is no cursor of this prefix; send the cursor of the page before", quoted(&text));
        bad_query(&detail)
    })
}

/// The longest TTL, 100 years. It keeps times of expiry exact in every format that they pass through.
const TTL_MAX: Duration = Duration::from_secs(100 * 31_557_600);

#[cfg(test)]
mod tests {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
    use proptest::prelude::*;

    use super::*;
    use crate::base::limits::CONDITIONS_MAX;
    use crate::base::{Incarnation, Wall};
    use crate::data::{Item, Page, Tag, UserReply, Version};

    const LIMITS: Limits = Limits { value_bytes_max: 8, origins: Vec::new() };
    const V1: &str = "\"1-2a-00000000000000000000000000000abc\"";

    fn version() -> Version {
        Version { epoch: 1, round: 0, n: 0x2a, node: Incarnation(0xabc) }
    }

    fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> HttpRequest {
        HttpRequest {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: body.to_vec(),
        }
    }

    fn ask(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Asked, HttpResponse> {
        parse(request(method, target, headers, b"v"), &LIMITS)
    }

    fn understood(method: &str, target: &str) -> UserRequest {
        ask(method, target, &[]).unwrap_or_else(|refusal| panic!("{method} {target}: {refusal:?}")).request
    }

    fn key(bytes: &[u8]) -> Key {
        Key::new(bytes).unwrap()
    }

    fn put_with(target: &str, headers: &[(&str, &str)]) -> Result<Put, HttpResponse> {
        match ask("PUT", target, headers)?.request {
            UserRequest::Kv { command: Command::Put(put), .. } => Ok(put),
            other => panic!("{other:?}"),
        }
    }

    fn listed(query: &str) -> ListQuery {
        match understood("GET", &format!("/v1/kv{query}")) {
            UserRequest::List(query) => query,
            other => panic!("{other:?}"),
        }
    }

    /// Status, code and detail of a refusal, which must be a problem document.
    fn problem_of(refusal: &HttpResponse) -> (u16, String, String) {
        assert_eq!(refusal.header("Content-Type"), Some("application/problem+json"));
        let document: serde_json::Value = serde_json::from_slice(&refusal.body).unwrap();
        assert_eq!(document["status"], refusal.status);
        (refusal.status, document["code"].as_str().unwrap().to_owned(), document["detail"].as_str().unwrap().to_owned())
    }

    #[track_caller]
    fn assert_refused(asked: Result<Asked, HttpResponse>, status: u16, code: &str, says: &[&str]) {
        let (got_status, got_code, detail) = problem_of(&asked.unwrap_err());
        assert_eq!((got_status, got_code.as_str()), (status, code), "{detail}");
        for text in says {
            assert!(detail.contains(text), "{detail:?} does not say {text:?}");
        }
    }

    #[test]
    fn every_route_becomes_its_request_by_get_and_by_head() {
        let cases = [
            ("/v1/kv/a", UserRequest::Kv { key: key(b"a"), command: Command::Get }),
            ("/v1/kv", UserRequest::List(ListQuery { prefix: vec![], after: None, limit: LIST_LIMIT_DEFAULT })),
            ("/v1/lookup/a%20b", UserRequest::Lookup(key(b"a b"))),
            ("/v1/ring", UserRequest::Ring),
            ("/v1/node", UserRequest::Node),
            ("/livez", UserRequest::Livez),
            ("/readyz?", UserRequest::Readyz),
            ("/metrics", UserRequest::Metrics),
        ];
        for (target, expected) in cases {
            let get = ask("GET", target, &[]).unwrap();
            let head = ask("HEAD", target, &[]).unwrap();
            assert_eq!(get.request, expected);
            assert_eq!(head.request, expected);
            assert_eq!((get.shape.head, head.shape.head), (false, true), "{target}");
        }
        assert_eq!(understood("POST", "/v1/node/leave"), UserRequest::Leave);
        assert_eq!(
            understood("DELETE", "/v1/kv/a"),
            UserRequest::Kv { key: key(b"a"), command: Command::Delete(Condition::default()) }
        );
    }

    #[test]
    fn unknown_paths_are_404_and_say_where_keys_are() {
        for target in
            ["/", "", "*", "/v1", "/v1/", "/v2/kv/a", "/v1/kvs", "/v1/ring/", "/v1/lookup", "/V1/kv/a", "v1/kv/a"]
        {
            assert_refused(ask("GET", target, &[]), 404, "no_such_path", &["/v1/kv/{key}"]);
        }
    }

    #[test]
    fn a_wrong_method_is_405_with_allow() {
        let cases = [
            ("POST", "/v1/kv/a", "GET, HEAD, PUT, DELETE"),
            ("get", "/v1/kv/a", "GET, HEAD, PUT, DELETE"),
            ("PUT", "/v1/kv", "GET, HEAD"),
            ("DELETE", "/v1/lookup/a", "GET, HEAD"),
            ("POST", "/v1/ring", "GET, HEAD"),
            ("PUT", "/v1/node", "GET, HEAD"),
            ("OPTIONS", "/livez", "GET, HEAD"),
            ("", "/readyz", "GET, HEAD"),
            ("GET", "/v1/node/leave", "POST"),
            ("HEAD", "/v1/node/leave", "POST"),
        ];
        for (method, target, allow) in cases {
            let refusal = ask(method, target, &[]).unwrap_err();
            assert_eq!(refusal.status, 405, "{method} {target}");
            assert_eq!(refusal.header("Allow"), Some(allow), "{method} {target}");
        }
        assert_refused(ask("PATCH", "/v1/kv/a", &[]), 405, "method_not_allowed", &["PATCH", "GET, HEAD, PUT, DELETE"]);
    }

    #[test]
    fn a_refused_head_has_the_length_of_the_problem_but_not_its_body() {
        let get = ask("GET", "/v1/kv/%zz", &[]).unwrap_err();
        let head = ask("HEAD", "/v1/kv/%zz", &[]).unwrap_err();
        assert!(head.body.is_empty());
        assert_eq!((head.status, head.body_len, &head.headers), (400, get.body.len(), &get.headers));
    }

    #[test]
    fn a_key_is_all_of_the_path_strictly_decoded() {
        let cases: [(&str, &[u8]); 10] = [
            ("a/b", b"a/b"),
            ("a%2Fb", b"a/b"),
            ("a%2fb/", b"a/b/"),
            ("/a", b"/a"),
            ("a+b", b"a+b"),
            ("a%20b%3Fc", b"a b?c"),
            ("%00%ff", b"\0\xff"),
            ("ключ", "ключ".as_bytes()),
            ("../x", b"../x"),
            ("%252F", b"%2F"),
        ];
        for (text, bytes) in cases {
            let expected = UserRequest::Kv { key: key(bytes), command: Command::Get };
            assert_eq!(understood("GET", &format!("/v1/kv/{text}")), expected);
            assert_eq!(understood("GET", &format!("/v1/lookup/{text}")), UserRequest::Lookup(key(bytes)));
        }
    }

    #[test]
    fn what_is_no_key_is_400_with_the_reason() {
        for (text, says) in [("a%zzb", "\"%zz\""), ("a%", "\"%\""), ("%4", "\"%4\"")] {
            assert_refused(ask("PUT", &format!("/v1/kv/{text}"), &[]), 400, "bad_key", &[says, "%25"]);
            assert_refused(ask("GET", &format!("/v1/lookup/{text}"), &[]), 400, "bad_key", &[says]);
        }
        for target in ["/v1/kv/", "/v1/kv/?prefix=a", "/v1/lookup/"] {
            assert_refused(ask("GET", target, &[]), 400, "bad_key", &["GET /v1/kv?prefix="]);
        }
        let long = |n: usize| format!("/v1/kv/{}", "%41".repeat(n));
        assert!(ask("GET", &long(KEY_BYTES_MAX), &[]).is_ok());
        assert_refused(ask("GET", &long(KEY_BYTES_MAX + 1), &[]), 400, "bad_key", &["1025", "1024"]);
    }

    #[test]
    fn unknown_repeated_and_malformed_parameters_are_400_and_named() {
        let cases: [(&str, &str, &[&str]); 14] = [
            ("PUT", "/v1/kv/a?tll=30s", &["\"tll\"", "takes ttl"]),
            ("PUT", "/v1/kv/a?TTL=30s", &["\"TTL\""]),
            ("PUT", "/v1/kv/a?consistency=stale", &["\"consistency\"", "ttl"]),
            ("PUT", "/v1/kv/a?ttl=1s&ttl=1s", &["\"ttl\"", "more than once"]),
            ("PUT", "/v1/kv/a?ttl=%3", &["\"%3\"", "the query"]),
            ("PUT", "/v1/kv/a?tt%zzl=1s", &["\"%zz\""]),
            ("GET", "/v1/kv/a?ttl=1s", &["\"ttl\"", "takes consistency"]),
            ("DELETE", "/v1/kv/a?ttl=1s", &["\"ttl\"", "takes none"]),
            ("GET", "/v1/kv?limt=1", &["\"limt\"", "prefix, limit, cursor, scope"]),
            ("GET", "/v1/kv?a%26b=1", &["\"a&b\""]),
            ("GET", "/v1/lookup/a?x", &["\"x\"", "takes none"]),
            ("GET", "/v1/ring?=", &["\"\""]),
            ("POST", "/v1/node/leave?force=1", &["\"force\""]),
            ("GET", "/readyz?verbose", &["\"verbose\""]),
        ];
        for (method, target, says) in cases {
            assert_refused(ask(method, target, &[]), 400, "bad_query", says);
        }
    }

    #[test]
    fn a_ttl_is_any_humantime_duration_rounded_up_to_ms() {
        let cases = [
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("1h%2030m", 5_400_000),
            ("1h+30m", 5_400_000),
            ("1.5s", 1_500),
            ("2days", 172_800_000),
            ("1ms", 1),
            ("1us", 1),
            ("1ns", 1),
            ("1ms1ns", 2),
            ("86400000000us", 86_400_000),
            ("100y", 3_155_760_000_000),
        ];
        for (text, ms) in cases {
            assert_eq!(put_with(&format!("/v1/kv/a?ttl={text}"), &[]).unwrap().ttl_ms, Some(ms), "{text}");
        }
        assert_eq!(put_with("/v1/kv/a", &[]).unwrap().ttl_ms, None);
    }

    #[test]
    fn what_is_no_ttl_is_400_and_shows_one_that_is() {
        let spaces = format!("1{}s", " ".repeat(64));
        let cases = [
            "",
            "30",
            "0",
            "0s",
            "0ns",
            "-1s",
            "1fortnight",
            "s",
            "1e3s",
            "forever",
            "%ff",
            "100y1s",
            "99999999999y",
            "1000000000000s",
            "584542046090y6291615s1000ms",
            "18446744073709551615s1000ms",
            &spaces,
        ];
        for text in cases {
            assert_refused(ask("PUT", &format!("/v1/kv/a?ttl={text}"), &[]), 400, "bad_query", &["ttl=30s"]);
        }
    }

    #[test]
    fn a_put_carries_value_type_and_ttl() {
        let put = put_with("/v1/kv/a?ttl=1s", &[("content-type", " text/plain; charset=utf-8 ")]).unwrap();
        let expected = Put {
            value: Arc::from(*b"v"),
            content_type: Some("text/plain; charset=utf-8".into()),
            ttl_ms: Some(1_000),
            condition: Condition::default(),
        };
        assert_eq!(put, expected);
        assert_eq!(put_with("/v1/kv/a", &[]).unwrap().content_type, None);
    }

    #[test]
    fn a_content_type_is_1_to_256_bytes_of_visible_ascii_given_once() {
        let long = "a".repeat(CONTENT_TYPE_BYTES_MAX);
        assert!(put_with("/v1/kv/a", &[("content-type", &long)]).is_ok());
        for bad in ["", "  ", "text/é", "a\u{7f}", "a\tb", "a\r\nX-Bad: b", &format!("{long}a")] {
            let asked = ask("PUT", "/v1/kv/a", &[("content-type", bad)]);
            assert_refused(asked, 400, "bad_header", &["Content-Type", "1 to 256"]);
        }
        let twice = ask("PUT", "/v1/kv/a", &[("content-type", "a"), ("content-type", "a")]);
        assert_refused(twice, 400, "bad_header", &["more than once"]);
        assert!(ask("GET", "/v1/kv/a", &[("content-type", "")]).is_ok(), "it means nothing where there is no value");
    }

    #[test]
    fn a_value_over_the_limit_is_413_and_names_the_limit() {
        let put = |n: usize| parse(request("PUT", "/v1/kv/a", &[], &vec![0; n]), &LIMITS);
        assert!(put(8).is_ok());
        assert!(put(0).is_ok());
        assert_refused(put(9), 413, "value_too_large", &["8 bytes"]);
    }

    #[test]
    fn a_body_without_a_meaning_is_ignored() {
        for (method, target) in [("GET", "/v1/kv/a"), ("HEAD", "/v1/kv/a"), ("DELETE", "/v1/kv/a"), ("GET", "/v1/kv")] {
            let with = parse(request(method, target, &[], &[0; 100]), &LIMITS);
            assert_eq!(with, parse(request(method, target, &[], &[]), &LIMITS), "{method} {target}");
        }
    }

    #[test]
    fn preconditions_go_into_the_command_of_a_write_and_into_the_shape_of_a_read() {
        let of = |versions: &[Version]| Some(Tag::Of(versions.to_vec()));
        let cases: [(&[(&str, &str)], Condition); 6] = [
            (&[], Condition::default()),
            (&[("if-match", V1)], Condition { if_match: of(&[version()]), if_none_match: None }),
            (&[("if-none-match", "*")], Condition { if_match: None, if_none_match: Some(Tag::Any) }),
            (
                &[("if-match", "*"), ("if-none-match", "W/\"x\"")],
                Condition { if_match: Some(Tag::Any), if_none_match: of(&[]) },
            ),
            (
                &[("if-match", "\"x\""), ("if-none-match", V1), ("if-match", V1)],
                Condition { if_match: of(&[version()]), if_none_match: of(&[version()]) },
            ),
            (
                &[("if-match", "*"), ("if-unmodified-since", "x")],
                Condition { if_match: Some(Tag::Any), if_none_match: None },
            ),
        ];
        for (headers, condition) in cases {
            assert_eq!(put_with("/v1/kv/a", headers).unwrap().condition, condition, "{headers:?}");
            let delete = UserRequest::Kv { key: key(b"a"), command: Command::Delete(condition.clone()) };
            assert_eq!(ask("DELETE", "/v1/kv/a", headers).unwrap().request, delete);
            let get = ask("GET", "/v1/kv/a", headers).unwrap();
            assert_eq!(get.shape.condition, condition, "{headers:?}");
        }
    }

    #[test]
    fn malformed_preconditions_are_400_and_named() {
        let many = vec![V1; CONDITIONS_MAX + 1].join(", ");
        let half = vec![V1; CONDITIONS_MAX / 2 + 1].join(", ");
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[("if-match", "abc")], "If-Match: an entity tag stands in double quotes"),
            (&[("if-none-match", "")], "If-None-Match: it is empty"),
            (&[("if-match", "*"), ("if-match", V1)], "stand alone"),
            (&[("if-match", &many)], "more than 32"),
            (&[("if-none-match", &half), ("if-none-match", &half)], "more than 32"),
        ];
        for (headers, says) in cases {
            for method in ["GET", "PUT", "DELETE"] {
                assert_refused(ask(method, "/v1/kv/a", headers), 400, "bad_header", &[says]);
            }
        }
    }

    #[test]
    fn a_write_is_refused_where_ignoring_a_header_would_lose_data() {
        let range = ask("PUT", "/v1/kv/a", &[("content-range", "bytes 0-1/9")]);
        assert_refused(range, 400, "bad_header", &["Content-Range"]);
        for method in ["PUT", "DELETE"] {
            let since = ask(method, "/v1/kv/a", &[("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT")]);
            assert_refused(since, 400, "bad_header", &["If-Match"]);
        }
    }

    #[test]
    fn consistency_is_linearizable_or_stale() {
        for (query, stale) in [("", false), ("?consistency=linearizable", false), ("?consistency=stale", true)] {
            let request = ask("GET", &format!("/v1/kv/a{query}"), &[]).unwrap().request;
            assert_eq!(matches!(request, UserRequest::ReadAny(_)), stale, "{query}");
        }
        for text in ["", "Stale", "eventual", "%ff"] {
            let asked = ask("GET", &format!("/v1/kv/a?consistency={text}"), &[]);
            assert_refused(asked, 400, "bad_query", &["linearizable or stale"]);
        }
    }

    #[test]
    fn a_listing_takes_prefix_limit_and_cursor() {
        let query = |prefix: &[u8], after: Option<&[u8]>, limit| ListQuery {
            prefix: prefix.to_vec(),
            after: after.map(<[u8]>::to_vec),
            limit,
        };
        let cases = [
            ("?prefix=&limit=1&cursor=", query(b"", None, 1)),
            ("?limit=1000", query(b"", None, LIST_LIMIT_MAX)),
            ("?prefix=a%2Fb/", query(b"a/b/", None, 100)),
            ("?prefix=a+b%2B%ff", query(b"a b+\xff", None, 100)),
            ("?cursor=YS9i", query(b"", Some(b"a/b"), 100)),
            ("?cursor=__4&prefix=%ff", query(b"\xff", Some(b"\xff\xfe"), 100)),
        ];
        for (text, expected) in cases {
            assert_eq!(listed(text), expected, "{text}");
        }
    }

    #[test]
    fn a_listing_out_of_bounds_is_400() {
        for limit in ["0", "1001", "", "-1", "+1", "1.5", "ten", "99999999999999999999999"] {
            assert_refused(ask("GET", &format!("/v1/kv?limit={limit}"), &[]), 400, "bad_query", &["1 to 1000"]);
        }
        let long = URL_SAFE_NO_PAD.encode([b'a'; KEY_BYTES_MAX + 1]);
        for cursor in ["a", "%2F%2F4", "YS9i%3D", "a/b", &long] {
            assert_refused(ask("GET", &format!("/v1/kv?cursor={cursor}"), &[]), 400, "bad_query", &["cursor"]);
        }
        assert_refused(ask("GET", "/v1/kv?cursor=YS9i&prefix=b", &[]), 400, "bad_query", &["of this prefix"]);
        let prefix = "a".repeat(KEY_BYTES_MAX + 1);
        assert_refused(ask("GET", &format!("/v1/kv?prefix={prefix}"), &[]), 400, "bad_query", &["prefix", "1024"]);
    }

    /// What RFC 3986 lets stand in a path.
    const PATH: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'+');

    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 1..=KEY_BYTES_MAX)
    }

    /// Texts that reach deep into the parser more often than arbitrary ones do.
    fn text_near(known: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop_oneof![
            2 => prop::sample::select(known).prop_map(str::to_owned),
            1 => any::<String>(),
            2 => (prop::sample::select(known), any::<String>()).prop_map(|(a, b)| format!("{a}{b}")),
            2 => (prop::sample::select(known), "[0-9a-z%&=+*,\"W/ µ.-]{0,40}").prop_map(|(a, b)| format!("{a}{b}")),
        ]
    }

    const METHODS: &[&str] = &["GET", "HEAD", "PUT", "DELETE", "POST"];
    const TARGETS: &[&str] = &[
        "/v1/kv/",
        "/v1/kv/a?ttl=",
        "/v1/kv/a?ttl=18446744073709551615s",
        "/v1/kv/a?consistency=",
        "/v1/kv?prefix=",
        "/v1/kv?limit=",
        "/v1/kv?cursor=",
        "/v1/lookup/",
        "/v1/ring",
        "/v1/node/leave",
        "/livez",
        "http://h/v1/kv/",
    ];
    const NAMES: &[&str] = &["if-match", "if-none-match", "content-type", "if-unmodified-since", "content-range"];
    const VALUES: &[&str] = &["*", "W/", "\"", V1, "text/plain"];

    proptest! {
        #[test]
        fn no_request_panics_and_every_refusal_is_a_problem(
            method in text_near(METHODS),
            target in text_near(TARGETS),
            headers in prop::collection::vec((text_near(NAMES), text_near(VALUES)), 0..4),
            body in prop::collection::vec(any::<u8>(), 0..12),
        ) {
            let head = method == "HEAD";
            if let Err(refusal) = parse(HttpRequest { method, target, headers, body }, &LIMITS) {
                prop_assert!((400..500).contains(&refusal.status));
                prop_assert_eq!(refusal.body.is_empty(), head);
                prop_assert!(refusal.body_len > 0 && refusal.body_len < 4_096);
            }
        }

        #[test]
        fn a_key_encoded_in_a_path_comes_back(bytes in any_key()) {
            for set in [NON_ALPHANUMERIC, PATH] {
                let target = format!("/v1/kv/{}", percent_encode(&bytes, set));
                let expected = UserRequest::Kv { key: key(&bytes), command: Command::Get };
                prop_assert_eq!(understood("GET", &target), expected);
            }
        }

        #[test]
        fn the_cursor_of_a_page_asks_for_what_follows_its_last_key(bytes in any_key()) {
            let item = Item { key: key(&bytes), size: 0, version: version(), content_type: None, expires: None };
            let page = UserReply::Page(Page { items: vec![item], more: true });
            let response = Shape::default().render(page, Wall(0));
            let document: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            let query = listed(&format!("?cursor={}", document["cursor"].as_str().unwrap()));
            prop_assert_eq!(query.after, Some(bytes));
        }
    }

    #[test]
    fn a_web_page_of_another_origin_may_read_but_not_write() {
        let ask = |method: &str, target: &str, origin: &str| {
            let headers = [("host", "127.0.0.1:8000"), ("origin", origin)];
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let request = HttpRequest { method: method.to_owned(), target: target.to_owned(), headers, body: vec![] };
            parse(request, &Limits { value_bytes_max: 10, origins: Vec::new() }).err().map(|refusal| refusal.status)
        };
        assert_eq!(ask("POST", "/v1/node/leave", "http://evil.example"), Some(403));
        assert_eq!(ask("PUT", "/v1/kv/a", "null"), Some(403));
        assert_eq!(ask("DELETE", "/v1/kv/a", "http://127.0.0.1:8001"), Some(403));
        assert_eq!(ask("POST", "/v1/node/leave", "http://127.0.0.1:8000"), None);
        assert_eq!(ask("GET", "/v1/ring", "http://evil.example"), None);
    }
}
