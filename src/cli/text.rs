//! Numbers, times and keys as people read them.

use std::fmt::Write;

/// Bytes that may be anything, fit for a terminal: what is not printable UTF-8 becomes `\xNN`, a backslash `\\`, so
/// that two keys never look the same.
pub fn escaped(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => shown.push_str("\\\\"),
                c if c.is_control() => {
                    let mut utf8 = [0; 4];
                    hex(c.encode_utf8(&mut utf8).as_bytes(), &mut shown);
                }
                c => shown.push(c),
            }
        }
        hex(chunk.invalid(), &mut shown);
    }
    shown
}

fn hex(bytes: &[u8], shown: &mut String) {
    for byte in bytes {
        // A string takes all that is written to it.
        let _ = write!(shown, "\\x{byte:02X}");
    }
}

/// A text of a node, on one line and without control characters.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A number of bytes with three digits or so: `0 B`, `999 B`, `1.5 KiB`.
pub fn bytes(n: u64) -> String {
    if n < 1_024 {
        return format!("{n} B");
    }
    let power = (1..UNITS.len()).find(|&power| tenths(n, power) < 10_240).unwrap_or(UNITS.len());
    let scaled = tenths(n, power);
    format!("{}.{} {}", scaled / 10, scaled % 10, UNITS[power - 1])
}

/// `n` in units of 1024^`power`, in tenths, rounded.
fn tenths(n: u64, power: usize) -> u128 {
    let unit = 1_u128 << (10 * power);
    (u128::from(n) * 10 + unit / 2) / unit
}

/// Whole seconds in their two largest units: `59s`, `1m 5s`, `2h 0m`, `3d 4h`.
pub fn seconds(n: u64) -> String {
    let (m, h, d) = (n / 60, n / 3_600, n / 86_400);
    match n {
        0..60 => format!("{n}s"),
        60..3_600 => format!("{m}m {}s", n % 60),
        3_600..86_400 => format!("{h}h {}m", m % 60),
        _ => format!("{d}d {}h", h % 24),
    }
}

/// A round trip: `85 µs`, `1.25 ms`, `2.00 s`.
pub fn micros(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} µs"),
        1_000..1_000_000 => format!("{}.{:02} ms", n / 1_000, n % 1_000 / 10),
        _ => format!("{}.{:02} s", n / 1_000_000, n % 1_000_000 / 10_000),
    }
}

/// The first digits of a hexadecimal id: enough to tell nodes apart.
pub fn short_id(id: &str) -> String {
    one_line(id).chars().take(ID_DIGITS).collect()
}

/// An address, without the host where that is the same as of `beside`.
pub fn short_addr(addr: &str, beside: &str) -> String {
    let host = |text: &str| text.rsplit_once(':').map(|(host, _)| host.to_owned());
    match addr.rsplit_once(':') {
        Some((own, port)) if host(beside).as_deref() == Some(own) => one_line(&format!(":{port}")),
        _ => one_line(addr),
    }
}

const ID_DIGITS: usize = 10;
const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_so_that_no_two_look_the_same() {
        let cases: [(&[u8], &str); 6] = [
            (b"a/b", "a/b"),
            ("ключ".as_bytes(), "ключ"),
            (b"\xff\xfea", "\\xFF\\xFEa"),
            (b"a\nb\x1b[0m", "a\\x0Ab\\x1B[0m"),
            (b"a\\xFF", "a\\\\xFF"),
            ("\u{85}".as_bytes(), "\\xC2\\x85"),
        ];
        for (key, shown) in cases {
            assert_eq!(escaped(key), shown);
        }
    }

    #[test]
    fn sizes_and_times_are_short() {
        let sizes = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (n, shown) in sizes {
            assert_eq!(bytes(n), shown);
        }
        for (n, shown) in [(0, "0s"), (65, "1m 5s"), (7_200, "2h 0m"), (273_600, "3d 4h")] {
            assert_eq!(seconds(n), shown);
        }
        for (n, shown) in [(85, "85 µs"), (1_259, "1.25 ms"), (2_000_000, "2.00 s")] {
            assert_eq!(micros(n), shown);
        }
    }

    #[test]
    fn addresses_of_one_host_are_shortened_to_their_port() {
        assert_eq!(short_addr("127.0.0.1:4001", "127.0.0.1:4000"), ":4001");
        assert_eq!(short_addr("10.0.0.1:4001", "127.0.0.1:4000"), "10.0.0.1:4001");
        assert_eq!(short_addr("[::1]:4001", "[::1]:4000"), ":4001");
        assert_eq!(short_id("0123456789abcdef"), "0123456789");
    }
}
