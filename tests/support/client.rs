//! A small HTTP client that reads answers strictly. It keeps its connection until that ends.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::de::DeserializeOwned;

use super::PATIENCE;

pub struct Client {
    addr: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// A key as a path of `/v1/kv`, every byte that could mean something else escaped, the slash too.
pub fn segment(key: &[u8]) -> String {
    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');
    percent_encode(key, PLAIN).to_string()
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn etag(&self) -> String {
        self.field("etag").unwrap_or_else(|| panic!("no ETag: {self:?}")).to_owned()
    }

    #[track_caller]
    pub fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{} {}", self.head, self.text());
        self
    }

    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        self.is(status);
        assert_eq!(self.field("content-type"), Some("application/problem+json"));
        let document: serde_json::Value = self.json();
        assert_eq!((document["code"].as_str(), document["status"].as_u64()), (Some(code), Some(status.into())));
        for member in ["type", "title", "detail"] {
            assert!(document[member].as_str().is_some_and(|text| !text.is_empty()), "{document}");
        }
    }
}

impl Client {
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, stream: None, buffer: Vec::new() }
    }

    pub fn get(&mut self, target: &str) -> io::Result<Answer> {
        self.ask("GET", target, &[], b"")
    }

    pub fn read(&mut self, key: &[u8]) -> io::Result<Answer> {
        self.get(&format!("/v1/kv/{}", segment(key)))
    }

    pub fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<Answer> {
        self.put_if(key, value, &[])
    }

    pub fn put_if(&mut self, key: &[u8], value: &[u8], headers: &[(&str, &str)]) -> io::Result<Answer> {
        self.ask("PUT", &format!("/v1/kv/{}", segment(key)), headers, value)
    }

    pub fn delete(&mut self, key: &[u8]) -> io::Result<Answer> {
        self.ask("DELETE", &format!("/v1/kv/{}", segment(key)), &[], b"")
    }

    /// One request and its answer. A request that finds its kept connection closed is not repeated.
    pub fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
        let length = match method {
            "PUT" | "POST" => format!("Content-Length: {}\r\n", body.len()),
            _ => String::new(),
        };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{headers}{length}\r\n");
        let answer = self.send(&[head.as_bytes(), body].concat()).and_then(|()| self.answer_to(method));
        match &answer {
            Ok(answer) if answer.field("connection") != Some("close") => {}
            _ => self.forget(),
        }
        answer
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream()?.write_all(bytes)
    }

    /// The next answer on the connection.
    pub fn answer_to(&mut self, method: &str) -> io::Result<Answer> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.more()?;
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).map_err(io::Error::other)?;
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let mut answer = Answer { status, head, body: Vec::new() };
        if method != "HEAD" && !matches!(status, 100 | 204 | 304) {
            let length = answer.field("content-length").and_then(|text| text.parse::<usize>().ok());
            let length = length.ok_or_else(|| io::Error::other(format!("no length: {answer:?}")))?;
            while self.buffer.len() < length {
                self.more()?;
            }
            answer.body = self.buffer.drain(..length).collect();
        }
        Ok(answer)
    }

    pub fn forget(&mut self) {
        self.stream = None;
        self.buffer.clear();
    }

    fn more(&mut self) -> io::Result<()> {
        let mut piece = vec![0; 65_536];
        let count = self.stream()?.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..count]);
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn stream(&mut self) -> io::Result<&mut TcpStream> {
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&self.addr, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}
