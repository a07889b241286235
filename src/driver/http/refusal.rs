//! Every answer that the gate gives by itself, in one list, and how it looks on the wire.
//!
//! What the application answers is not here; see `reply` for that.

use std::fmt::Write;

use crate::data::http::{CHALLENGE, CHALLENGE_FIELD, Denied, HttpResponse, PROBLEM_TYPE, problem, reason};

/// Seconds that a client should wait where the gate is overloaded.
const RETRY_AFTER_S: u32 = 1;

/// An error that the gate answers without asking the application, or in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Stable code of the problem details.
    pub code: &'static str,
    /// One sentence for people.
    pub detail: &'static str,
    /// Whether the client is told to come back soon.
    pub retry: bool,
    /// The bytes that are allowed, where that depends on the node.
    pub limit: Option<usize>,
}

const fn refusal(status: u16, code: &'static str, detail: &'static str) -> Refusal {
    Refusal { status, code, detail, retry: false, limit: None }
}

const fn overload(code: &'static str, detail: &'static str) -> Refusal {
    Refusal { status: 503, code, detail, retry: true, limit: None }
}

pub(super) const BARE_LINE_END: Refusal =
    refusal(400, "bad_line_end", "A line of the request's head does not end with CR LF.");
pub(super) const BAD_REQUEST_LINE: Refusal =
    refusal(400, "bad_request_line", "The request line is not `method SP target SP version`.");
pub(super) const BAD_HEADER: Refusal =
    refusal(400, "bad_header", "A header field is malformed, folded or has a byte that is not allowed.");
pub(super) const REPEATED_HEADER: Refusal =
    refusal(400, "repeated_header", "A header field that may stand once stands more than once.");
pub(super) const BAD_TARGET: Refusal =
    refusal(400, "bad_target", "The request target is not a path, or has a byte that must be percent-encoded.");
pub(super) const BAD_HOST: Refusal =
    refusal(400, "bad_host", "HTTP/1.1 needs exactly one well-formed Host header field.");
pub(super) const BAD_LENGTH: Refusal =
    refusal(400, "bad_content_length", "There must be at most one Content-Length, and it must be digits only.");
pub(super) const AMBIGUOUS_LENGTH: Refusal = refusal(
    400,
    "ambiguous_length",
    "Transfer-Encoding may not stand together with Content-Length, twice, or in HTTP/1.0.",
);
pub(super) const BAD_CHUNK: Refusal = refusal(400, "bad_chunk", "The chunked body is malformed.");
pub(super) const SLOW_HEAD: Refusal = refusal(408, "slow_head", "The head of the request took too long to arrive.");
pub(super) const SLOW_BODY: Refusal = refusal(408, "slow_body", "The body of the request took too long to arrive.");
pub(super) const LENGTH_REQUIRED: Refusal =
    refusal(411, "length_required", "This method needs a Content-Length or a chunked body.");
pub(super) const TARGET_TOO_LONG: Refusal = refusal(414, "target_too_long", "The request target is over 8 KiB.");
pub(super) const BAD_EXPECTATION: Refusal =
    refusal(417, "bad_expectation", "The only expectation understood here is `100-continue`.");
pub(super) const HEAD_TOO_LARGE: Refusal =
    refusal(431, "head_too_large", "The head of the request is over 16 KiB or 64 header fields.");
pub(super) const BAD_STATUS: Refusal = refusal(500, "bad_answer", "The application gave no valid status.");
pub(super) const BAD_METHOD: Refusal = refusal(501, "bad_method", "This method is not implemented.");
pub(super) const BAD_CODING: Refusal =
    refusal(501, "bad_transfer_coding", "The only transfer coding understood here is `chunked`.");
pub(super) const BAD_VERSION: Refusal = refusal(505, "bad_version", "Only HTTP/1.0 and HTTP/1.1 are spoken here.");

pub(super) const OUT_OF_MEMORY: Refusal =
    overload("http_memory_full", "The bytes of requests and answers in progress are at their limit.");
pub(super) const QUEUE_FULL: Refusal = overload("http_queue_full", "Too many requests wait; nothing was done.");
pub(super) const QUEUED_TOO_LONG: Refusal =
    overload("http_queue_slow", "The request waited too long for its turn; nothing was done.");
pub(super) const TOO_MANY_PARKED: Refusal =
    overload("too_many_waiting", "Too many clients wait here for changes; ask another node, or later.");
pub(super) const STOPPING: Refusal = overload("stopping", "This node stops; ask another one.");

const READ_LOST: Refusal =
    refusal(502, "answer_lost", "The answer was lost inside this node; the read may be repeated.");
const READ_TOO_LATE: Refusal = refusal(504, "deadline_passed", "No answer came in time; the read may be repeated.");
const WRITE_UNKNOWN: Refusal = refusal(
    504,
    "outcome_unknown",
    "No answer came from inside this node; the write may have happened or may happen yet.",
);

pub(super) const BODY_UNWANTED: Refusal =
    refusal(413, "body_unwanted", "What needs no token has no body here: send the request without one.");

/// The answer to a body of more than this.
pub(super) const fn body_too_large(limit: usize) -> Refusal {
    let detail = "The body is larger than a value may be in this ring (--max-value when it was created)";
    Refusal { limit: Some(limit), ..refusal(413, "body_too_large", detail) }
}

/// The answer to somebody who may not ask this.
pub(super) fn denied(denied: Denied) -> Refusal {
    let (status, code, detail) = denied.told();
    refusal(status, code, detail)
}

/// The answer where the application's was lost on its way, for a `safe` method or one that writes.
pub(super) const fn lost(safe: bool) -> Refusal {
    if safe { READ_LOST } else { WRITE_UNKNOWN }
}

/// The answer where the application gave none in time.
pub(super) const fn too_late(safe: bool) -> Refusal {
    if safe { READ_TOO_LATE } else { WRITE_UNKNOWN }
}

/// The answer where the application's would not fit the budget.
pub(super) const fn answer_too_large(safe: bool) -> Refusal {
    if safe { OUT_OF_MEMORY } else { WRITE_UNKNOWN }
}

impl Refusal {
    /// Problem details of this refusal.
    pub(super) fn body(&self) -> Vec<u8> {
        self.answer().body
    }

    /// The same in the form that the application's answers have.
    pub(super) fn answer(&self) -> HttpResponse {
        match self.limit {
            Some(limit) => problem(self.status, self.code, &format!("{}: {limit} bytes.", self.detail)),
            None => problem(self.status, self.code, self.detail),
        }
    }

    /// The whole HTTP/1.1 response; without its body where the request was HEAD.
    pub(super) fn response(&self, head_only: bool, close: bool) -> Vec<u8> {
        self.response_to(None, head_only, close)
    }

    /// The same for a web page of this origin, which may read it.
    pub(super) fn response_to(&self, origin: Option<&str>, head_only: bool, close: bool) -> Vec<u8> {
        let body = self.body();
        let mut head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {PROBLEM_TYPE}\r\ncontent-length: {}\r\n",
            self.status,
            reason(self.status),
            body.len()
        );
        if self.retry {
            // Writing to a string cannot fail.
            let _ = write!(head, "retry-after: {RETRY_AFTER_S}\r\n");
        }
        if self.status == 401 {
            let _ = write!(head, "{CHALLENGE_FIELD}: {CHALLENGE}\r\n");
        }
        if let Some(origin) = origin {
            let _ = write!(head, "access-control-allow-origin: {origin}\r\nvary: origin\r\n");
        }
        if close {
            head.push_str("connection: close\r\n");
        }
        head.push_str("\r\n");
        let mut response = head.into_bytes();
        if !head_only {
            response.extend_from_slice(&body);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overload_says_when_to_come_back_and_a_head_answer_has_no_body() {
        let text = String::from_utf8(QUEUE_FULL.response(true, true)).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(text.contains("retry-after: 1\r\n") && text.contains("connection: close\r\n"));
        assert!(text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn a_lost_write_says_that_it_may_have_happened() {
        assert_eq!(lost(false).status, 504);
        assert!(lost(false).detail.contains("may have happened"));
        assert_eq!(lost(true).status, 502);
    }
}
