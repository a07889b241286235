//! The shape of the source tree, kept by a test: layers, lengths of files and functions, no machine's paths.
//!
//! A file imports only from layers below its own, or from its own folder (`ARCHITECTURE.md`).

#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folder, layer, crates of others that it may use.
const FOLDERS: &[(&str, u32, &[&str])] = &[
    ("base", 0, &["sha1"]),
    ("data", 1, &["serde", "serde_json", "base64", "httpdate", "humantime", "percent_encoding", "subtle"]),
    ("overlay", 2, &[]),
    ("replication", 2, &["libm"]),
    ("node", 3, &["serde", "serde_json"]),
    ("wire", 4, &["prost"]),
    (
        "driver",
        5,
        &[
            "mio",
            "tiny_http",
            "httparse",
            "crossbeam_channel",
            "serde",
            "serde_json",
            "tracing",
            "rustix",
            "signal_hook",
            "signal_hook_mio",
            "socket2",
            "getrandom",
            "base64",
            "snow",
            "rusqlite",
            "crc32fast",
        ],
    ),
    ("sim", 5, &[]),
    (
        "cli",
        6,
        &[
            "clap",
            "hdrhistogram",
            "httparse",
            "mio",
            "tracing",
            "tracing_subscriber",
            "toml",
            "ureq",
            "libm",
            "serde",
            "serde_json",
            "base64",
            "percent_encoding",
        ],
    ),
];

/// `replication` builds on Data, `overlay` does not; neither knows the other. `sim` and `driver` neither.
const APART: &[(&str, &str)] = &[
    ("overlay", "data"),
    ("overlay", "replication"),
    ("replication", "overlay"),
    ("sim", "driver"),
    ("driver", "sim"),
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

struct Source {
    path: PathBuf,
    folder: String,
    /// Without the tests at its end, and without comments.
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut all = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the source tree is readable") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                all.extend(source(&root, path));
            }
        }
    }
    assert!(all.len() > 30, "the source tree was not found");
    all
}

/// `None` for generated code and for tests in a file of their own.
fn source(root: &Path, path: PathBuf) -> Option<Source> {
    let name = path.file_name()?.to_str()?;
    if name == "pb.rs" || name == "tests.rs" {
        return None;
    }
    let text = fs::read_to_string(&path).ok()?;
    let text = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let inside = path.strip_prefix(root).ok()?;
    let folder =
        if inside.components().count() > 1 { inside.iter().next()?.to_str()?.to_owned() } else { String::new() };
    Some(Source { folder, code, lines: text.lines().count(), path })
}

/// The names that follow `prefix` anywhere in the code, `{a, b::c}` groups included.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let word = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0_i32;
            let mut start = 0;
            for (at, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => {
                        names.insert(word(&group[start..at]));
                        break;
                    }
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        names.insert(word(&group[start..at]));
                        start = at + 1;
                    }
                    _ => {}
                }
            }
        } else {
            names.insert(word(rest));
        }
    }
    names.remove("");
    names
}

#[test]
fn a_file_imports_only_from_layers_below_or_its_own_folder() {
    let layers: BTreeMap<&str, u32> = FOLDERS.iter().map(|(folder, layer, _)| (*folder, *layer)).collect();
    for source in sources().iter().filter(|source| !source.folder.is_empty()) {
        let own = layers.get(source.folder.as_str());
        let own = own.unwrap_or_else(|| panic!("{}: the folder has no layer", source.path.display()));
        for name in names_after(&source.code, "crate::") {
            let Some(layer) = layers.get(name.as_str()) else { continue };
            let apart = APART.contains(&(source.folder.as_str(), name.as_str()));
            assert!(
                name == source.folder || (layer < own && !apart),
                "{}: layer `{}` must not use `{name}`",
                source.path.display(),
                source.folder
            );
        }
    }
}

#[test]
fn a_folder_uses_only_the_crates_that_its_layer_is_for() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("Cargo.toml");
    let dependencies = manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split("\n[").next()).expect("some");
    let crates: Vec<String> = dependencies
        .lines()
        .filter_map(|line| line.split(['=', ' ']).next())
        .map(|name| name.replace('-', "_"))
        .collect();
    let allowed: BTreeMap<&str, &[&str]> = FOLDERS.iter().map(|(folder, _, crates)| (*folder, *crates)).collect();
    let mut used = BTreeSet::new();
    for source in sources().iter().filter(|source| !source.folder.is_empty()) {
        for name in crates.iter().filter(|name| !name.is_empty()) {
            if source.code.contains(&format!("{name}::")) {
                used.insert(name.clone());
                assert!(
                    allowed[source.folder.as_str()].contains(&name.as_str()),
                    "{}: layer `{}` must not use the crate `{name}`",
                    source.path.display(),
                    source.folder
                );
            }
        }
    }
    let unused: Vec<_> = crates.iter().filter(|name| !name.is_empty() && !used.contains(*name)).collect();
    assert!(unused.is_empty(), "Cargo.toml names crates that no layer uses: {unused:?}");
}

#[test]
fn files_and_functions_stay_short() {
    let mut long = Vec::new();
    for source in sources() {
        if source.lines > FILE_LINES_MAX {
            long.push(format!("{}: {} lines", source.path.display(), source.lines));
        }
        let lines: Vec<&str> = source.code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let trimmed = line.trim_start();
            let is_function = trimmed.starts_with("fn ") || trimmed.contains(" fn ") && trimmed.starts_with("pub");
            if !is_function || trimmed.ends_with(';') || trimmed.ends_with('}') {
                continue;
            }
            // rustfmt closes a function at the indentation that it began with.
            let end = format!("{}}}", &line[..line.len() - trimmed.len()]);
            let length = lines[at..].iter().position(|line| *line == end).map_or(0, |length| length + 1);
            if length > FUNCTION_LINES_MAX {
                long.push(format!("{}: {trimmed} has {length} lines", source.path.display()));
            }
        }
    }
    assert!(long.is_empty(), "too long:\n{}", long.join("\n"));
}

#[test]
fn no_dependency_is_without_its_line_in_architecture_md() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml");
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let tables =
        manifest.split("\n[").filter(|table| table.starts_with("dependencies]") || table.starts_with("dev-dep"));
    let missing: Vec<&str> = tables
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|line| line.split([' ', '=']).next())
        .filter(|name| !name.is_empty() && !map.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md does not say why these are here: {missing:?}");
}
