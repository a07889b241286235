//! Durations as users write them.

use std::time::Duration;

/// Reads a duration with its unit, such as `30s` or `1h30m` (humantime).
///
/// # Errors
///
/// What is wrong with the text, as the end of a sentence.
pub fn duration(text: &str) -> Result<Duration, String> {
    // humantime 2.4 panics on some sums near 2^64 seconds; from so few digits none comes near.
    if text.len() > BYTES_MAX || text.bytes().filter(u8::is_ascii_digit).count() > DIGITS_MAX {
        return Err("it is too long a text".to_owned());
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// A duration is a short text; what an error repeats of it is too.
const BYTES_MAX: usize = 64;
/// So many digits, read as years, are less than 2^62 seconds.
const DIGITS_MAX: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_huge_ones_are_errors() {
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for text in ["", "30", "soon", "18446744073709551615years", "584942417355y 1y", &"1s ".repeat(22)] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
