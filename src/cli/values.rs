//! One value of a flag, a variable or the config file: text to what it means. Errors are the end of a sentence.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;

use super::log::LogFormat;
use crate::base::limits::{CONTENT_TYPE_BYTES_MAX, REPLICAS_MAX, SLOT_BITS_MAX, SUCCESSORS_MAX, VALUE_BYTES_LIMIT};
use crate::base::{Capacity, Weight};
use crate::data::Key;
use crate::data::http::duration;
use crate::overlay::Routing;

/// A host name or address with a port, not resolved; only its shape was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort(String);

impl HostPort {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address of this host to listen on.
pub fn listen_addr(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an IP address of this host and a port, such as 127.0.0.1:4000, 0.0.0.0:4000 or [::1]:4000".to_owned()
    })
}

/// `host:port`, `1.2.3.4:port` or `[::1]:port`.
pub fn host_port(text: &str) -> Result<HostPort, String> {
    let wrong = || "write HOST:PORT, such as kv1.example.org:4000, 192.0.2.7:4000 or [2001:db8::7]:4000".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_host = match literal {
        Some(inside) => inside.parse::<Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    if !is_host {
        return Err(wrong());
    }
    match decimal::<u16>(port) {
        Some(0) => Err("port 0 cannot be connected to".to_owned()),
        Some(_) => Ok(HostPort(text.to_owned())),
        None => Err(wrong()),
    }
}

/// Hosts and ports with commas between them.
pub fn host_ports(text: &str) -> Result<Vec<HostPort>, String> {
    text.split(',').map(|one| host_port(one.trim())).collect()
}

/// Identifier bits m.
pub fn capacity(text: &str) -> Result<u32, String> {
    number(text, "bits", 1, Capacity::MAX.bits())
}

/// Slot bits p.
pub fn slot_bits(text: &str) -> Result<u32, String> {
    number(text, "bits", 0, SLOT_BITS_MAX)
}

/// Length r of the successor list.
pub fn successors(text: &str) -> Result<usize, String> {
    number(text, "successors", 1, SUCCESSORS_MAX)
}

/// Copies R of each key.
pub fn replicas(text: &str) -> Result<usize, String> {
    number(text, "copies", 1, REPLICAS_MAX)
}

/// The largest value of a ring: `1000000`, `512KiB`, `1MiB`, `1MB`.
pub fn max_value(text: &str) -> Result<usize, String> {
    let size = size(text).ok_or("write a number of bytes or a size such as 512KiB or 1MiB")?;
    if (1..=VALUE_BYTES_LIMIT).contains(&size) {
        return Ok(size);
    }
    Err(format!("a ring can be created for values of 1 byte to {} MiB", VALUE_BYTES_LIMIT >> 20))
}

/// After how long a user's request is answered in any case.
pub fn request_timeout(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_millis(100), Duration::from_secs(3_600), "100ms to 1h")
}

/// A directory, there or not.
pub fn data_dir(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("name a directory".to_owned()) } else { Ok(PathBuf::from(text)) }
}

/// When what was written is safe from a power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FsyncKind {
    /// Before it is acknowledged.
    #[default]
    Always,
    /// A while after.
    Interval,
    /// When the system writes it.
    Never,
}

/// When what was written is safe.
pub fn fsync(text: &str) -> Result<FsyncKind, String> {
    match text {
        "always" => Ok(FsyncKind::Always),
        "interval" => Ok(FsyncKind::Interval),
        "never" => Ok(FsyncKind::Never),
        _ => Err("it is always, interval or never".to_owned()),
    }
}

/// How much a power cut may take.
pub fn fsync_interval(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_millis(10), Duration::from_secs(3_600), "10ms to 1h")
}

/// How much a node may store.
pub fn max_bytes(text: &str) -> Result<u64, String> {
    let size = size(text).ok_or("write a number of bytes or a size such as 512MiB or 1GiB")?;
    let bytes = u64::try_from(size).unwrap_or(u64::MAX);
    if bytes < MAX_BYTES_LEAST {
        return Err(format!("it is at least {} KiB", MAX_BYTES_LEAST / 1_024));
    }
    Ok(bytes)
}

/// How much may be looked through in a second to compare copies.
pub fn repair_rate(text: &str) -> Result<u64, String> {
    let size = size(text).ok_or("write a number of bytes or a size such as 4MiB, for each second")?;
    Ok(u64::try_from(size).unwrap_or(u64::MAX))
}

/// How much of the keys a node is to hold.
pub fn weight(text: &str) -> Result<Weight, String> {
    let number = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    number.and_then(Weight::new).ok_or_else(|| "it is a whole number from 1 to 100".to_owned())
}

/// How long what a missing node holds is kept for it.
pub fn replace_after(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::ZERO, Duration::from_secs(24 * 3_600), "0s to 24h")
}

const MAX_BYTES_LEAST: u64 = 64 * 1_024;

/// After how long a leaver goes.
pub fn drain_timeout(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::ZERO, Duration::from_secs(24 * 3_600), "0s to 24h")
}

/// How long a command waits.
pub fn wait(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_millis(1), Duration::from_secs(24 * 3_600), "1ms to 24h")
}

/// Where lookups go.
pub fn routing(text: &str) -> Result<Routing, String> {
    match text {
        "opportunistic" => Ok(Routing::Opportunistic),
        "fingers" => Ok(Routing::FingersOnly),
        _ => Err("it is opportunistic or fingers".to_owned()),
    }
}

/// How log lines look.
pub fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("it is text or json".to_owned()),
    }
}

/// How much is logged.
pub fn log_level(text: &str) -> Result<LevelFilter, String> {
    match text {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err("it is off, error, warn, info, debug or trace".to_owned()),
    }
}

/// A key, any bytes.
pub fn key(text: OsString) -> Result<Key, String> {
    Key::new(text.into_encoded_bytes()).map_err(|error| error.to_string())
}

/// A TTL. The node judges how long it may be; what is sent is the text.
pub fn ttl(text: &str) -> Result<String, String> {
    match duration(text) {
        Ok(Duration::ZERO) => Err("a value that expires at once cannot be put".to_owned()),
        Ok(_) => Ok(text.to_owned()),
        Err(reason) => Err(format!("{reason}; {DURATION_SHAPE}")),
    }
}

/// An entity tag for a header, quoted or not, or `*`.
pub fn etag(text: &str) -> Result<String, String> {
    let bare = text.trim();
    if bare.is_empty() || !bare.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Err("write the etag that get or put printed, or *".to_owned());
    }
    Ok(if bare == "*" || bare.contains('"') { bare.to_owned() } else { format!("\"{bare}\"") })
}

/// The name of a file.
pub fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("name a file".to_owned()) } else { Ok(text.into()) }
}

/// The origin of web pages, as browsers write it, or `*`.
pub fn origin(text: &str) -> Result<String, String> {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
    if text == "*" || (!authority.is_empty() && authority.bytes().all(allowed)) {
        return Ok(text.to_owned());
    }
    Err("write an origin as browsers do, in small letters and without a path, such as https://app.example.org, or *"
        .into())
}

/// Origins with commas between.
pub fn origins(text: &str) -> Result<Vec<String>, String> {
    text.split(',').map(|one| origin(one.trim())).collect()
}

/// Whether something is so.
pub fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "write true or false".to_owned())
}

/// A media type for a header.
pub fn content_type(text: &str) -> Result<String, String> {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if !visible || text.trim().is_empty() || text.len() > CONTENT_TYPE_BYTES_MAX {
        return Err(format!("it has 1 to {CONTENT_TYPE_BYTES_MAX} bytes of visible ASCII, such as text/plain"));
    }
    Ok(text.to_owned())
}

/// Digits only: no sign, no space.
pub fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn number<T>(text: &str, what: &str, least: T, most: T) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + fmt::Display + Copy,
{
    decimal::<T>(text)
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| format!("it is a number of {what} from {least} to {most}"))
}

fn duration_within(text: &str, least: Duration, most: Duration, range: &str) -> Result<Duration, String> {
    let span = duration(text).map_err(|reason| format!("{reason}; {DURATION_SHAPE}"))?;
    if (least..=most).contains(&span) { Ok(span) } else { Err(format!("it is {range}")) }
}

fn size(text: &str) -> Option<usize> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(end);
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "kib" => 1 << 10,
        "mb" => 1_000_000,
        "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        _ => return None,
    };
    // Saturated, so that what is too large is refused as too large.
    decimal::<u128>(digits).map(|n| usize::try_from(n.saturating_mul(factor)).unwrap_or(usize::MAX))
}

fn is_host_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    // What looks like an address must be one: 1.2.3 and 300.1.1.1 are typing errors.
    let numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    !host.is_empty()
        && host.len() <= HOST_BYTES_MAX
        && host.bytes().all(allowed)
        && (!numeric || host.parse::<IpAddr>().is_ok())
}

/// Of a name in the DNS.
const HOST_BYTES_MAX: usize = 253;
const DURATION_SHAPE: &str = "write a duration with its unit, such as 30s, 500ms or 1h30m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_checked_for_their_shape() {
        for good in ["a:1", "kv-1.example.org:4000", "127.0.0.1:65535", "[::1]:4000", "under_score:1"] {
            assert_eq!(host_port(good).map(|it| it.0), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "a",
            "a:",
            ":1",
            "::1:4000",
            "[::1]",
            "[x]:1",
            "a:70000",
            "a:+1",
            "1.2.3:4",
            "300.1.1.1:4",
            "a b:1",
            "http://a:1",
        ] {
            assert!(host_port(bad).unwrap_err().contains("HOST:PORT"), "{bad}");
        }
        assert!(host_port("a:0").unwrap_err().contains("port 0"));
        assert_eq!(host_ports("a:1, b:2").unwrap().len(), 2);
        for bad in ["a:1,", ",a:1", "a:1,,b:2"] {
            assert!(host_ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_units_and_keep_the_limit_of_a_frame() {
        let cases = [
            ("1000000", 1_000_000),
            ("1MiB", 1 << 20),
            ("512 KiB", 512 << 10),
            ("2mb", 2_000_000),
            ("3mib", 3 << 20),
            ("7B", 7),
        ];
        for (text, bytes) in cases {
            assert_eq!(max_value(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "1.5MiB", "-1", "1 M", "1TiB", "+3"] {
            assert!(max_value(text).unwrap_err().contains("512KiB"), "{text}");
        }
        for text in ["0", "3145729", "4MiB", "1GiB", "99999999999999999999999999MiB"] {
            assert!(max_value(text).unwrap_err().contains("3 MiB"), "{text}");
        }
        assert!(max_value(&"9".repeat(60)).is_err());
    }

    #[test]
    fn durations_numbers_and_words_are_bounded() {
        assert_eq!(request_timeout("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(drain_timeout("0s"), Ok(Duration::ZERO));
        for text in ["", "5", "0s", "2h", "18446744073709551615years"] {
            assert!(request_timeout(text).is_err(), "{text}");
        }
        assert_eq!((weight("1"), weight("100")), (Ok(Weight::ONE), Ok(Weight::MAX)));
        for text in ["0", "101", "1.5", "-1", "+5", ""] {
            assert!(weight(text).unwrap_err().contains("1 to 100"), "{text}");
        }
        assert_eq!(replace_after("10m"), Ok(Duration::from_secs(600)));
        assert_eq!((capacity("1"), capacity("160")), (Ok(1), Ok(160)));
        for text in ["0", "161", "x", "-1", "+5", " 5", ""] {
            assert!(capacity(text).unwrap_err().contains("1 to 160"), "{text}");
        }
        assert!(routing("Fingers").is_err() && log_level("INFO").is_err() && log_format("xml").is_err());
    }

    #[test]
    fn etags_are_quoted_once() {
        for (text, header) in
            [("1-2a-0", "\"1-2a-0\""), ("\"1-2a-0\"", "\"1-2a-0\""), ("*", "*"), ("\"a\", \"b\"", "\"a\", \"b\"")]
        {
            assert_eq!(etag(text), Ok(header.to_owned()));
        }
        for text in ["", " ", "a\nb", "é"] {
            assert!(etag(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_ttl_must_have_its_unit() {
        assert_eq!(ttl("1h30m"), Ok("1h30m".to_owned()));
        assert!(ttl("30").unwrap_err().contains("such as 30s"));
        assert!(ttl("0s").unwrap_err().contains("at once"));
    }
}
