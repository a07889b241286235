//! `get`, `put` and `del`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use ureq::http::Method;

use super::args::{DelArgs, GetArgs, PutArgs};
use super::client::{Answer, Ask, Client};
use super::failure::Failure;
use super::text::one_line;
use super::url::encode;
use crate::base::limits::VALUE_BYTES_LIMIT;
use crate::data::Key;

/// `chordkv get KEY`.
pub(super) fn get(client: &Client, args: &GetArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let query = if args.stale { "?consistency=stale" } else { "" };
    let target = format!("{}{query}", target_of(&args.key));
    let answer = client.ask(&Ask::new(Method::GET, &target))?;
    if args.include {
        show_headers(&answer);
    }
    if answer.status != 200 {
        return Err(client.refusal(&answer));
    }
    match &args.out {
        Some(path) => fs::write(path, &answer.body)
            .map_err(|error| Failure::Failed(format!("{} cannot be written: {error}", path.display()))),
        None if args.json => json_line(&Found::of(&args.key, &answer), out),
        None => Ok(out.write_all(&answer.body)?),
    }
}

/// `chordkv put KEY [VALUE]`.
pub(super) fn put(client: &Client, args: &PutArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let value = value_of(args.value.as_deref())?;
    let query = args.ttl.as_ref().map(|ttl| format!("?ttl={}", encode(ttl.as_bytes())));
    let target = format!("{}{}", target_of(&args.key), query.unwrap_or_default());
    let headers = [
        ("If-Match", args.if_match.as_deref()),
        ("If-None-Match", args.if_none_match.as_deref()),
        ("Content-Type", args.content_type.as_deref()),
    ];
    let headers: Vec<_> = headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let answer = client.ask(&Ask { method: Method::PUT, target: &target, headers: &headers, body: &value })?;
    if !matches!(answer.status, 201 | 204) {
        return Err(client.refusal(&answer));
    }
    let created = answer.status == 201;
    let etag = one_line(answer.header("etag").unwrap_or_default());
    if args.json {
        let (key, key_base64) = text_or_base64(args.key.as_bytes());
        return json_line(&Written { key, key_base64, etag: &etag, created }, out);
    }
    writeln!(out, "{} {}", etag.trim_matches('"'), if created { "created" } else { "replaced" })?;
    Ok(())
}

/// `chordkv del KEY`.
pub(super) fn del(client: &Client, args: &DelArgs) -> Result<(), Failure> {
    let headers: Vec<_> = args.if_match.iter().map(|etag| ("If-Match", etag.as_str())).collect();
    let target = target_of(&args.key);
    let answer = client.ask(&Ask { method: Method::DELETE, target: &target, headers: &headers, body: &[] })?;
    if answer.status == 204 { Ok(()) } else { Err(client.refusal(&answer)) }
}

/// The JSON of `get`. Names are those of a listing.
#[derive(Serialize)]
struct Found<'a> {
    key: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    key_base64: bool,
    size: usize,
    etag: Option<&'a str>,
    content_type: Option<&'a str>,
    expires_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_age: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl<'a> Found<'a> {
    fn of(key: &Key, answer: &'a Answer) -> Self {
        let seconds = |name| answer.header(name).and_then(|text| text.parse().ok());
        let (key, key_base64) = text_or_base64(key.as_bytes());
        let value = std::str::from_utf8(&answer.body).ok();
        Self {
            key,
            key_base64,
            size: answer.body.len(),
            etag: answer.header("etag"),
            content_type: answer.header("content-type"),
            expires_in: seconds("x-chord-expires-in"),
            stale_age: seconds("x-chord-stale-age"),
            value,
            value_base64: value.is_none().then(|| STANDARD.encode(&answer.body)),
        }
    }
}

/// The JSON of `put`.
#[derive(Serialize)]
struct Written<'a> {
    key: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    key_base64: bool,
    etag: &'a str,
    created: bool,
}

/// As in a listing: text where it is UTF-8, else base64 and true.
pub(super) fn text_or_base64(bytes: &[u8]) -> (String, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (STANDARD.encode(bytes), true),
    }
}

fn json_line(document: &impl Serialize, out: &mut dyn Write) -> Result<(), Failure> {
    // Strings and numbers always serialize.
    let line = serde_json::to_string(document).map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(writeln!(out, "{line}")?)
}

pub(super) fn target_of(key: &Key) -> String {
    format!("/v1/kv/{}", encode(key.as_bytes()))
}

fn show_headers(answer: &Answer) {
    let mut shown = format!("HTTP {}\n", answer.status);
    for (name, value) in &answer.headers {
        let value = one_line(&String::from_utf8_lossy(value.as_bytes()));
        shown.extend([name.as_str(), ": ", &value, "\n"]);
    }
    // The value still counts where nobody reads the headers.
    let _ = writeln!(io::stderr(), "{shown}");
}

/// The argument itself, a file (`@FILE`), or standard input (`-` or nothing).
fn value_of(argument: Option<&OsStr>) -> Result<Vec<u8>, Failure> {
    let Some(argument) = argument.filter(|argument| *argument != "-") else {
        return read_all(io::stdin().lock(), "standard input");
    };
    let bytes = argument.as_encoded_bytes();
    let Some(rest) = bytes.strip_prefix(b"@") else { return Ok(bytes.to_vec()) };
    if rest.is_empty() {
        return Err(Failure::Usage(
            "@ stands before the name of a file; to put the text @, write it to standard input".to_owned(),
        ));
    }
    let path = after_first_byte(argument);
    let name = path.display().to_string();
    let file = File::open(&path).map_err(|error| Failure::Failed(format!("{name} cannot be read: {error}")))?;
    read_all(file, &name)
}

#[cfg(unix)]
fn after_first_byte(text: &OsStr) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    Path::new(OsStr::from_bytes(text.as_bytes().get(1..).unwrap_or_default())).to_owned()
}

/// Where names of files are text, they are taken as text.
#[cfg(not(unix))]
fn after_first_byte(text: &OsStr) -> std::path::PathBuf {
    Path::new(text.to_string_lossy().get(1..).unwrap_or_default()).to_owned()
}

/// At most as many bytes as the largest value of any ring.
fn read_all(source: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let limit = VALUE_BYTES_LIMIT as u64;
    source
        .take(limit + 1)
        .read_to_end(&mut value)
        .map_err(|error| Failure::Failed(format!("{name} cannot be read: {error}")))?;
    if value.len() > VALUE_BYTES_LIMIT {
        let limit = VALUE_BYTES_LIMIT >> 20;
        return Err(Failure::Failed(format!("{name} has more than {limit} MiB, the largest value of any ring")));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_from_the_argument_or_a_file() {
        assert_eq!(value_of(Some(OsStr::new("a b"))).unwrap(), b"a b");
        assert_eq!(value_of(Some(OsStr::new(""))).unwrap(), b"");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v");
        fs::write(&path, b"\0\xff").unwrap();
        let argument = |path: &Path| format!("@{}", path.display());
        assert_eq!(value_of(Some(OsStr::new(&argument(&path)))).unwrap(), b"\0\xff");
        let missing = value_of(Some(OsStr::new(&argument(&dir.path().join("w"))))).unwrap_err();
        assert!(missing.to_string().contains("w cannot be read"), "{missing}");
        assert_eq!(value_of(Some(OsStr::new("@"))).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn more_than_any_ring_takes_is_refused_before_it_is_sent() {
        assert_eq!(read_all(io::repeat(7).take(VALUE_BYTES_LIMIT as u64), "x").unwrap().len(), VALUE_BYTES_LIMIT);
        assert!(read_all(io::repeat(7), "x").unwrap_err().to_string().contains("more than 3 MiB"));
    }
}
