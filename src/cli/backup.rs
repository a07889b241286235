//! `export` and `import`: the keys of a ring to and from a stream of JSON objects, one a line.
//!
//! The stream knows nothing of nodes and slots: what was written by one ring goes into another of any size.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use ureq::http::Method;

use super::args::{ExportArgs, ImportArgs};
use super::client::{Answer, Ask, Client};
use super::failure::{Failure, say};
use super::kv::{target_of, text_or_base64};
use super::list::{Item, Page};
use super::progress::Bar;
use super::text::one_line;
use super::url::encode;
use crate::base::limits::{LIST_LIMIT_MAX, VALUE_BYTES_LIMIT};
use crate::data::Key;

/// One key and what is under it. Names are those of `get --json`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    key: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    key_base64: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    /// Of the ring that it came from; for people, as the next ring gives it a version of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

/// How often something is asked again that could not be done for the moment, and how long before.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(250);
/// The longest line: a value in base64 and room for the rest.
const LINE_BYTES_MAX: u64 = (VALUE_BYTES_LIMIT * 2) as u64;

/// `chordkv export`.
pub(super) fn export(client: &Client, args: &ExportArgs, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.out {
        None => export_to(client, args, out).map(drop),
        Some(path) => {
            let failed = |error: io::Error| Failure::Failed(format!("{} cannot be written: {error}", path.display()));
            let mut file = io::BufWriter::new(File::create(path).map_err(failed)?);
            let count = export_to(client, args, &mut file)?;
            let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
            file.sync_all().map_err(failed)?;
            say(&format!("{count} keys are in {}", path.display()));
            Ok(())
        }
    }
}

fn export_to(client: &Client, args: &ExportArgs, out: &mut dyn Write) -> Result<u64, Failure> {
    let scope = if args.only_this_node { "&scope=node" } else { "" };
    let prefix = args.prefix.as_ref().map(|prefix| encode(prefix.as_encoded_bytes())).unwrap_or_default();
    let (bar, expected) = (Bar::new(), expected(client, args));
    let (mut cursor, mut count) = (String::new(), 0);
    loop {
        let target =
            format!("/v1/kv?prefix={prefix}&limit={LIST_LIMIT_MAX}{scope}&cursor={}", encode(cursor.as_bytes()));
        let (_, page): (_, Page) = client.document(&target)?;
        for item in &page.items {
            if let Some(line) = fetch(client, item)? {
                // Strings and numbers always serialize.
                writeln!(out, "{}", serde_json::to_string(&line).unwrap_or_default())?;
                count += 1;
                bar.show(count * 1_000 / expected.max(count), "exporting");
            }
        }
        match page.cursor {
            Some(next) if next == cursor => {
                return Err(Failure::Failed(format!("{} sent the same page twice", client.node())));
            }
            Some(next) => cursor = next,
            None => return Ok(count),
        }
    }
}

/// About how many keys there are; only the bar depends on it.
fn expected(client: &Client, args: &ExportArgs) -> u64 {
    #[derive(Deserialize)]
    struct Ring {
        nodes: Vec<Node>,
    }
    #[derive(Deserialize)]
    struct Node {
        keys: u64,
    }
    let ring = client.document::<Ring>("/v1/ring").ok().filter(|_| args.prefix.is_none() && !args.only_this_node);
    ring.map_or(0, |(_, ring)| ring.nodes.iter().map(|node| node.keys).sum())
}

/// What is under a key; `None` if it was deleted since it was listed.
fn fetch(client: &Client, item: &Item) -> Result<Option<Line>, Failure> {
    let key = key_of(&item.key, item.key_base64)
        .map_err(|why| Failure::Failed(format!("{} listed a key that is none ({why})", client.node())))?;
    let target = target_of(&key);
    let answer = persistent(client, &Ask::new(Method::GET, &target))?;
    match answer.status {
        200 => Ok(Some(Line::of(&key, &answer, seconds_now()))),
        404 => Ok(None),
        _ => Err(client.refusal(&answer)),
    }
}

/// Asks again while the ring is busy with itself.
fn persistent(client: &Client, ask: &Ask<'_>) -> Result<Answer, Failure> {
    for _ in 1..TRIES {
        let answer = client.ask(ask)?;
        if !matches!(answer.status, 429 | 503) {
            return Ok(answer);
        }
        thread::sleep(PAUSE);
    }
    client.ask(ask)
}

impl Line {
    fn of(key: &Key, answer: &Answer, now: u64) -> Self {
        let header = |name| answer.header(name).map(str::to_owned);
        let (key, key_base64) = text_or_base64(key.as_bytes());
        let (value, is_base64) = text_or_base64(&answer.body);
        let expires_in: Option<u64> = answer.header("x-chord-expires-in").and_then(|text| text.parse().ok());
        let (value, value_base64) = if is_base64 { (None, Some(value)) } else { (Some(value), None) };
        Self {
            key,
            key_base64,
            value,
            value_base64,
            content_type: header("content-type"),
            etag: header("etag"),
            expires_at: expires_in.map(|seconds| now.saturating_add(seconds)),
        }
    }

    fn value(&self) -> Result<Vec<u8>, String> {
        match (&self.value, &self.value_base64) {
            (Some(text), None) => Ok(text.as_bytes().to_vec()),
            (None, Some(text)) => STANDARD.decode(text).map_err(|error| format!("value_base64: {error}")),
            _ => Err("it needs either value or value_base64".to_owned()),
        }
    }
}

fn key_of(text: &str, is_base64: bool) -> Result<Key, String> {
    let bytes = if is_base64 {
        STANDARD.decode(text).map_err(|error| format!("key: {error}"))?
    } else {
        text.as_bytes().to_vec()
    };
    Key::new(bytes).map_err(|error| error.to_string())
}

/// Key and value of a line.
#[cfg(any(test, fuzzing))]
pub(super) fn understand(line: &[u8]) -> Result<(Key, Vec<u8>), String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    Ok((key_of(&line.key, line.key_base64)?, line.value()?))
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

// ----- import -----

#[derive(Default)]
struct Imported {
    put: u64,
    kept: u64,
    expired: u64,
}

/// `chordkv import`.
pub(super) fn import(client: &Client, args: &ImportArgs) -> Result<(), Failure> {
    let imported = match args.file.as_ref().filter(|path| path.as_os_str() != "-") {
        None => import_from(client, args, BufReader::new(io::stdin()), None)?,
        Some(path) => {
            let failed = |error: io::Error| Failure::Failed(format!("{} cannot be read: {error}", path.display()));
            let file = File::open(path).map_err(failed)?;
            let bytes = file.metadata().map_err(failed)?.len();
            import_from(client, args, BufReader::new(file), Some(bytes))?
        }
    };
    let Imported { put, kept, expired } = imported;
    let kept = if kept > 0 { format!(", {kept} were there already") } else { String::new() };
    let expired = if expired > 0 { format!(", {expired} have expired") } else { String::new() };
    say(&format!("{put} keys are imported{kept}{expired}"));
    Ok(())
}

fn import_from(
    client: &Client,
    args: &ImportArgs,
    mut lines: impl BufRead,
    bytes: Option<u64>,
) -> Result<Imported, Failure> {
    let (bar, mut imported, mut done) = (Bar::new(), Imported::default(), 0);
    for number in 1_u64.. {
        let at = |why: String| Failure::Failed(format!("line {number}: {why}; the lines before it are imported"));
        let mut text = Vec::new();
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
        done += read.map_err(|error| at(format!("it cannot be read: {error}")))? as u64;
        if text.is_empty() {
            break;
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let line: Line = serde_json::from_slice(&text)
            .map_err(|error| at(format!("it is no line of an export: {}", one_line(&error.to_string()))))?;
        put_line(client, args, &line, &mut imported).map_err(|failure| at(failure.to_string()))?;
        if let Some(bytes) = bytes {
            bar.show(done * 1_000 / bytes.max(done), "importing");
        }
    }
    Ok(imported)
}

fn put_line(client: &Client, args: &ImportArgs, line: &Line, imported: &mut Imported) -> Result<(), Failure> {
    let key = key_of(&line.key, line.key_base64).map_err(Failure::Failed)?;
    let value = line.value().map_err(Failure::Failed)?;
    let left = line.expires_at.map(|at| at.saturating_sub(seconds_now()));
    if left == Some(0) {
        imported.expired += 1;
        return Ok(());
    }
    let ttl = left.map(|seconds| format!("?ttl={seconds}s")).unwrap_or_default();
    let target = format!("{}{ttl}", target_of(&key));
    let headers = [("Content-Type", line.content_type.as_deref()), ("If-None-Match", args.keep.then_some("*"))];
    let headers: Vec<_> = headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let answer = persistent(client, &Ask { method: Method::PUT, target: &target, headers: &headers, body: &value })?;
    match answer.status {
        201 | 204 => imported.put += 1,
        412 if args.keep => imported.kept += 1,
        _ => return Err(client.refusal(&answer)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_carry_any_bytes_and_need_one_value() {
        for (key, value) in [(&b"a/b"[..], &b"text"[..]), (b"\xff", b"\x00\xfe"), (b"\"", b"")] {
            let (key_text, key_base64) = text_or_base64(key);
            let (text, is_base64) = text_or_base64(value);
            let line = Line {
                key: key_text,
                key_base64,
                value: (!is_base64).then(|| text.clone()),
                value_base64: is_base64.then_some(text),
                content_type: None,
                etag: None,
                expires_at: Some(7),
            };
            let read: Line = serde_json::from_str(&serde_json::to_string(&line).unwrap()).unwrap();
            assert_eq!(read, line);
            assert_eq!(key_of(&read.key, read.key_base64).unwrap().as_bytes(), key);
            assert_eq!(read.value().unwrap(), value);
        }
        for bad in
            [r#"{"key":"a"}"#, r#"{"key":"a","value":"b","value_base64":"Yg=="}"#, r#"{"key":"a","value_base64":"!"}"#]
        {
            assert!(serde_json::from_str::<Line>(bad).unwrap().value().is_err(), "{bad}");
        }
    }
}
