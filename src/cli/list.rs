//! `ls`: the keys of the whole ring, page by page.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::args::LsArgs;
use super::client::Client;
use super::failure::Failure;
use super::table::{Align, Table};
use super::text::{bytes, escaped, one_line, seconds};
use super::url::encode;
use crate::base::limits::LIST_LIMIT_MAX;

/// `chordkv ls [PREFIX]`. Each page is written before the next is asked for.
pub(super) fn ls(client: &Client, args: &LsArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let prefix = args.prefix.as_ref().map(|prefix| encode(prefix.as_encoded_bytes())).unwrap_or_default();
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut cursor = String::new();
    let mut table = Table::new(&COLUMNS);
    loop {
        let limit = left.min(LIST_LIMIT_MAX as u64);
        let target = format!("/v1/kv?prefix={prefix}&limit={limit}&cursor={}", encode(cursor.as_bytes()));
        let (_, page): (_, Page) = client.document(&target)?;
        left = left.saturating_sub(page.items.len() as u64);
        write_page(&page.items, args, &mut table, out)?;
        match page.cursor {
            // The same cursor again would never end.
            Some(next) if next == cursor => {
                return Err(Failure::Failed(format!(
                    "{} sent the same page twice; the listing is incomplete",
                    client.node()
                )));
            }
            Some(next) if left > 0 => cursor = next,
            _ => return Ok(()),
        }
        // Whoever reads sees each page at once, and a closed pipe ends the loop.
        out.flush()?;
    }
}

#[derive(Deserialize)]
pub(super) struct Page {
    pub items: Vec<Item>,
    pub cursor: Option<String>,
}

#[derive(Deserialize, Serialize)]
pub(super) struct Item {
    pub key: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub key_base64: bool,
    pub size: u64,
    pub etag: String,
    content_type: String,
    expires_in: Option<u64>,
}

impl Item {
    /// The key for a terminal.
    pub fn shown(&self) -> String {
        shown(&self.key, self.key_base64)
    }
}

/// A key for a terminal.
pub(super) fn shown(key: &str, is_base64: bool) -> String {
    let decoded = if is_base64 { STANDARD.decode(key).ok() } else { None };
    escaped(decoded.as_deref().unwrap_or(key.as_bytes()))
}

fn write_page(items: &[Item], args: &LsArgs, table: &mut Table, out: &mut dyn Write) -> Result<(), Failure> {
    for item in items {
        if args.json {
            // Strings and numbers always serialize.
            writeln!(out, "{}", serde_json::to_string(item).unwrap_or_default())?;
        } else if args.long {
            table.push([
                bytes(item.size),
                item.expires_in.map_or_else(|| "never".to_owned(), seconds),
                one_line(&item.content_type),
                one_line(item.etag.trim_matches('"')),
                item.shown(),
            ]);
        } else {
            writeln!(out, "{}", item.shown())?;
        }
    }
    if args.long {
        table.write(out)?;
    }
    Ok(())
}

/// The key is last: it alone can be long.
const COLUMNS: [(&str, Align); 5] = [
    ("SIZE", Align::Right),
    ("EXPIRES", Align::Right),
    ("TYPE", Align::Left),
    ("ETAG", Align::Left),
    ("KEY", Align::Left),
];
