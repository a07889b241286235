//! Refusals and failures as RFC 9457 problem documents. Which failure is which problem is decided by the callers.

use serde::Serialize;

use super::message::HttpResponse;
use crate::data::Trouble;

/// The `Content-Type` of a [`problem`].
pub const PROBLEM_TYPE: &str = "application/problem+json";

/// An `application/problem+json` answer. `code` is stable and for programs; `detail` is for people and says what to do.
pub fn problem(status: u16, code: &'static str, detail: &str) -> HttpResponse {
    let document =
        Problem { r#type: format!("urn:chordkv:problem:{code}"), title: reason(status), status, detail, code };
    // Strings and a number always serialize; were it otherwise, the status alone would still answer.
    let body = serde_json::to_vec(&document).unwrap_or_default();
    HttpResponse::empty(status).with("Content-Type", PROBLEM_TYPE).with_body(body)
}

/// A key that is no key, or cannot be read.
pub(super) fn bad_key(detail: &str) -> HttpResponse {
    problem(400, "bad_key", detail)
}

/// A query that is not understood.
pub(super) fn bad_query(detail: &str) -> HttpResponse {
    problem(400, "bad_query", detail)
}

/// A header that is not understood.
pub(super) fn bad_header(detail: &str) -> HttpResponse {
    problem(400, "bad_header", detail)
}

/// A value over the limit of the ring.
pub(super) fn value_too_large(limit: usize) -> HttpResponse {
    let detail =
        format!("the value is larger than {limit} bytes, the limit that the ring was created with (--max-value)");
    problem(413, "value_too_large", &detail)
}

/// The store of the key's holder could not do it.
pub(super) fn in_trouble(trouble: &Trouble) -> HttpResponse {
    let detail = format!("{trouble}; nothing was changed");
    match trouble {
        Trouble::Full(_) => problem(507, "full", &format!("{detail}. Delete keys, or raise --max-bytes")),
        Trouble::Damaged(_) => problem(500, "damaged", &format!("{detail}. Put or delete the key to be rid of it")),
        Trouble::Broken(_) => problem(500, "store_failed", &detail),
    }
}

/// What a user wrote, fit to stand in a detail: in quotes and not longer than makes sense.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("\"{}…\"", &text[..end]),
        None => format!("\"{text}\""),
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
}

/// The reason phrase of a status that this program answers with.
pub fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ if status < 500 => "Client Error",
        _ => "Server Error",
    }
}

const QUOTED_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_type_title_status_detail_and_code() {
        let response = problem(503, "overloaded", "a \"quoted\"\nline");
        assert_eq!(response.status, 503);
        assert_eq!(response.headers, [("Content-Type", "application/problem+json".to_owned())]);
        assert_eq!(response.body_len, response.body.len());
        let document: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        let expected = serde_json::json!({
            "type": "urn:chordkv:problem:overloaded", "title": "Service Unavailable", "status": 503,
            "detail": "a \"quoted\"\nline", "code": "overloaded",
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn what_a_user_wrote_is_quoted_at_a_bounded_length() {
        assert_eq!(quoted("tll"), "\"tll\"");
        assert_eq!(quoted(&"é".repeat(64)), format!("\"{}\"", "é".repeat(64)));
        assert_eq!(quoted(&"é".repeat(65)), format!("\"{}…\"", "é".repeat(64)));
    }
}
