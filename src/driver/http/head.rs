//! Reads the head of a request strictly (RFC 9112) and writes the canonical one that `tiny_http` gets.
//!
//! Where the RFC lets a recipient be lenient and two recipients could then differ, this one refuses: `tiny_http` never
//! sees a byte that was not written here. It knows nothing of sockets.

use std::io::Write;

use super::limits::{HEAD_MAX, HEADERS_MAX, TARGET_MAX};
use super::refusal::{self, Refusal};

/// Header fields that are passed on, by their lower-case names, and whether they may be repeated.
const PASSED_ON: [(&str, bool); 15] = [
    ("accept", true),
    ("accept-encoding", true),
    ("authorization", false),
    ("content-encoding", false),
    ("content-range", false),
    ("content-type", false),
    ("host", false),
    ("if-match", true),
    ("if-modified-since", false),
    ("if-none-match", true),
    ("if-unmodified-since", false),
    ("origin", false),
    ("traceparent", false),
    ("user-agent", false),
    ("x-request-id", false),
];

/// What proxies say (RFC 7239, RFC 9110 section 7.6.3, and older habits).
const FORWARDED: [&str; 7] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-server", "x-real-ip"];

/// The bit of `host` among those of [`Seen::passed_on`].
const HOST_BIT: u32 = 1 << 6;
const _: () = assert!(matches!(PASSED_ON[6].0.as_bytes(), b"host"), "the bit must be that of the name");

/// Longest method.
const METHOD_MAX: usize = 16;
/// Digits of the largest Content-Length that is looked at.
const LENGTH_DIGITS_MAX: usize = 18;

/// What the gate must know of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// The answer has no body.
    pub head: bool,
    /// Nothing is written: a lost answer does no harm.
    pub safe: bool,
}

impl Kind {
    pub(super) fn of(method: &str) -> Self {
        Kind { head: method == "HEAD", safe: matches!(method, "GET" | "HEAD" | "OPTIONS") }
    }
}

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// This many bytes.
    Length(usize),
    /// Chunks.
    Chunked,
}

/// A request's head that passed every check.
#[derive(Debug)]
pub(super) struct Head {
    /// Request line and header fields for `tiny_http`, without Content-Length and the empty line.
    pub canonical: Vec<u8>,
    pub framing: Framing,
    pub kind: Kind,
    /// The client wants the connection closed after the answer.
    pub close: bool,
    /// Somebody between says that it passes on what another client asked.
    pub is_forwarded: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

impl Head {
    /// Method and target.
    pub(super) fn asked(&self) -> (&str, &str) {
        let mut words = self.lines().next().unwrap_or_default().split(' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }

    /// The field `Authorization`, which stands at most once.
    pub(super) fn authorization(&self) -> Option<&str> {
        self.lines().find_map(|line| line.strip_prefix("authorization: "))
    }

    /// Whether something follows.
    pub(super) fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// The web page that asks, by its origin; it stands at most once.
    pub(super) fn origin(&self) -> Option<&str> {
        self.lines().find_map(|line| line.strip_prefix("origin: "))
    }

    fn lines(&self) -> impl Iterator<Item = &str> {
        // ASCII only, see `copy_field` and `check_target`.
        str::from_utf8(&self.canonical).unwrap_or_default().split("\r\n")
    }
}

/// Finds the end of a head, looking at each byte once however it arrives, and refuses bare CR and LF on its way.
#[derive(Default)]
pub(super) struct Scanner {
    at: usize,
    /// Bytes of `CR LF CR LF` seen in a row.
    matched: u8,
}

impl Scanner {
    /// `head` is all that has arrived since the head's first byte. Gives the length of the head when it is whole.
    pub(super) fn scan(&mut self, head: &[u8]) -> Result<Option<usize>, Refusal> {
        for &byte in &head[self.at..] {
            self.at += 1;
            self.matched = match (self.matched, byte) {
                (0 | 2, b'\r') => self.matched + 1,
                (1, b'\n') => 2,
                (3, b'\n') => return Ok(Some(self.at)),
                (1 | 3, _) | (_, b'\n') => return Err(refusal::BARE_LINE_END),
                _ => 0,
            };
        }
        if self.at < HEAD_MAX {
            return Ok(None);
        }
        // The request line alone fills the head: the target is what is too long.
        let one_line = !head.contains(&b'\n');
        Err(if one_line { refusal::TARGET_TOO_LONG } else { refusal::HEAD_TOO_LARGE })
    }
}

/// Checks a whole head and writes its canonical form.
pub(super) fn parse(head: &[u8], body_max: usize) -> Result<Head, Refusal> {
    let version_minor = check_version(head)?;
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(refusal::HEAD_TOO_LARGE),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => return Err(refusal::BAD_HEADER),
        Ok(_) | Err(_) => return Err(refusal::BAD_REQUEST_LINE),
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(refusal::BAD_REQUEST_LINE);
    };
    if method.len() > METHOD_MAX || method == "CONNECT" {
        return Err(refusal::BAD_METHOD);
    }
    let target = check_target(method, target)?;
    let mut canonical = Vec::with_capacity(head.len() + 32);
    canonical.extend_from_slice(method.as_bytes());
    canonical.push(b' ');
    canonical.extend_from_slice(target.as_bytes());
    canonical.extend_from_slice(b" HTTP/1.1\r\n");

    let seen = copy_fields(request.headers, &mut canonical)?;
    if version_minor == 1 && seen.passed_on & HOST_BIT == 0 {
        return Err(refusal::BAD_HOST);
    }
    let framing = framing(method, version_minor, &seen, body_max)?;
    Ok(Head {
        canonical,
        framing,
        kind: Kind::of(method),
        close: seen.close || version_minor == 0,
        is_forwarded: seen.forwarded > 0,
        expects_continue: seen.expects_continue && version_minor == 1,
    })
}

/// Ends a canonical head: with the length of the body where the request has one.
pub(super) fn finish(canonical: &mut Vec<u8>, body_len: Option<usize>) {
    if let Some(length) = body_len {
        // Writing to a vector cannot fail.
        let _ = write!(canonical, "content-length: {length}\r\n");
    }
    canonical.extend_from_slice(b"\r\n");
}

/// The minor version of HTTP/1. Looked at first and by hand: another version's head may look quite different.
fn check_version(head: &[u8]) -> Result<u8, Refusal> {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    match line.rsplit(|&byte| byte == b' ').next().unwrap_or_default() {
        b"HTTP/1.0" => Ok(0),
        b"HTTP/1.1" => Ok(1),
        [b'H', b'T', b'T', b'P', b'/', major, rest @ ..] if major.is_ascii_digit() && rest.len() <= 2 => {
            Err(refusal::BAD_VERSION)
        }
        _ => Err(refusal::BAD_REQUEST_LINE),
    }
}

/// The path and query of a target in origin, absolute or asterisk form.
fn check_target<'a>(method: &str, target: &'a str) -> Result<&'a str, Refusal> {
    if target.len() > TARGET_MAX {
        return Err(refusal::TARGET_TOO_LONG);
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(refusal::BAD_TARGET);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(target);
    }
    // Absolute form: a server must accept it (RFC 9112, 3.2.2). Only the path matters here.
    let after_scheme = match target.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("http://") => &target[7..],
        _ => return Err(refusal::BAD_TARGET),
    };
    match after_scheme.find(['/', '?']) {
        Some(0) => Err(refusal::BAD_TARGET),
        Some(at) if after_scheme[at..].starts_with('/') => Ok(&after_scheme[at..]),
        Some(_) => Err(refusal::BAD_TARGET),
        None if after_scheme.is_empty() => Err(refusal::BAD_TARGET),
        None => Ok("/"),
    }
}

/// What the header fields say to the gate itself.
#[derive(Default)]
struct Seen {
    length: Option<usize>,
    codings: u32,
    chunked: bool,
    close: bool,
    expects_continue: bool,
    forwarded: u32,
    /// One bit for each of [`PASSED_ON`].
    passed_on: u32,
}

/// Copies the fields on the allow-list and notes those that the gate acts on itself.
fn copy_fields(fields: &[httparse::Header<'_>], canonical: &mut Vec<u8>) -> Result<Seen, Refusal> {
    let mut seen = Seen::default();
    for field in fields {
        let value = field.value.trim_ascii();
        if let Some(at) = PASSED_ON.iter().position(|(name, _)| field.name.eq_ignore_ascii_case(name)) {
            let (name, repeatable) = PASSED_ON[at];
            if !repeatable && seen.passed_on & (1 << at) != 0 {
                return Err(if name == "host" { refusal::BAD_HOST } else { refusal::REPEATED_HEADER });
            }
            seen.passed_on |= 1 << at;
            copy_field(name, value, canonical)?;
        } else {
            note_field(field.name, value, &mut seen)?;
        }
    }
    Ok(seen)
}

fn copy_field(name: &str, value: &[u8], canonical: &mut Vec<u8>) -> Result<(), Refusal> {
    if name == "host" && !value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(byte)) {
        return Err(refusal::BAD_HOST);
    }
    // tiny_http drops the connection at a byte over 127.
    if !value.iter().all(|&byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return Err(refusal::BAD_HEADER);
    }
    canonical.extend_from_slice(name.as_bytes());
    canonical.extend_from_slice(b": ");
    canonical.extend_from_slice(value);
    canonical.extend_from_slice(b"\r\n");
    Ok(())
}

fn note_field(name: &str, value: &[u8], seen: &mut Seen) -> Result<(), Refusal> {
    if name.eq_ignore_ascii_case("content-length") {
        if seen.length.is_some() {
            return Err(refusal::BAD_LENGTH);
        }
        seen.length = Some(parse_length(value)?);
    } else if name.eq_ignore_ascii_case("transfer-encoding") {
        seen.codings += 1;
        seen.chunked = value.eq_ignore_ascii_case(b"chunked");
    } else if name.eq_ignore_ascii_case("connection") {
        let mut options = value.split(|&byte| byte == b',');
        seen.close |= options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
    } else if name.eq_ignore_ascii_case("expect") {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(refusal::BAD_EXPECTATION);
        }
        seen.expects_continue = true;
    } else if FORWARDED.iter().any(|forwarded| name.eq_ignore_ascii_case(forwarded)) {
        seen.forwarded += 1;
    }
    Ok(())
}

/// Digits only; a number too large to count is as large as can be.
fn parse_length(value: &[u8]) -> Result<usize, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(refusal::BAD_LENGTH);
    }
    if value.len() > LENGTH_DIGITS_MAX {
        return Ok(usize::MAX);
    }
    let length = value.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Ok(usize::try_from(length).unwrap_or(usize::MAX))
}

fn framing(method: &str, version_minor: u8, seen: &Seen, body_max: usize) -> Result<Framing, Refusal> {
    match (seen.codings, seen.length) {
        (0, None) if matches!(method, "PUT" | "POST" | "PATCH") => Err(refusal::LENGTH_REQUIRED),
        (0, None) => Ok(Framing::None),
        (0, Some(length)) if length > body_max => Err(refusal::body_too_large(body_max)),
        (0, Some(length)) => Ok(Framing::Length(length)),
        (1, None) if version_minor == 1 && seen.chunked => Ok(Framing::Chunked),
        (1, None) if version_minor == 1 => Err(refusal::BAD_CODING),
        _ => Err(refusal::AMBIGUOUS_LENGTH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(head: &str) -> Result<Head, Refusal> {
        assert_eq!(Scanner::default().scan(head.as_bytes()), Ok(Some(head.len())), "{head:?}");
        parse(head.as_bytes(), 100)
    }

    fn refused(head: &str) -> u16 {
        parse_text(head).expect_err(head).status
    }

    #[test]
    fn the_canonical_head_has_only_what_is_on_the_allow_list() {
        let head = parse_text(
            "PUT /v1/kv/a%20b?ttl=1s HTTP/1.1\r\nHOST: h:1\r\nX-Evil: 1\r\nx-gate-probe: 1\r\nTE: chunked\r\n\
             Content-Type:  text/plain \r\nConnection: foo, Close\r\nContent-Length: 7\r\n\r\n",
        )
        .unwrap();
        let text = String::from_utf8(head.canonical).unwrap();
        assert_eq!(text, "PUT /v1/kv/a%20b?ttl=1s HTTP/1.1\r\nhost: h:1\r\ncontent-type: text/plain\r\n");
        assert_eq!((head.framing, head.close), (Framing::Length(7), true));
        assert_eq!(head.kind, Kind { head: false, safe: false });
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_is_cut() {
        let text = b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET";
        let mut scanner = Scanner::default();
        for end in 0..28 - 1 {
            assert_eq!(scanner.scan(&text[..end]), Ok(None));
        }
        assert_eq!(scanner.scan(text), Ok(Some(text.len() - 3)));
    }

    #[test]
    fn bare_line_ends_are_refused_as_soon_as_they_are_seen() {
        for head in [&b"GET / HTTP/1.1\n"[..], b"GET / HTTP/1.1\r\nHost: h\n", b"GET / HTTP/1.1\r\rx", b"\n"] {
            assert_eq!(Scanner::default().scan(head), Err(refusal::BARE_LINE_END));
        }
    }

    #[test]
    fn oversized_heads_and_targets_have_statuses_of_their_own() {
        assert_eq!(Scanner::default().scan(&[b'a'; HEAD_MAX]), Err(refusal::TARGET_TOO_LONG));
        let head = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; HEAD_MAX]].concat();
        assert_eq!(Scanner::default().scan(&head), Err(refusal::HEAD_TOO_LARGE));
        assert_eq!(refused(&format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(TARGET_MAX))), 414);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX))), 431);
    }

    #[test]
    fn every_crooked_head_is_refused() {
        for (status, head) in [
            (505, "GET / HTTP/2.0\r\n\r\n"),
            (505, "PRI * HTTP/2.0\r\n\r\n"),
            (505, "GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
            (400, "GET / FOO/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET /\r\n\r\n"),
            (400, "GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
            (400, "G@T / HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, " GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET /\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET /#a HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET a HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET * HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET http:///a HTTP/1.1\r\nHost: h\r\n\r\n"),
            (501, "CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n"),
            (501, "ABCDEFGHIJKLMNOPQ / HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost : h\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\n Host: h\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: h\r\nAccept: a\r\n b\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: h\r\nAccept: a\0b\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: h\r\nAccept: \u{e9}\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n"),
            (411, "PUT / HTTP/1.1\r\nHost: h\r\n\r\n"),
            (411, "POST / HTTP/1.0\r\n\r\n"),
            (413, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n"),
            (413, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1099511627776\r\n\r\n"),
            (413, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999999\r\n\r\n"),
            (417, "PUT / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\n"),
        ] {
            assert_eq!(refused(head), status, "{head:?}");
        }
    }

    #[test]
    fn every_way_to_smuggle_a_second_length_is_refused() {
        let with = |fields: &str| refused(&format!("PUT / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n"));
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length: -1",
            "Content-Length: 0x1",
            "Content-Length: 1 1",
            "Content-Length:",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            "Transfer-Encoding:\r\n chunked",
        ] {
            assert_eq!(with(fields), 400, "{fields:?}");
        }
        for coding in ["xchunked", "gzip, chunked", "chunked, chunked", "identity", "chunked;q=1", "\"chunked\"", ""] {
            assert_eq!(with(&format!("Transfer-Encoding: {coding}")), 501, "{coding:?}");
        }
        assert_eq!(refused("PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    }

    #[test]
    fn plain_requests_of_all_kinds_pass() {
        let close = |head| parse_text(head).unwrap().close;
        assert!(close("GET / HTTP/1.0\r\n\r\n"));
        assert!(!close("GET / HTTP/1.1\r\nHost:\r\n\r\n"));
        let head = parse_text("HEAD http://h:1/a?b HTTP/1.1\r\nHost: other\r\n\r\n").unwrap();
        assert!(head.canonical.starts_with(b"HEAD /a?b HTTP/1.1\r\n") && head.kind.head);
        let head =
            parse_text("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n\r\n");
        assert!(head.as_ref().is_ok_and(|head| head.framing == Framing::Chunked && head.expects_continue));
        assert_eq!(parse_text("DELETE / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap().framing, Framing::None);
        assert!(parse_text("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").is_ok());
    }
}
