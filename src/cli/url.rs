//! The address of a node's HTTP interface, and paths on it.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::values::{decimal, host_port};

/// Where a node's HTTP interface is, `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUrl(String);

impl NodeUrl {
    /// Reads a URL, `host:port`, or a host alone. The error is the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        match scheme.as_deref() {
            None | Some("http") => {}
            Some("https") => {
                return Err("https is not spoken here yet; use http://, through a tunnel if the network is not yours"
                    .to_owned());
            }
            Some(_) => return Err(SHAPE.to_owned()),
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| decimal::<u64>(port).is_some());
        // A URL without a port means 80, a host alone the port that nodes listen on unless told otherwise.
        let port_default = if scheme.is_some() { 80 } else { PORT_DEFAULT };
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:{port_default}") };
        match host_port(&authority) {
            Ok(checked) => Ok(Self(format!("http://{checked}"))),
            Err(_) => Err(SHAPE.to_owned()),
        }
    }

    /// Host and port.
    pub fn authority(&self) -> &str {
        self.0.strip_prefix("http://").unwrap_or(&self.0)
    }

    /// The URL of a path on this node, already percent-encoded.
    pub fn with(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl Default for NodeUrl {
    fn default() -> Self {
        Self(format!("http://127.0.0.1:{PORT_DEFAULT}"))
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Any bytes as one segment of a path, or as one value of a query.
pub fn encode(bytes: &[u8]) -> String {
    percent_encode(bytes, RESERVED).to_string()
}

/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PORT_DEFAULT: u16 = 8_000;
const SHAPE: &str = "write http://HOST:PORT or HOST:PORT, such as 127.0.0.1:8000";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::http::{HttpRequest, Limits, parse};
    use crate::data::{Key, UserRequest};

    #[test]
    fn urls_and_hosts_are_understood() {
        let cases = [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("HTTP://kv1:8000/", "http://kv1:8000"),
            ("kv1:9000", "http://kv1:9000"),
            ("kv1", "http://kv1:8000"),
            ("http://kv1", "http://kv1:80"),
            ("[::1]:8000", "http://[::1]:8000"),
            ("[::1]", "http://[::1]:8000"),
        ];
        for (text, url) in cases {
            assert_eq!(NodeUrl::parse(text).map(|url| url.to_string()), Ok(url.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_node_is_refused() {
        assert!(NodeUrl::parse("https://kv1:8000").unwrap_err().contains("https is not spoken"));
        for text in [
            "",
            "http://",
            ":8000",
            "::1",
            "ftp://a:1",
            "a:0",
            "a:70000",
            "http://a:1/v1",
            "http://u@a:1",
            "a:1?x",
            "a b",
        ] {
            assert!(NodeUrl::parse(text).unwrap_err().contains("HOST:PORT"), "{text}");
        }
    }

    #[test]
    fn the_server_reads_every_key_as_it_was_given() {
        let all: Vec<u8> = (0..=255).collect();
        for key in [&all[..], b"a/b", b"..", b"a%2Fb", b"a+b c", "ключ".as_bytes(), b"\xff"] {
            let target = NodeUrl::default().with(&format!("/v1/kv/{}", encode(key)));
            let asked = parse(
                HttpRequest { method: "GET".to_owned(), target: target.clone(), ..HttpRequest::default() },
                &Limits { value_bytes_max: 1, origins: Vec::new() },
            );
            let Ok(asked) = asked else { panic!("{target}") };
            assert!(matches!(asked.request, UserRequest::Kv { key: got, .. } if got == Key::new(key).unwrap()));
        }
        assert_eq!(encode(b"a/b\xff~"), "a%2Fb%FF~");
    }
}
