//! The config file: TOML, one key for each long option of `chordkv node`, underscores for hyphens.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::args::ConfigCheckArgs;
use super::failure::Failure;
use super::said::NodeArgs;
use super::text::one_line;

/// `chordkv config check FILE`.
pub(super) fn check(args: &ConfigCheckArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let (_, problems) = parse(&read(&args.file)?);
    let name = args.file.display();
    if args.json {
        let document = Report { ok: problems.is_empty(), problems: &problems };
        // Booleans, numbers and strings always serialize.
        writeln!(out, "{}", serde_json::to_string(&document).unwrap_or_default())?;
    } else {
        for problem in &problems {
            writeln!(out, "{name}:{}: {}", problem.line, problem.message)?;
        }
        if problems.is_empty() {
            writeln!(out, "{name}: ok")?;
        }
    }
    match problems.len() {
        0 => Ok(()),
        1 => Err(Failure::Failed(format!("{name} has 1 problem"))),
        n => Err(Failure::Failed(format!("{name} has {n} problems"))),
    }
}

/// What a config file says, for the node that is to run with it.
pub(super) fn load(path: &Path) -> Result<NodeArgs, Failure> {
    let (said, problems) = parse(&read(path)?);
    let Some(first) = problems.first() else { return Ok(said) };
    let name = path.display();
    let rest = match problems.len() {
        1 => String::new(),
        n => format!("; all {n} problems: chordkv config check {name}"),
    };
    Err(Failure::Usage(format!("{name}:{}: {}{rest}", first.line, first.message)))
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    problems: &'a [Problem],
}

/// Something wrong in a config file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Problem {
    /// Counted from 1.
    line: usize,
    message: String,
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |reason: &str| Failure::Failed(format!("{} cannot be read: {reason}", path.display()));
    let file = File::open(path).map_err(|error| failed(&error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(&error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8"))
}

/// The same, and nothing of it.
#[cfg(any(test, fuzzing))]
pub(super) fn understand(text: &str) {
    let (said, _) = parse(text);
    let _ = said.wishes();
}

/// What the text says, and what is wrong with it in the order of lines.
fn parse(text: &str) -> (NodeArgs, Vec<Problem>) {
    let line = |offset: usize| 1 + text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count();
    let mut said = NodeArgs::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What can be read of a file with broken lines would only raise further, wrong complaints.
        let problem = |error: &toml::de::Error| Problem {
            line: error.span().map_or(1, |span| line(span.start)),
            message: one_line(error.message()),
        };
        return (said, errors.iter().map(problem).collect());
    }
    let mut problems = Vec::new();
    for (key, value) in table.get_ref() {
        if let Err(message) = set(&mut said, key.get_ref(), value.get_ref()) {
            problems.push(Problem { line: line(key.span().start), message });
        }
    }
    problems.sort_by_key(|problem| problem.line);
    if problems.is_empty()
        && let Err(message) = said.wishes()
    {
        let named = table.get_ref().iter().find(|(key, _)| key.get_ref() == "slot_bits");
        problems.push(Problem { line: named.map_or(1, |(key, _)| line(key.span().start)), message });
    }
    (said, problems)
}

fn set(said: &mut NodeArgs, key: &str, value: &DeValue<'_>) -> Result<(), String> {
    if !NodeArgs::NAMES.contains(&key) {
        return Err(unknown(key));
    }
    let is_its_kind = match value {
        DeValue::Array(_) => LISTS.contains(&key),
        DeValue::Boolean(_) => key == "insecure",
        _ => true,
    };
    let text = text_of(value).filter(|_| is_its_kind);
    let text = text.ok_or_else(|| match key {
        "join" => "join: an array of texts is expected, such as [\"kv1:4000\", \"kv2:4000\"]".to_owned(),
        "cors_origin" => "cors_origin: an array of texts is expected, such as [\"https://app.example.org\"]".to_owned(),
        _ => format!("{key}: a text in quotes or a whole number is expected, not {}", article(value.type_str())),
    })?;
    if text.is_empty() && key == "join" {
        said.join = Some(Vec::new());
        return Ok(());
    }
    if text.is_empty() && key == "cors_origin" {
        said.cors_origin = Some(Vec::new());
        return Ok(());
    }
    said.set(key, &text).map_err(|reason| format!("{key} = {text:?}: {reason}"))
}

/// The same text as a flag would have; an array becomes a list with commas.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Boolean(is) => Some(is.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Integer(number) => Some(u64::from_str_radix(number.as_str(), number.radix()).ok()?.to_string()),
        DeValue::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(|item| item.get_ref().as_str()).collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}

fn unknown(key: &str) -> String {
    let meant = key.replace('-', "_");
    if NodeArgs::NAMES.contains(&meant.as_str()) {
        return format!("unknown key {key:?}; write {meant}");
    }
    format!("unknown key {key:?}; there are {}", NodeArgs::NAMES.join(", "))
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

/// Keys whose values may be arrays.
const LISTS: [&str; 2] = ["join", "cors_origin"];
const FILE_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(usize, String)> {
        parse(text).1.into_iter().map(|problem| (problem.line, problem.message)).collect()
    }

    #[test]
    fn a_file_says_what_flags_say() {
        let text = "# a node\nlisten = \"127.0.0.1:4001\"\njoin = [\"a:1\", \"b:2\"]\ncapacity = 0x14\nslot_bits = 1_0\n\
                    max_value = 1_000_000\nsuccessors = \"5\"\ninsecure = true\nlog_level = \"debug\"\n";
        let (said, wrong) = parse(text);
        assert_eq!(wrong, []);
        assert_eq!(said.listen.unwrap().port(), 4_001);
        assert_eq!(said.join.unwrap().len(), 2);
        assert_eq!(
            (said.capacity, said.slot_bits, said.max_value, said.successors),
            (Some(20), Some(10), Some(1_000_000), Some(5))
        );
        assert_eq!(said.insecure, Some(true));
        assert_eq!(parse("").0, NodeArgs::default());
        assert_eq!(parse("join = []").0.join, Some(vec![]));
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let text = "\nlog-level = \"info\"\ncapacity = 161\nreplicas = true\n\njoin = [1]\ndatadir = \"x\"\nhttp = \"\"\n\
                    successors = -1\nrequest_timeout = 1.5\n[node]\nlisten = \"x\"\n";
        let expected = [
            (2, "unknown key \"log-level\"; write log_level"),
            (3, "capacity = \"161\": it is a number of bits from 1 to 160"),
            (4, "replicas: a text in quotes or a whole number is expected, not a boolean"),
            (6, "join: an array of texts is expected"),
            (7, "unknown key \"datadir\"; there are listen, "),
            (8, "http = \"\": write an IP address"),
            (9, "successors = \"-1\": it is a number of successors from 1 to 64"),
            (10, "request_timeout: a text in quotes or a whole number is expected, not a float"),
            (11, "unknown key \"node\"; there are"),
        ];
        let found = problems(text);
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for ((line, message), (expected_line, says)) in found.iter().zip(expected) {
            assert!(
                *line == expected_line && message.contains(says),
                "{line}: {message}, expected {expected_line}: {says}"
            );
        }
    }

    #[test]
    fn what_is_no_toml_is_named_with_its_line() {
        for (text, line) in
            [("capacity = 1\nlisten = \n", 2), ("a b\n", 1), ("capacity = 1\n\ncapacity = 2\n", 3), ("x = \"", 1)]
        {
            let found = problems(text);
            assert_eq!(found[0].0, line, "{text:?}: {found:?}");
            assert!(!found[0].1.is_empty() && !found[0].1.contains('\n'), "{found:?}");
        }
    }

    #[test]
    fn settings_that_exclude_each_other_are_found() {
        assert_eq!(problems("capacity = 4\nslot_bits = 5")[0].0, 2);
        assert!(problems("capacity = 4\nslot_bits = 5")[0].1.contains("at most the capacity (4)"));
    }
}
