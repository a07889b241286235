//! Turns the head of `tiny_http`'s answer into the one that the client gets.
//!
//! The body is not looked at. Fields that belong to one connection only are dropped and written anew, so nothing that
//! the application puts into a field can change where the answer ends.

use std::io::Write;

use super::head::Kind;
use super::limits::HEADERS_MAX;
use crate::data::http::PARK_FIELD;

/// Fields that the gate writes itself or that say nothing to a client.
const DROPPED: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The head for the client, and how many bytes of body follow it on the private connection.
pub(super) struct ReplyHead {
    pub bytes: Vec<u8>,
    pub body_len: usize,
    /// It is no answer yet: the request is to be passed on again when this number is called.
    pub parked: Option<u64>,
}

/// `None`: this is not an answer that can be relayed, and where the next one begins is unknown.
pub(super) fn rewrite(head: &[u8], kind: Kind, close: bool) -> Option<ReplyHead> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut reply = httparse::Response::new(&mut fields);
    if !matches!(reply.parse(head), Ok(httparse::Status::Complete(length)) if length == head.len()) {
        return None;
    }
    let status = reply.code.filter(|status| (200..=599).contains(status))?;
    let mut bytes = Vec::with_capacity(head.len() + 32);
    // Writing to a vector cannot fail.
    let _ = write!(bytes, "HTTP/1.1 {status} {}\r\n", reply.reason.unwrap_or_default());
    let (mut length, mut parked): (Option<usize>, _) = (None, None);
    for field in reply.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let value = std::str::from_utf8(field.value).ok()?.parse().ok()?;
            if length.replace(value).is_some() {
                return None;
            }
        } else if field.name.eq_ignore_ascii_case(PARK_FIELD) {
            parked = Some(std::str::from_utf8(field.value).ok()?.parse().ok()?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        } else if !DROPPED.iter().any(|name| field.name.eq_ignore_ascii_case(name)) {
            bytes.extend_from_slice(field.name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(field.value);
            bytes.extend_from_slice(b"\r\n");
        }
    }
    // RFC 9112, 6.3: these end with their head whatever their fields say. A 304 of tiny_http says 0, which is not
    // the length of what was not sent.
    let bodiless = matches!(status, 204 | 304);
    let length = if bodiless { 0 } else { length? };
    if !bodiless {
        let _ = write!(bytes, "content-length: {length}\r\n");
    }
    if close {
        bytes.extend_from_slice(b"connection: close\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    Some(ReplyHead { bytes, body_len: if kind.head { 0 } else { length }, parked })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(head: &str, method: &str, close: bool) -> Option<(String, usize)> {
        let reply = rewrite(head.as_bytes(), Kind::of(method), close)?;
        Some((String::from_utf8(reply.bytes).unwrap(), reply.body_len))
    }

    #[test]
    fn what_belongs_to_the_private_connection_is_not_relayed() {
        let head = "HTTP/1.1 200 OK\r\nServer: tiny-http (Rust)\r\nDate: d\r\nETag: \"1\"\r\nContent-Length: 3\r\n\r\n";
        let wanted = "HTTP/1.1 200 OK\r\nDate: d\r\nETag: \"1\"\r\ncontent-length: 3\r\nconnection: close\r\n\r\n";
        assert_eq!(text(head, "GET", true), Some((wanted.into(), 3)));
    }

    #[test]
    fn what_is_put_off_is_told_apart() {
        let head = "HTTP/1.1 202 Accepted\r\nX-Gate-Park: 7\r\nContent-Length: 0\r\n\r\n";
        let reply = rewrite(head.as_bytes(), Kind::of("GET"), false).unwrap();
        assert_eq!(reply.parked, Some(7));
        assert!(!String::from_utf8(reply.bytes).unwrap().to_lowercase().contains("park"));
    }

    #[test]
    fn answers_without_a_body_have_none_whatever_their_length_says() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(text(head, "HEAD", false).unwrap(), ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n".into(), 0));
        for status in ["204 No Content", "304 Not Modified"] {
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(text(&head, "GET", false).unwrap(), (format!("HTTP/1.1 {status}\r\n\r\n"), 0));
        }
    }

    #[test]
    fn an_answer_whose_end_is_unclear_is_not_relayed() {
        for fields in [
            "",
            "Content-Length: x\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Transfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(text(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), "GET", false), None);
        }
        assert_eq!(text("HTTP/1.1 100 Continue\r\n\r\n", "GET", false), None);
    }
}
