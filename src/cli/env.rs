//! The environment variables that count here.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::failure::Failure;

/// The environment, as a value: tests pass their own.
#[derive(Clone, Debug, Default)]
pub struct Env(BTreeMap<String, OsString>);

impl Env {
    /// That of this process.
    pub fn of_process() -> Self {
        Self::of(std::env::vars_os())
    }

    /// The variables of `CHORDKV_*`, and `NO_COLOR`; others are not kept.
    pub fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let named = variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self(named.filter(|(name, _)| name.starts_with(PREFIX) || name == NO_COLOR).collect())
    }

    /// A variable of this program by its short name: `NODE` is `CHORDKV_NODE`. An empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(&format!("{PREFIX}{name}")).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The same, read by `read`, which fails with the end of a sentence.
    pub fn read<T>(&self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, Failure> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let text = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
        let value = text.and_then(read).map_err(|reason| {
            let value = value.to_string_lossy();
            Failure::Usage(format!("{PREFIX}{name}={value} in the environment: {reason}"))
        })?;
        Ok(Some(value))
    }

    /// Whether the user wants no colours (no-color.org).
    pub fn no_color(&self) -> bool {
        self.0.get(NO_COLOR).is_some_and(|value| !value.is_empty())
    }
}

const PREFIX: &str = "CHORDKV_";
const NO_COLOR: &str = "NO_COLOR";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_variables_are_kept_and_empty_ones_are_not_set() {
        let env = [("CHORDKV_NODE", "a:1"), ("CHORDKV_HTTP", ""), ("HOME", "/"), ("NO_COLOR", "1")]
            .map(|(n, v)| (n.into(), v.into()));
        let env = Env::of(env);
        assert_eq!(env.get("NODE"), Some(OsStr::new("a:1")));
        assert_eq!((env.get("HTTP"), env.get("HOME"), env.no_color()), (None, None, true));
        let refused = env.read("NODE", |_| Err::<(), _>("it is wrong".to_owned())).unwrap_err();
        assert_eq!(refused, Failure::Usage("CHORDKV_NODE=a:1 in the environment: it is wrong".to_owned()));
    }
}
