//! What was said about a node, by flag, environment and config file, to what the driver is told.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;

use super::args::NodeCommand;
use super::config;
use super::env::Env;
use super::failure::Failure;
use super::log::LogSettings;
use super::said::NodeArgs;
use super::values::{FsyncKind, HostPort};
use crate::driver::{Fsync, NodeSettings};
use crate::replication::copies::REPAIR_RATE_DEFAULT;

/// All that a node process needs to know.
#[derive(Clone, Debug)]
pub(super) struct NodePlan {
    /// For the driver.
    pub settings: NodeSettings,
    /// What is logged.
    pub log: LogSettings,
}

/// Flag before environment before config file before default.
pub(super) fn plan(command: NodeCommand, env: &Env) -> Result<NodePlan, Failure> {
    let NodeCommand { config, stop_with_stdin, said } = command;
    let from_env = of_environment(env)?;
    let from_file = match config.or_else(|| env.get("CONFIG").map(PathBuf::from)) {
        Some(path) => config::load(&path)?,
        None => NodeArgs::default(),
    };
    let said = said.or(from_env).or(from_file);
    let log = LogSettings {
        format: said.log_format.unwrap_or_default(),
        level: said.log_level.unwrap_or(LevelFilter::INFO),
        color: !env.no_color(),
    };
    Ok(NodePlan { settings: checked(said, stop_with_stdin)?, log })
}

fn of_environment(env: &Env) -> Result<NodeArgs, Failure> {
    let mut said = NodeArgs::default();
    for name in NodeArgs::NAMES {
        env.read(&name.to_ascii_uppercase(), |text| said.set(name, text))?;
    }
    Ok(said)
}

fn checked(said: NodeArgs, stop_with_stdin: bool) -> Result<NodeSettings, Failure> {
    let wishes = said.wishes().map_err(Failure::Usage)?;
    let listen = said.listen.unwrap_or(LISTEN_DEFAULT);
    if listen.ip().is_unspecified() && said.advertise.is_none() {
        let text = format!(
            "--listen {listen} is every address of this host; say with --advertise HOST:PORT which one other nodes \
             connect to"
        );
        return Err(Failure::Usage(text));
    }
    if !listen.ip().is_loopback() && said.ring_key_file.is_none() && !said.insecure.unwrap_or(false) {
        let text = format!(
            "--listen {listen} is reached from other hosts, and without a ring key whoever reaches it is trusted: give \
             all nodes the same --ring-key-file (chordkv keygen makes one), or say --insecure"
        );
        return Err(Failure::Usage(text));
    }
    let advertise = said.advertise.as_ref().map(|host| resolved(host, listen)).transpose()?;
    Ok(NodeSettings {
        listen,
        advertise,
        ring_key_file: said.ring_key_file,
        http: said.http.unwrap_or(HTTP_DEFAULT),
        http_token_file: said.http_token_file,
        cors_origins: said.cors_origin.unwrap_or_default(),
        seeds: said.join.unwrap_or_default().iter().map(|seed| seed.as_str().to_owned()).collect(),
        wishes,
        request_timeout: said.request_timeout.unwrap_or(REQUEST_TIMEOUT_DEFAULT),
        drain_timeout: said.drain_timeout.unwrap_or(DRAIN_TIMEOUT_DEFAULT),
        fsync: match said.fsync.unwrap_or_default() {
            FsyncKind::Always => Fsync::Always,
            FsyncKind::Interval => Fsync::Interval(said.fsync_interval.unwrap_or(FSYNC_INTERVAL_DEFAULT)),
            FsyncKind::Never => Fsync::Never,
        },
        bytes_max: said.max_bytes,
        weight: said.weight.unwrap_or_default(),
        replace_after: said.replace_after.unwrap_or(REPLACE_AFTER_DEFAULT),
        repair_rate: said.repair_rate.unwrap_or(REPAIR_RATE_DEFAULT),
        data_dir: said.data_dir,
        routing: said.routing.unwrap_or_default(),
        stop_with_stdin,
    })
}

/// The address that other nodes are told: of those that the name has, the first of the family that is listened on.
fn resolved(host: &HostPort, listen: SocketAddr) -> Result<SocketAddr, Failure> {
    let failed = |reason: &str| Failure::Failed(format!("--advertise {host} cannot be resolved: {reason}"));
    let found: Vec<SocketAddr> = host.as_str().to_socket_addrs().map_err(|error| failed(&error.to_string()))?.collect();
    let same_family = found.iter().find(|addr| addr.is_ipv4() == listen.is_ipv4());
    let addr = *same_family.or(found.first()).ok_or_else(|| failed("the name has no address"))?;
    if addr.ip().is_unspecified() {
        let text = format!("--advertise {host} is no address that other nodes could connect to; name one of this host");
        return Err(Failure::Usage(text));
    }
    Ok(addr)
}

const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4_000);
const HTTP_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8_000);
/// Long enough for a ring to mend the failure of one node under a request.
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const FSYNC_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
/// Long enough to start a host again.
const REPLACE_AFTER_DEFAULT: Duration = Duration::from_secs(60);
const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs;

    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::node::Wishes;
    use crate::overlay::Routing;

    fn planned(flags: &[&str], env: &[(&str, &str)]) -> Result<NodePlan, Failure> {
        let args = ["chordkv", "node"].into_iter().chain(flags.iter().copied()).map(OsString::from);
        let Command::Node(command) = Cli::parse_from_args(args).unwrap().command else { panic!("{flags:?}") };
        plan(*command, &Env::of(env.iter().map(|(name, value)| ((*name).into(), (*value).into()))))
    }

    fn usage(flags: &[&str], env: &[(&str, &str)]) -> String {
        match planned(flags, env) {
            Err(Failure::Usage(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_said_is_a_new_ring_on_loopback() {
        let NodePlan { settings, log } = planned(&[], &[]).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:4000");
        assert_eq!(settings.http.to_string(), "127.0.0.1:8000");
        assert_eq!((settings.advertise, settings.seeds.len(), settings.stop_with_stdin), (None, 0, false));
        assert_eq!((settings.wishes, settings.routing), (Wishes::default(), Routing::Opportunistic));
        assert_eq!((settings.request_timeout.as_secs(), settings.drain_timeout.as_secs()), (10, 30));
        assert_eq!((log.level, log.color), (LevelFilter::INFO, true));
    }

    #[test]
    fn every_flag_arrives() {
        let flags = "--listen 127.0.0.1:1 --advertise 10.0.0.1:2 --http [::1]:3 --join a:1,b:2 --join c:3 --capacity 20 \
                     --slot-bits 8 --successors 5 --replicas 2 --max-value 512KiB --request-timeout 5s --drain-timeout 1m \
                     --data-dir /var/x --routing fingers --log-format json --log-level debug --stop-with-stdin";
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let NodePlan { settings, log } = planned(&flags, &[("NO_COLOR", "1")]).unwrap();
        assert_eq!(settings.listen.port(), 1);
        assert_eq!(settings.advertise, Some("10.0.0.1:2".parse().unwrap()));
        assert_eq!(settings.http, "[::1]:3".parse().unwrap());
        assert_eq!(settings.seeds, ["a:1", "b:2", "c:3"]);
        let wishes = Wishes {
            capacity: Some(20),
            slot_bits: Some(8),
            successors: Some(5),
            replicas: Some(2),
            value_bytes_max: Some(512 << 10),
        };
        assert_eq!(settings.wishes, wishes);
        assert_eq!((settings.request_timeout.as_secs(), settings.drain_timeout.as_secs()), (5, 60));
        assert_eq!((settings.routing, settings.stop_with_stdin), (Routing::FingersOnly, true));
        assert_eq!(settings.data_dir, Some("/var/x".into()));
        assert_eq!(
            log,
            LogSettings { format: super::super::log::LogFormat::Json, level: LevelFilter::DEBUG, color: false }
        );
    }

    #[test]
    fn a_flag_counts_before_the_environment_and_that_before_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chordkv.toml");
        fs::write(&path, "capacity = 10\nreplicas = 4\nsuccessors = 7\nrequest_timeout = \"7s\"\n").unwrap();
        let path = path.to_str().unwrap();
        let env = [("CHORDKV_CAPACITY", "11"), ("CHORDKV_REPLICAS", "5"), ("CHORDKV_JOIN", "a:1,b:2")];
        let settings = planned(&["--config", path, "--capacity", "12"], &env).unwrap().settings;
        assert_eq!(
            (settings.wishes.capacity, settings.wishes.replicas, settings.wishes.successors),
            (Some(12), Some(5), Some(7))
        );
        assert_eq!(settings.request_timeout.as_secs(), 7);
        assert_eq!(settings.drain_timeout, DRAIN_TIMEOUT_DEFAULT);
        assert_eq!(settings.seeds, ["a:1", "b:2"]);
        let by_env = planned(&[], &[("CHORDKV_CONFIG", path)]).unwrap().settings;
        assert_eq!(by_env.wishes.capacity, Some(10));
    }

    #[test]
    fn every_name_is_a_flag_a_variable_and_a_key_of_the_file() {
        let grammar = Cli::grammar();
        let node = grammar.find_subcommand("node").unwrap();
        for name in NodeArgs::NAMES {
            assert!(node.get_arguments().any(|arg| arg.get_long() == Some(&name.replace('_', "-"))), "{name}");
            if ["data_dir", "ring_key_file", "http_token_file"].contains(&name) {
                // Any text names one.
                continue;
            }
            let text = usage(&[], &[(&format!("CHORDKV_{}", name.to_uppercase()), "?")]);
            assert!(text.starts_with(&format!("CHORDKV_{}=? in the environment: ", name.to_uppercase())), "{text}");
            assert!(!NodeArgs::default().set(name, "?").unwrap_err().contains("no such setting"), "{name}");
        }
        let hidden = ["config", "stop-with-stdin", "node"];
        let flags = node.get_arguments().filter_map(clap::Arg::get_long).filter(|flag| !hidden.contains(flag));
        assert_eq!(flags.count(), NodeArgs::NAMES.len(), "a flag is missing in NAMES");
    }

    #[test]
    fn listening_everywhere_needs_an_address_for_others() {
        for listen in ["0.0.0.0:4000", "[::]:4000"] {
            let text = usage(&["--listen", listen, "--insecure"], &[]);
            assert!(text.contains(listen) && text.contains("--advertise HOST:PORT"), "{text}");
        }
        assert!(usage(&["--advertise", "0.0.0.0:4000"], &[]).contains("no address"));
        let settings = planned(&["--listen", "0.0.0.0:4000", "--advertise", "localhost:4000", "--insecure"], &[])
            .unwrap()
            .settings;
        assert!(settings.advertise.unwrap().ip().is_loopback());
        let unknown = planned(&["--advertise", "no-such-host.invalid:4000"], &[]);
        assert!(
            matches!(unknown, Err(Failure::Failed(text)) if text.contains("no-such-host.invalid:4000 cannot be resolved"))
        );
    }

    #[test]
    fn others_are_listened_to_with_a_key_or_if_told_so() {
        let said = usage(&["--listen", "10.0.0.1:4000"], &[]);
        assert!(said.contains("--ring-key-file") && said.contains("chordkv keygen"), "{said}");
        assert!(usage(&["--listen", "10.0.0.1:4000", "--insecure=false"], &[]).contains("--insecure"));
        for fine in [["--listen", "127.0.0.9:4000"], ["--listen", "[::1]:4000"]] {
            assert!(planned(&fine, &[]).is_ok());
        }
        let listen = ["--listen", "10.0.0.1:4000"];
        assert!(planned(&listen, &[("CHORDKV_INSECURE", "true")]).is_ok());
        let keyed = planned(&listen, &[("CHORDKV_RING_KEY_FILE", "/etc/ring.key")]).unwrap().settings;
        assert_eq!(keyed.ring_key_file, Some("/etc/ring.key".into()));
    }

    #[test]
    fn wishes_that_exclude_each_other_are_wrong_usage() {
        assert!(usage(&["--capacity", "4", "--slot-bits", "5"], &[]).contains("at most the capacity (4), not 5"));
    }

    #[test]
    fn a_config_file_with_mistakes_is_wrong_usage_and_a_missing_one_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, "listen = \"127.0.0.1:1\"\ncapcity = 1\nreplicas = 99\n").unwrap();
        let text = usage(&["--config", path.to_str().unwrap()], &[]);
        assert!(text.contains("c.toml:2: unknown key") && text.contains("chordkv config check"), "{text}");
        let missing = planned(&["--config", "/nowhere/c.toml"], &[]);
        assert!(matches!(missing, Err(Failure::Failed(text)) if text.contains("/nowhere/c.toml")));
    }
}
