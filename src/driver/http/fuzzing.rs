//! Requests of strangers, as `fuzz/` chooses them: the way of the gate, without sockets.

use super::chunked::Chunked;
use super::head::{self, Framing, Scanner};
use crate::data::http::{Access, Asking, HttpRequest, Limits, parse};

const BODY_MAX: usize = 1 << 12;

/// One request, cut anywhere: the first byte says where.
///
/// # Panics
/// What is passed on is not canonical, or more than is allowed.
pub fn http(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let mut scanner = Scanner::default();
    let (mut arrived, mut length) = (Vec::new(), None);
    for piece in stream.chunks(1 + usize::from(*cut)) {
        arrived.extend_from_slice(piece);
        match scanner.scan(&arrived) {
            Ok(None) => {}
            Ok(found) => {
                length = found;
                break;
            }
            Err(_) => return,
        }
    }
    let Some(length) = length else { return };
    let Ok(head) = head::parse(&stream[..length], BODY_MAX) else { return };
    let mut body = Vec::new();
    match head.framing {
        Framing::None => {}
        Framing::Length(size) => body.extend(stream[length..].iter().take(size)),
        Framing::Chunked => {
            let mut chunked = Chunked::new();
            for piece in stream[length..].chunks(1 + usize::from(*cut)) {
                match chunked.push(piece, &mut body, BODY_MAX) {
                    Ok((_, false)) => {}
                    Ok((_, true)) => break,
                    Err(_) => return,
                }
            }
        }
    }
    assert!(body.len() <= BODY_MAX);
    let (method, target) = head.asked();
    let mut canonical = head.canonical.clone();
    head::finish(&mut canonical, Some(body.len()));
    // HTTP/1.0 needs no Host.
    if canonical.windows(8).any(|bytes| bytes == b"\r\nhost: ") {
        let again = head::parse(&canonical, BODY_MAX).expect("what was let through once is let through");
        assert_eq!(again.asked(), (method, target), "another reader takes it for another request");
        assert_eq!(again.framing, Framing::Length(body.len()));
    }
    understand(method, target, &canonical, body);
}

/// As the application does, with tokens and without.
fn understand(method: &str, target: &str, canonical: &[u8], body: Vec<u8>) {
    let text = std::str::from_utf8(canonical).expect("a canonical head is ASCII");
    let fields = text.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
    let headers: Vec<(String, String)> = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let authorization = headers.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value.clone());
    let request = HttpRequest { method: method.to_owned(), target: target.to_owned(), headers, body };
    let limits = Limits { value_bytes_max: BODY_MAX, origins: vec!["https://a.example".to_owned()] };
    let asking = Asking { method, target, authorization: authorization.as_deref(), is_local: false };
    let access = Access::parse("write write-write-write a/").expect("tokens");
    if let Ok(asked) = parse(request, &limits) {
        // A token that may write below a prefix is let through by both questions or stopped by one.
        let is_let_in = access.admits(&asking).is_ok() && access.covers(asking.authorization, &asked.request).is_ok();
        assert!(
            authorization.is_some() || !is_let_in || access.is_open(&asking),
            "nobody is let in: {method} {target}"
        );
    }
}

/// A file of tokens.
pub fn tokens(text: &str) {
    // An error is as good as tokens.
    let _ = Access::parse(text);
}
