//! `watch`: changes of a key, or of all that begin the same, as they happen.

use std::io::Write;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::http::Method;

use super::args::WatchArgs;
use super::client::{Answer, Ask, Client, NoAnswer};
use super::failure::{Failure, say};
use super::list::{Item, Page, shown};
use super::text::{bytes, one_line};
use super::url::encode;
use crate::base::limits::LIST_LIMIT_MAX;

/// How long a node is asked to wait for a change.
const WAIT: Duration = Duration::from_secs(60);
/// Beside it, for the answer.
const MARGIN: Duration = Duration::from_secs(15);
/// Before a node that did not answer is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// `chordkv watch KEY`, `chordkv watch --prefix PREFIX`. Goes on for ever, unless told to end with the first change.
pub(super) fn watch(client: &Client, args: &WatchArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let client = client.within(WAIT + MARGIN);
    let what = match (&args.key, &args.prefix) {
        (Some(key), _) => format!("key={}", encode(key.as_bytes())),
        (None, prefix) => {
            format!("prefix={}", encode(prefix.as_ref().map(|of| of.as_encoded_bytes()).unwrap_or_default()))
        }
    };
    let mut watch = Watch { client, what, args, resume: String::new(), is_cut_off: false };
    watch.begin(out)?;
    loop {
        let events = watch.next(out)?;
        watch.show(&events, out)?;
        if args.once && !events.is_empty() {
            return Ok(());
        }
    }
}

struct Watch<'a> {
    client: Client,
    what: String,
    args: &'a WatchArgs,
    // Where to go on from.
    resume: String,
    // The node does not answer, which the user was told.
    is_cut_off: bool,
}

impl Watch<'_> {
    /// What is there of a key is the first change that is told; of many keys it is shown where that is asked for.
    fn begin(&mut self, out: &mut dyn Write) -> Result<(), Failure> {
        self.resume.clear();
        let answer = self.client.ask(&Ask::new(Method::GET, &self.target()))?;
        let events = self.take(&answer)?;
        if !self.args.once {
            self.show(&events, out)?;
            if self.args.existing {
                self.list(out)?;
            }
        }
        Ok(())
    }

    /// The next changes, perhaps none. A node that does not answer is asked until it does.
    fn next(&mut self, out: &mut dyn Write) -> Result<Vec<Event>, Failure> {
        match self.client.try_ask(&Ask::new(Method::GET, &self.target())) {
            Ok(answer) if answer.status == 410 => {
                say("changes were missed; the keys that are there now follow, and deleted ones are not named");
                self.resume.clear();
                Ok(Vec::new())
            }
            Ok(answer) if matches!(answer.status, 502..=504) => {
                self.wait_for_node(&self.client.refusal(&answer).to_string());
                Ok(Vec::new())
            }
            Ok(answer) => {
                let is_beginning = self.resume.is_empty();
                if std::mem::take(&mut self.is_cut_off) && !is_beginning {
                    say("the node answers again; nothing was missed");
                }
                let events = self.take(&answer)?;
                if is_beginning {
                    self.list(out)?;
                }
                Ok(events)
            }
            Err(NoAnswer::Refused(why) | NoAnswer::Unreachable(why) | NoAnswer::Lost(why)) => {
                self.wait_for_node(&why);
                Ok(Vec::new())
            }
        }
    }

    fn wait_for_node(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_cut_off, true) {
            say(&format!("{why}; trying again until it answers"));
        }
        thread::sleep(PAUSE);
    }

    fn target(&self) -> String {
        format!("/v1/watch?{}&resume={}&wait={}s", self.what, self.resume, WAIT.as_secs())
    }

    fn take(&mut self, answer: &Answer) -> Result<Vec<Event>, Failure> {
        if answer.status != 200 {
            return Err(self.client.refusal(answer));
        }
        let Document { events, resume } = self.client.read(&answer.body)?;
        self.resume = resume;
        Ok(events)
    }

    /// The keys that are there, page by page.
    fn list(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let Some(prefix) = self.args.prefix.as_ref() else { return Ok(()) };
        let prefix = encode(prefix.as_encoded_bytes());
        let mut cursor = String::new();
        loop {
            let target = format!("/v1/kv?prefix={prefix}&limit={LIST_LIMIT_MAX}&cursor={}", encode(cursor.as_bytes()));
            let (_, page): (_, Page) = self.client.document(&target)?;
            let put = |item| Event::Put { item, value: None, value_base64: false };
            self.show(&page.items.into_iter().map(put).collect::<Vec<_>>(), out)?;
            match page.cursor {
                Some(next) if next != cursor => cursor = next,
                _ => return Ok(()),
            }
        }
    }

    fn show(&self, events: &[Event], out: &mut dyn Write) -> Result<(), Failure> {
        for event in events {
            if self.args.json {
                // Strings and numbers always serialize.
                writeln!(out, "{}", serde_json::to_string(event).unwrap_or_default())?;
                continue;
            }
            match event {
                Event::Put { item, .. } => {
                    let etag = one_line(item.etag.trim_matches('"'));
                    writeln!(out, "put {} {} {etag}", item.shown(), bytes(item.size).replace(' ', ""))?;
                }
                Event::Delete { key, key_base64 } => writeln!(out, "delete {}", shown(key, *key_base64))?,
            }
        }
        // Whoever reads sees each change at once.
        Ok(out.flush()?)
    }
}

#[derive(Deserialize)]
struct Document {
    events: Vec<Event>,
    resume: String,
}

#[derive(Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    Put {
        #[serde(flatten)]
        item: Item,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        value_base64: bool,
    },
    Delete {
        key: String,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        key_base64: bool,
    },
}
