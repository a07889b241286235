//! The parts of HTTP messages, as this layer takes and gives them.

/// A request whose body has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRequest {
    /// As received: `GET`, `PUT` and so on; case matters.
    pub method: String,
    /// As received, in origin form (`/v1/kv/a?ttl=30s`) or absolute form (`http://host/v1/kv/a`).
    pub target: String,
    /// The header lines in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The raw bytes, without any transfer coding.
    pub body: Vec<u8>,
}

/// An answer, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// All headers but those of the connection, `Date`, and `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// The bytes to send; none in the answer to a `HEAD` and in a 204 or 304.
    pub body: Vec<u8>,
    /// What `Content-Length` says. It differs from the length of `body` where the bytes are held back: in the answer
    /// to a `HEAD` and in a 304 it is the length that the `GET` would have sent. A 204 has no `Content-Length` at all.
    pub body_len: usize,
}

/// The bounds that a user's request must keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest value of the ring, in bytes.
    pub value_bytes_max: usize,
    /// Origins of web pages that may ask and read answers; `*`: every one.
    pub origins: Vec<String>,
}

impl HttpResponse {
    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), body_len: 0 }
    }

    /// An answer with a JSON document.
    pub(super) fn json(status: u16, body: Vec<u8>) -> Self {
        Self::empty(status).with("Content-Type", "application/json").with_body(body)
    }

    /// Adds a header. The value must be text that a header may have; nothing of a user's goes in unchecked.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The value of a header, its name in the spelling it was set with.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(super) fn with_body(mut self, body: Vec<u8>) -> Self {
        self.body_len = body.len();
        self.body = body;
        self
    }

    /// The same as the answer to a `HEAD`.
    #[must_use]
    pub fn without_body(mut self) -> Self {
        self.body = Vec::new();
        self
    }
}

/// The header lines of a request.
#[derive(Clone, Copy)]
pub(super) struct Headers<'a>(pub &'a [(String, String)]);

impl<'a> Headers<'a> {
    /// The values of all lines with this name.
    pub fn all(self, name: &'static str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim_matches(WHITESPACE))
    }

    /// Repeated lines as one list (RFC 9110, section 5.3).
    pub fn list(self, name: &'static str) -> Option<String> {
        let lines: Vec<&str> = self.all(name).collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }
}

/// What may stand around a header's value and between the parts of a list (RFC 9110, section 5.6.3).
pub(super) const WHITESPACE: [char; 2] = [' ', '\t'];
