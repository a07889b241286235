//! What can be said about a node, whoever says it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tracing_subscriber::filter::LevelFilter;

use super::log::LogFormat;
use super::values::{self, FsyncKind, HostPort};
use crate::base::Weight;
use crate::node::{RingParams, Wishes};
use crate::overlay::Routing;

/// What one source said about a node: the flags, the environment, or the config file. `None` where it said nothing.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub(super) struct NodeArgs {
    /// Listen here for other nodes; port 0 lets the system choose [default: 127.0.0.1:4000]
    #[arg(long, value_name = "ADDR", value_parser = values::listen_addr)]
    pub listen: Option<SocketAddr>,
    /// Tell other nodes to connect here; needed if --listen is 0.0.0.0 or the like [default: as --listen]
    #[arg(long, value_name = "HOST:PORT", value_parser = values::host_port)]
    pub advertise: Option<HostPort>,
    /// Let only nodes with the ring key in this file be peers, and encrypt what is sent to them; see chordkv keygen
    #[arg(long, value_name = "FILE", value_parser = values::file)]
    pub ring_key_file: Option<PathBuf>,
    /// Without a ring key: listen for peers on addresses that others reach, too, and trust whoever connects
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = values::switch)]
    pub insecure: Option<bool>,
    /// Serve users over HTTP here; port 0 lets the system choose [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR", value_parser = values::listen_addr)]
    pub http: Option<SocketAddr>,
    /// Ask users for a token of this file: a role (read, write, admin), a token and perhaps a prefix on each line
    #[arg(long, value_name = "FILE", value_parser = values::file)]
    pub http_token_file: Option<PathBuf>,
    /// Web pages that may ask this node, by their origins; * for all [default: none]
    #[arg(long, value_name = "ORIGIN,...", value_delimiter = ',', value_parser = values::origin)]
    pub cors_origin: Option<Vec<String>>,
    /// Join the ring of these nodes, by their --advertise addresses [default: create a ring]
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', value_parser = values::host_port)]
    pub join: Option<Vec<HostPort>>,
    /// Keep keys and the ring's members here, so that they outlive the process [default: all in memory]
    #[arg(long, value_name = "DIR", value_parser = values::data_dir)]
    pub data_dir: Option<PathBuf>,
    /// When what is in --data-dir is safe from a power cut: before it is acknowledged, up to --fsync-interval later, or
    /// when the system likes [default: always]
    #[arg(long, value_name = "always|interval|never", value_parser = values::fsync)]
    pub fsync: Option<FsyncKind>,
    /// With --fsync interval: so much that was acknowledged a power cut may take [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = values::fsync_interval)]
    pub fsync_interval: Option<Duration>,
    /// Store at most so much on this node; then puts are refused and deletes are not [default: what there is room for]
    #[arg(long, value_name = "SIZE", value_parser = values::max_bytes)]
    pub max_bytes: Option<u64>,
    /// Look through at most so much in a second to compare copies with other nodes; 0: copies are not compared [default: 4MiB]
    #[arg(long, value_name = "SIZE", value_parser = values::repair_rate)]
    pub repair_rate: Option<u64>,
    /// Hold so many times as much as a node of weight 1, up to a copy of everything; 1 to 100 [default: 1]
    #[arg(long, value_name = "N", value_parser = values::weight)]
    pub weight: Option<Weight>,
    /// With --data-dir: keep what a node holds for it after it went missing, and copy it elsewhere only then [default: 1m]
    #[arg(long, value_name = "DURATION", value_parser = values::replace_after)]
    pub replace_after: Option<Duration>,
    /// Identifier bits of the ring, 1 to 160; joiners adopt it [default: 160]
    #[arg(long, value_name = "BITS", value_parser = values::capacity)]
    pub capacity: Option<u32>,
    /// The circle is cut into 2^BITS slots; joiners adopt it [default: 10]
    #[arg(long, value_name = "BITS", value_parser = values::slot_bits)]
    pub slot_bits: Option<u32>,
    /// Length of the successor lists; joiners adopt it [default: 16]
    #[arg(long, value_name = "N", value_parser = values::successors)]
    pub successors: Option<usize>,
    /// Copies of each key; joiners adopt it [default: 3]
    #[arg(long, value_name = "N", value_parser = values::replicas)]
    pub replicas: Option<usize>,
    /// Largest value, at most 3MiB; joiners adopt it [default: 1MiB]
    #[arg(long, value_name = "SIZE", value_parser = values::max_value)]
    pub max_value: Option<usize>,
    /// Answer every request within this time [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = values::request_timeout)]
    pub request_timeout: Option<Duration>,
    /// Leave after this time even if keys are still here [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = values::drain_timeout)]
    pub drain_timeout: Option<Duration>,
    /// Expert: where lookups go, to any known node (opportunistic) or as published (fingers) [default: opportunistic]
    #[arg(long, value_name = "opportunistic|fingers", value_parser = values::routing)]
    pub routing: Option<Routing>,
    /// How log lines on standard error look [default: text]
    #[arg(long, value_name = "text|json", value_parser = values::log_format)]
    pub log_format: Option<LogFormat>,
    /// How much is logged: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = values::log_level)]
    pub log_level: Option<LevelFilter>,
}

impl NodeArgs {
    /// The names that [`Self::set`] takes: keys of the config file; in capitals after `CHORDKV_`, variables.
    pub const NAMES: [&'static str; 25] = [
        "listen",
        "advertise",
        "ring_key_file",
        "insecure",
        "http",
        "http_token_file",
        "cors_origin",
        "join",
        "data_dir",
        "fsync",
        "fsync_interval",
        "max_bytes",
        "repair_rate",
        "weight",
        "replace_after",
        "capacity",
        "slot_bits",
        "successors",
        "replicas",
        "max_value",
        "request_timeout",
        "drain_timeout",
        "routing",
        "log_format",
        "log_level",
    ];

    /// Reads one value by its name, one of [`Self::NAMES`]. The error is the end of a sentence; nothing was changed.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        match name {
            "listen" => self.listen = Some(values::listen_addr(text)?),
            "advertise" => self.advertise = Some(values::host_port(text)?),
            "ring_key_file" => self.ring_key_file = Some(values::file(text)?),
            "insecure" => self.insecure = Some(values::switch(text)?),
            "http" => self.http = Some(values::listen_addr(text)?),
            "http_token_file" => self.http_token_file = Some(values::file(text)?),
            "cors_origin" => self.cors_origin = Some(values::origins(text)?),
            "join" => self.join = Some(values::host_ports(text)?),
            "data_dir" => self.data_dir = Some(values::data_dir(text)?),
            "fsync" => self.fsync = Some(values::fsync(text)?),
            "fsync_interval" => self.fsync_interval = Some(values::fsync_interval(text)?),
            "max_bytes" => self.max_bytes = Some(values::max_bytes(text)?),
            "repair_rate" => self.repair_rate = Some(values::repair_rate(text)?),
            "weight" => self.weight = Some(values::weight(text)?),
            "replace_after" => self.replace_after = Some(values::replace_after(text)?),
            "capacity" => self.capacity = Some(values::capacity(text)?),
            "slot_bits" => self.slot_bits = Some(values::slot_bits(text)?),
            "successors" => self.successors = Some(values::successors(text)?),
            "replicas" => self.replicas = Some(values::replicas(text)?),
            "max_value" => self.max_value = Some(values::max_value(text)?),
            "request_timeout" => self.request_timeout = Some(values::request_timeout(text)?),
            "drain_timeout" => self.drain_timeout = Some(values::drain_timeout(text)?),
            "routing" => self.routing = Some(values::routing(text)?),
            "log_format" => self.log_format = Some(values::log_format(text)?),
            "log_level" => self.log_level = Some(values::log_level(text)?),
            _ => return Err("there is no such setting".to_owned()),
        }
        Ok(())
    }

    /// What the creator of a ring would wish. Fails with a sentence where wishes exclude each other.
    pub fn wishes(&self) -> Result<Wishes, String> {
        let wishes = Wishes {
            capacity: self.capacity,
            slot_bits: self.slot_bits,
            successors: self.successors,
            replicas: self.replicas,
            value_bytes_max: self.max_value,
        };
        RingParams::create(0, &wishes).map(|_| wishes)
    }

    /// What this source said, and where it said nothing, what `other` said.
    pub fn or(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            advertise: self.advertise.or(other.advertise),
            ring_key_file: self.ring_key_file.or(other.ring_key_file),
            insecure: self.insecure.or(other.insecure),
            http: self.http.or(other.http),
            http_token_file: self.http_token_file.or(other.http_token_file),
            cors_origin: self.cors_origin.or(other.cors_origin),
            join: self.join.or(other.join),
            data_dir: self.data_dir.or(other.data_dir),
            fsync: self.fsync.or(other.fsync),
            fsync_interval: self.fsync_interval.or(other.fsync_interval),
            max_bytes: self.max_bytes.or(other.max_bytes),
            repair_rate: self.repair_rate.or(other.repair_rate),
            weight: self.weight.or(other.weight),
            replace_after: self.replace_after.or(other.replace_after),
            capacity: self.capacity.or(other.capacity),
            slot_bits: self.slot_bits.or(other.slot_bits),
            successors: self.successors.or(other.successors),
            replicas: self.replicas.or(other.replicas),
            max_value: self.max_value.or(other.max_value),
            request_timeout: self.request_timeout.or(other.request_timeout),
            drain_timeout: self.drain_timeout.or(other.drain_timeout),
            routing: self.routing.or(other.routing),
            log_format: self.log_format.or(other.log_format),
            log_level: self.log_level.or(other.log_level),
        }
    }
}
