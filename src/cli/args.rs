//! The grammar of the command line. What a value may be stands in `values`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::bench::{BENCH_EXAMPLES, BenchArgs};
use super::recover::{RECOVER_EXAMPLES, RecoverArgs};
use super::said::NodeArgs;
use super::sim::{SIM_EXAMPLES, SimArgs};
use super::url::NodeUrl;
use super::values;
use crate::data::Key;

/// A distributed key-value store on a Chord ring
#[derive(Clone, Debug, Parser)]
#[command(name = "chordkv", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[arg(id = ASK, long = "node", help = ASK_HELP, global = true, value_name = "URL", value_parser = NodeUrl::parse)]
    pub(super) ask: Option<NodeUrl>,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Cli {
    /// Reads arguments that begin with the program's name. The error is what to print, help and version too.
    pub fn parse_from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::grammar().try_get_matches_from(args)?)
    }

    /// The whole grammar. Commands that ask no node refuse `--node`.
    pub fn grammar() -> clap::Command {
        let refused = || {
            let arg = Arg::new(ASK).long("node").value_name("URL").hide(true).action(ArgAction::Set);
            arg.value_parser(|_: &str| Err::<NodeUrl, _>("this command asks no running node"))
        };
        let alone = ["node", "keygen"].into_iter();
        let grammar =
            alone.fold(Self::command(), |grammar, command| grammar.mut_subcommand(command, |it| it.arg(refused())));
        [("config", "check"), ("sim", "figures")].into_iter().fold(grammar, |grammar, (command, below)| {
            let both = |it: clap::Command| it.arg(refused()).mut_subcommand(below, |below| below.arg(refused()));
            grammar.mut_subcommand(command, both)
        })
    }
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// Run a node: create a ring, or join one with --join
    #[command(after_help = NODE_EXAMPLES)]
    Node(Box<NodeCommand>),
    /// Let a node leave its ring in order: its keys move first, then its process ends
    #[command(after_help = LEAVE_EXAMPLES)]
    Leave(LeaveArgs),
    /// Make a ring key, with which nodes let only each other into their ring
    #[command(after_help = KEYGEN_EXAMPLES)]
    Keygen(KeygenArgs),
    /// Print the value under a key
    #[command(after_help = GET_EXAMPLES)]
    Get(GetArgs),
    /// Put a value under a key
    #[command(after_help = PUT_EXAMPLES)]
    Put(PutArgs),
    /// Delete a key
    #[command(after_help = DEL_EXAMPLES)]
    Del(DelArgs),
    /// List the keys of the whole ring
    #[command(after_help = LS_EXAMPLES)]
    Ls(LsArgs),
    /// Tell of changes of a key, or of all keys that begin the same, as they happen
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(WatchArgs),
    /// Write all keys to a stream of JSON lines, for a backup or another ring
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Put what an export wrote
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(ImportArgs),
    /// Show every node of the ring
    #[command(after_help = RING_EXAMPLES)]
    Ring(JsonArgs),
    /// Show one node: its neighbours, fingers and store
    #[command(after_help = STATUS_EXAMPLES)]
    Status(JsonArgs),
    /// Show where a key lives and how a lookup gets there, hop by hop
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(TraceArgs),
    /// Tell by the exit code whether a node is ready
    #[command(after_help = HEALTH_EXAMPLES)]
    Health(HealthArgs),
    /// After nodes were lost for good: say which keys cannot be served, and go on with what is left of them
    #[command(after_help = RECOVER_EXAMPLES)]
    Recover(RecoverArgs),
    /// Measure how many requests a ring answers, and how soon
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Box<BenchArgs>),
    /// Simulate a ring: what churn, failures and distance do to it
    #[command(after_help = SIM_EXAMPLES)]
    Sim(Box<SimArgs>),
    /// Work on configuration files
    #[command(subcommand, after_help = CONFIG_EXAMPLES)]
    Config(ConfigCommand),
}

#[derive(Clone, Debug, Args)]
pub(super) struct NodeCommand {
    #[arg(long, help = CONFIG_HELP, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Stop as on SIGTERM when standard input ends
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
    #[command(flatten)]
    pub said: NodeArgs,
}

#[derive(Clone, Debug, Args)]
pub(super) struct JsonArgs {
    /// Print the node's JSON document
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub(super) struct LeaveArgs {
    /// How long to wait for the node to be gone
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::wait)]
    pub timeout: Duration,
    /// Return as soon as the node has begun to leave
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,
}

#[derive(Clone, Debug, Args)]
pub(super) struct KeygenArgs {
    /// The file to make; one that is there already is left alone
    pub file: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(super) struct HealthArgs {
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = values::wait)]
    pub timeout: Duration,
    /// Print the node's JSON document
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub(super) struct GetArgs {
    /// The key, any bytes
    #[arg(value_parser = key())]
    pub key: Key,
    /// Write the value to a file instead of standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub out: Option<PathBuf>,
    /// Take the value of any replica, perhaps an old one
    #[arg(long)]
    pub stale: bool,
    /// Print the headers of the answer to standard error
    #[arg(long)]
    pub include: bool,
    /// Print a JSON object with the value and what is known about it
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub(super) struct PutArgs {
    /// The key, any bytes
    #[arg(value_parser = key())]
    pub key: Key,
    /// The value; @FILE takes it from a file, - or nothing from standard input
    #[arg(allow_negative_numbers = true)]
    pub value: Option<OsString>,
    /// Let the value expire after this time
    #[arg(long, value_name = "DURATION", value_parser = values::ttl)]
    pub ttl: Option<String>,
    /// Only if the version under the key is this one
    #[arg(long, value_name = "ETAG", value_parser = values::etag)]
    pub if_match: Option<String>,
    /// Only if there is no value (*), or another version than this one
    #[arg(long, value_name = "*|ETAG", value_parser = values::etag)]
    pub if_none_match: Option<String>,
    /// Media type to keep with the value
    #[arg(long, value_name = "TYPE", value_parser = values::content_type)]
    pub content_type: Option<String>,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub(super) struct DelArgs {
    /// The key, any bytes
    #[arg(value_parser = key())]
    pub key: Key,
    /// Only if the version under the key is this one
    #[arg(long, value_name = "ETAG", value_parser = values::etag)]
    pub if_match: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct LsArgs {
    /// Only keys that begin so
    pub prefix: Option<OsString>,
    /// At most so many keys
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// A table with size, time to live, type and etag
    #[arg(long, conflicts_with = "json")]
    pub long: bool,
    /// Print one JSON object a line (NDJSON)
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub(super) struct WatchArgs {
    /// The key, any bytes; what is there now comes first
    #[arg(value_parser = key(), required_unless_present = "prefix", conflicts_with = "prefix")]
    pub key: Option<Key>,
    /// All keys that begin so; the empty text for every key
    #[arg(long)]
    pub prefix: Option<OsString>,
    /// Show the keys that are there already first
    #[arg(long, requires = "prefix")]
    pub existing: bool,
    /// End with the first change from now on
    #[arg(long, conflicts_with = "existing")]
    pub once: bool,
    /// Print one JSON object a line (NDJSON), with the value
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub(super) struct ExportArgs {
    /// Only keys that begin so
    pub prefix: Option<OsString>,
    /// Write to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Only the keys that the node asked (--node) holds itself
    #[arg(long)]
    pub only_this_node: bool,
}

#[derive(Clone, Debug, Args)]
pub(super) struct ImportArgs {
    /// What an export wrote; - or nothing for standard input
    pub file: Option<PathBuf>,
    /// Leave keys alone that are there already
    #[arg(long)]
    pub keep: bool,
}

#[derive(Clone, Debug, Args)]
pub(super) struct TraceArgs {
    /// The key, any bytes; it need not exist
    #[arg(value_parser = key())]
    pub key: Key,
    /// Print the node's JSON document
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say what is wrong with a configuration file, by line
    #[command(after_help = CONFIG_EXAMPLES)]
    Check(ConfigCheckArgs),
}

#[derive(Clone, Debug, Args)]
pub(super) struct ConfigCheckArgs {
    /// The TOML file
    pub file: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

fn key() -> impl TypedValueParser<Value = Key> {
    OsStringValueParser::new().try_map(values::key)
}

/// The id of the global `--node`.
const ASK: &str = "ask";
const ASK_HELP: &str = "Node to ask [env: CHORDKV_NODE] [default: http://127.0.0.1:8000]";
const CONFIG_HELP: &str = "TOML file with any long option below, underscores for hyphens [env: CHORDKV_CONFIG]";

const EXAMPLES: &str = "\
Examples:
  chordkv node
  chordkv node --listen 127.0.0.1:4001 --http 127.0.0.1:8001 --join 127.0.0.1:4000
  chordkv put greeting hello
  chordkv --node 127.0.0.1:8001 get greeting
  chordkv ring

A token that a node asks for is taken from CHORDKV_TOKEN, or from the file that
CHORDKV_TOKEN_FILE names.

Data goes to standard output, messages to standard error. The exit code is 0 on
success, 1 if the operation failed, 2 if the command is wrong.";

const NODE_EXAMPLES: &str = "\
Every option can also be given in the environment (CHORDKV_SLOT_BITS=8) or in the file of
--config (slot_bits = 8). A flag counts before the environment, that before the file.

Examples:
  chordkv node
  chordkv node --listen 127.0.0.1:4001 --http 127.0.0.1:8001 --join 127.0.0.1:4000
  chordkv node --listen 0.0.0.0:4000 --advertise kv1.example.org:4000 --ring-key-file ring.key
  chordkv node --config /etc/chordkv.toml --log-format json";

const LEAVE_EXAMPLES: &str = "\
Examples:
  chordkv leave
  chordkv leave --node 127.0.0.1:8001 --timeout 5m";

const KEYGEN_EXAMPLES: &str = "\
Copy the file to every host, readable for the node's user only, and name it to each node with
--ring-key-file. How to change the key of a ring stands in SECURITY.md.

Examples:
  chordkv keygen /etc/chordkv/ring.key
  chordkv node --listen 0.0.0.0:4000 --advertise kv1:4000 --ring-key-file /etc/chordkv/ring.key";

const GET_EXAMPLES: &str = "\
The exit code is 1 if there is no value under the key.

Examples:
  chordkv get greeting
  chordkv get photos/cat.jpg --out cat.jpg
  chordkv get greeting --json | jq -r .etag";

const PUT_EXAMPLES: &str = "\
Prints the etag of the new version and whether the key was created or replaced. The exit
code is 1 if a precondition did not hold. A value that begins with - stands after --, one
that begins with @ comes through standard input.

Examples:
  chordkv put greeting hello
  chordkv put photos/cat.jpg @cat.jpg --content-type image/jpeg
  date | chordkv put last-backup --ttl 24h
  chordkv put locks/a me --if-none-match '*' --ttl 30s
  chordkv put greeting hi --if-match 1-2a-00000000000000000000000000000abc";

const DEL_EXAMPLES: &str = "\
Prints nothing. The exit code is 1 if there is no value under the key.

Examples:
  chordkv del greeting
  chordkv del greeting --if-match 1-2a-00000000000000000000000000000abc";

const LS_EXAMPLES: &str = "\
Keys come in the order of their bytes, one a line. Bytes that are not printable text are
shown as \\xNN and a backslash as \\\\; --json has exact keys (base64 where key_base64 is true).

Examples:
  chordkv ls
  chordkv ls photos/ --long
  chordkv ls --limit 10 --json";

const WATCH_EXAMPLES: &str = "\
A line for each change: put KEY SIZE ETAG, or delete KEY, also where a key has expired. Of
changes that follow each other closely only the latest may be told. It goes on until it is
stopped, also when the node is started again meanwhile.

Examples:
  chordkv watch config/app
  chordkv watch --prefix jobs/ --existing
  chordkv watch --once config/app
  chordkv watch --prefix= --json";

const EXPORT_EXAMPLES: &str = "\
One JSON object a line: key, value (or value_base64), content_type, etag and expires_at, in the
order of the keys. Each key is as it was at some moment of the export.

Examples:
  chordkv export --out backup.ndjson
  chordkv export users/ | gzip > users.ndjson.gz
  chordkv export --node 127.0.0.1:8001 --only-this-node --out node-1.ndjson";

const IMPORT_EXAMPLES: &str = "\
Into a ring of any size. Every key gets a new version; one that has expired meanwhile is left
out. Started again after a failure, it puts the same keys again.

Examples:
  chordkv import backup.ndjson
  gunzip -c users.ndjson.gz | chordkv import --keep";

const RING_EXAMPLES: &str = "\
Examples:
  chordkv ring
  chordkv ring --json | jq -r '.nodes[].addr'";

const STATUS_EXAMPLES: &str = "\
Examples:
  chordkv status
  chordkv status --node 127.0.0.1:8001 --json";

const TRACE_EXAMPLES: &str = "\
Examples:
  chordkv trace greeting
  chordkv trace greeting --json";

const HEALTH_EXAMPLES: &str = "\
Prints ok, or each failed check; the exit code is 0 or 1.

Examples:
  chordkv health
  chordkv health --node 127.0.0.1:8001 --timeout 500ms";

const CONFIG_EXAMPLES: &str = "\
Examples:
  chordkv config check /etc/chordkv.toml";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::parse_from_args(std::iter::once("chordkv").chain(args.iter().copied()).map(OsString::from))
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::grammar().debug_assert();
        Cli::command().debug_assert();
    }

    /// The words of a shell command, up to a pipe.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
        for c in line.chars().chain([' ']) {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted && !word.is_empty() => words.push(std::mem::take(&mut word)),
                ' ' if !quoted => {}
                c => word.push(c),
            }
        }
        words.split(|word| word == "|").find(|part| part[0] == "chordkv").unwrap().to_vec()
    }

    fn examples_of(command: &mut clap::Command) -> usize {
        let help = command.render_long_help().to_string();
        let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{}", command.get_name()));
        let lines: Vec<&str> = examples.lines().take_while(|line| line.starts_with("  ")).collect();
        for line in &lines {
            let parsed = Cli::parse_from_args(words(line).into_iter().map(OsString::from));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        let below = command.get_subcommands_mut().filter(|below| below.get_name() != "help");
        lines.len() + below.map(examples_of).sum::<usize>()
    }

    #[test]
    fn every_example_of_every_help_is_a_right_command() {
        assert!(examples_of(&mut Cli::grammar()) > 20);
    }

    #[test]
    fn the_node_to_ask_may_stand_before_or_after_the_command() {
        for args in [["--node", "a:1", "ring"], ["ring", "--node", "a:1"]] {
            assert_eq!(parse(&args).unwrap().ask, Some(NodeUrl::parse("a:1").unwrap()));
        }
        assert!(parse(&["ring"]).unwrap().ask.is_none());
        for args in [&["node", "--node", "a:1"][..], &["config", "check", "--node", "a:1", "f"]] {
            assert!(parse(args).unwrap_err().to_string().contains("asks no running node"), "{args:?}");
        }
        assert!(
            !Cli::grammar().find_subcommand_mut("node").unwrap().render_long_help().to_string().contains("--node <")
        );
    }

    #[test]
    fn wrong_flags_are_refused_with_the_reason() {
        let cases: [(&[&str], &str); 18] = [
            (&["node", "--listen", "4000"], "'--listen <ADDR>': write an IP address"),
            (&["node", "--http", "localhost:8000"], "'--http <ADDR>': write an IP address"),
            (&["node", "--advertise", "kv1"], "write HOST:PORT"),
            (&["node", "--join", "a:1,b"], "'b' for '--join"),
            (&["node", "--capacity", "161"], "it is a number of bits from 1 to 160"),
            (&["node", "--slot-bits", "17"], "from 0 to 16"),
            (&["node", "--successors", "0"], "from 1 to 64"),
            (&["node", "--replicas", "x"], "from 1 to 16"),
            (&["node", "--max-value", "4MiB"], "1 byte to 3 MiB"),
            (&["node", "--request-timeout", "5"], "such as 30s"),
            (&["node", "--drain-timeout", "2days"], "it is 0s to 24h"),
            (&["node", "--routing", "x"], "opportunistic or fingers"),
            (&["node", "--log-format", "xml"], "text or json"),
            (&["node", "--log-level", "loud"], "off, error, warn"),
            (&["node", "--data-dir", ""], "name a directory"),
            (&["get", ""], "the key is empty"),
            (&["get", "a", "--out", "f", "--json"], "cannot be used with"),
            (&["--node", "https://a:1", "ring"], "https is not spoken"),
        ];
        for (args, says) in cases {
            let error = parse(args).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{args:?}");
            assert!(error.to_string().contains(says), "{args:?}: {error}");
        }
    }

    #[test]
    fn a_put_takes_hyphens_for_standard_input_and_negative_numbers() {
        for value in ["-", "-5"] {
            let Command::Put(put) = parse(&["put", "k", value]).unwrap().command else { panic!() };
            assert_eq!(put.value, Some(value.into()));
        }
        assert!(parse(&["put", "k", "-x"]).is_err());
    }
}
