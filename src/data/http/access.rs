//! Who may ask for what: bearer tokens (RFC 6750) with roles, and what everybody may who has none.
//!
//! A token file has a line for each: `ROLE TOKEN [PREFIX]`. The role is decided by method and path, before a body is
//! read; whether keys are within the token's prefix by the request as it was understood. Deliberately not here: the file
//! and its mode (the driver), and any state.

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::message::HttpResponse;
use super::problem::problem;
use super::target::{Route, decode, split};
use crate::data::UserRequest;

/// Who may ask for what.
#[derive(Clone, Default)]
pub struct Access {
    // `None`: nobody needs a token, but for what only an admin may.
    grants: Option<Vec<Grant>>,
}

#[derive(Clone)]
struct Grant {
    token: Vec<u8>,
    role: Role,
    // Only keys that begin so.
    prefix: Vec<u8>,
}

/// What a token is good for; each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Gets, lists, watches; sees the ring.
    Read,
    /// Puts and deletes, too.
    Write,
    /// Lets nodes leave and recovers what is lost, too.
    Admin,
}

/// What is known of a request before its body is read.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// As received.
    pub method: &'a str,
    /// As received.
    pub target: &'a str,
    /// The field `Authorization`.
    pub authorization: Option<&'a str>,
    /// It comes from this host itself, not from another and through no proxy.
    pub is_local: bool,
}

/// Why a request is not let in. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A token is needed and none is there.
    NoToken,
    /// There is no such token.
    UnknownToken,
    /// The token's role does not suffice; this one is needed.
    Role(Role),
    /// The key or prefix does not begin as the token's do.
    Prefix,
    /// There are no tokens, and without one this may only be asked from the host itself.
    Elsewhere,
}

/// Lines of a token file, at most.
const TOKENS_MAX: usize = 1_024;
/// A shorter one could be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// A longer one is a mistake.
const TOKEN_BYTES_MAX: usize = 512;

impl Access {
    /// Reads a token file: one `ROLE TOKEN [PREFIX]` a line, the prefix percent-encoded; `#` begins a comment line. The
    /// error says which line is wrong and why, and never a token.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut grants = Vec::new();
        for (nth, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if grants.len() == TOKENS_MAX {
                return Err(format!("there are more than {TOKENS_MAX} tokens in it"));
            }
            let grant = grant(line).map_err(|why| format!("line {}: {why}", nth + 1))?;
            if grants.iter().any(|other: &Grant| other.token == grant.token) {
                return Err(format!("line {}: the token stands on another line, too", nth + 1));
            }
            grants.push(grant);
        }
        if grants.is_empty() {
            return Err(
                "there is no token in it: write ROLE TOKEN on a line, such as admin and 32 random letters".into()
            );
        }
        Ok(Self { grants: Some(grants) })
    }

    /// Whether tokens are needed.
    pub fn needs_tokens(&self) -> bool {
        self.grants.is_some()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.grants.as_ref().map_or(0, Vec::len)
    }

    /// Whether a request may be made, as far as its method and path tell.
    pub fn admits(&self, asking: &Asking<'_>) -> Result<(), Denied> {
        let Some(needed) = needed(asking.method, asking.target) else { return Ok(()) };
        if self.grants.is_none() {
            return if needed < Role::Admin || asking.is_local { Ok(()) } else { Err(Denied::Elsewhere) };
        }
        let grant = self.grant(asking.authorization)?;
        if grant.is_some_and(|grant| grant.role < needed) { Err(Denied::Role(needed)) } else { Ok(()) }
    }

    /// Whether it needs no token, though others do.
    pub fn is_open(&self, asking: &Asking<'_>) -> bool {
        self.grants.is_some() && needed(asking.method, asking.target).is_none()
    }

    /// Whether the keys that it is about are those of its token, and the token is still good for it: the rules may have
    /// changed while the body was on its way.
    pub fn covers(&self, authorization: Option<&str>, request: &UserRequest) -> Result<(), Denied> {
        let (asked, needed): (&[u8], Role) = match request {
            UserRequest::Kv { key, command } if command.is_write() => (key.as_bytes(), Role::Write),
            UserRequest::Kv { key, .. } | UserRequest::ReadAny(key) | UserRequest::Lookup(key) => {
                (key.as_bytes(), Role::Read)
            }
            UserRequest::List(query) | UserRequest::ListHere(query) => (&query.prefix, Role::Read),
            UserRequest::Watch(query) => (query.filter.bytes(), Role::Read),
            // About no key, and of no body that one could have waited for.
            UserRequest::Ring
            | UserRequest::Node
            | UserRequest::Recover { .. }
            | UserRequest::Leave
            | UserRequest::Livez
            | UserRequest::Readyz
            | UserRequest::Metrics => return Ok(()),
        };
        match self.grant(authorization)? {
            Some(grant) if grant.role < needed => Err(Denied::Role(needed)),
            Some(grant) if !asked.starts_with(&grant.prefix) => Err(Denied::Prefix),
            _ => Ok(()),
        }
    }

    /// What the token is good for; `None` where none is needed. Takes as long whichever it is.
    fn grant(&self, authorization: Option<&str>) -> Result<Option<&Grant>, Denied> {
        let Some(grants) = &self.grants else { return Ok(None) };
        let token = authorization.and_then(bearer).ok_or(Denied::NoToken)?.as_bytes();
        let mut found = u32::MAX;
        for (at, grant) in (0..).zip(grants) {
            let is_it: Choice = grant.token.ct_eq(token);
            found.conditional_assign(&at, is_it);
        }
        let found = usize::try_from(found).ok().and_then(|at| grants.get(at));
        found.map(Some).ok_or(Denied::UnknownToken)
    }
}

impl Denied {
    /// Status, stable code, and a sentence for people.
    pub fn told(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::NoToken => {
                (401, "token_missing", "This node asks for a token: send it as `Authorization: Bearer TOKEN`.")
            }
            Self::UnknownToken => (401, "token_unknown", "There is no such token in this node's --http-token-file."),
            Self::Role(Role::Admin) => (403, "role_too_low", "Only a token with the role admin may do this."),
            Self::Role(_) => (403, "role_too_low", "The token may only read; this needs one with the role write."),
            Self::Prefix => (403, "outside_prefix", "The token is for keys that begin with another prefix."),
            Self::Elsewhere => (
                403,
                "admin_token_needed",
                "Without tokens (--http-token-file) this may be asked from the node's own host only, and not through a proxy.",
            ),
        }
    }

    /// The answer.
    pub fn response(self) -> HttpResponse {
        let (status, code, detail) = self.told();
        let response = problem(status, code, detail);
        if status == 401 { response.with(CHALLENGE_FIELD, CHALLENGE) } else { response }
    }
}

/// What a 401 carries (RFC 9110, section 11.6.1).
pub const CHALLENGE_FIELD: &str = "WWW-Authenticate";
/// Its value.
pub const CHALLENGE: &str = "Bearer realm=\"chordkv\"";

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Access({:?} tokens)", self.grants.as_ref().map(Vec::len))
    }
}

/// `None`: whoever looks after the process may ask this without a token.
fn needed(method: &str, target: &str) -> Option<Role> {
    match Route::of(split(target).0) {
        Some(Route::Livez | Route::Readyz) => None,
        Some(Route::Leave | Route::Recover) => Some(Role::Admin),
        // A browser's question what a page may ask carries no token, and its answer no data.
        _ if method == "OPTIONS" => None,
        _ if matches!(method, "GET" | "HEAD") => Some(Role::Read),
        _ => Some(Role::Write),
    }
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn grant(line: &str) -> Result<Grant, String> {
    let mut words = line.split_ascii_whitespace();
    let role = match words.next() {
        Some("read") => Role::Read,
        Some("write") => Role::Write,
        Some("admin") => Role::Admin,
        _ => return Err("it does not begin with read, write or admin".to_owned()),
    };
    let token = words.next().unwrap_or_default();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) || !token.bytes().all(is_token) {
        return Err(format!(
            "the token after the role has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} letters, digits and -._~+/="
        ));
    }
    let prefix = words.next().unwrap_or_default();
    let prefix = decode(prefix).map_err(|bad| format!("{bad:?} in the prefix is no percent-encoded byte"))?;
    if words.next().is_some() {
        return Err("there is more on it than role, token and prefix; write a space of the prefix as %20".to_owned());
    }
    if role == Role::Admin && !prefix.is_empty() {
        return Err("an admin has no prefix: what an admin does concerns all keys".to_owned());
    }
    Ok(Grant { token: token.as_bytes().to_vec(), role, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::http::{HttpRequest, Limits, parse};

    const READ: &str = "read-read-read-read";
    const WRITE: &str = "write-write-write-write";
    const ADMIN: &str = "admin-admin-admin-admin";
    const APP: &str = "app-app-app-app-app";

    fn access() -> Access {
        let text = format!("# users\nread {READ}\n\nwrite\t{WRITE}  \nadmin {ADMIN}\nwrite {APP} app%20one/\n");
        Access::parse(&text).unwrap()
    }

    /// Both questions, as the program asks them.
    fn asked(access: &Access, method: &str, target: &str, token: Option<&str>, is_local: bool) -> Result<(), Denied> {
        let field = token.map(|token| format!("Bearer {token}"));
        let authorization = field.as_deref();
        access.admits(&Asking { method, target, authorization, is_local })?;
        let headers = vec![("host".to_owned(), "h".to_owned())];
        let request = HttpRequest { method: method.into(), target: target.into(), headers, body: Vec::new() };
        let limits = Limits { value_bytes_max: 100, origins: Vec::new() };
        match parse(request, &limits) {
            Ok(asked) => access.covers(authorization, &asked.request),
            Err(_) => Ok(()),
        }
    }

    #[test]
    fn each_role_may_what_it_says_and_what_those_below_may() {
        let access = access();
        let cases = [
            ("GET", "/v1/kv/a", Some(Role::Read)),
            ("HEAD", "/v1/kv/a", Some(Role::Read)),
            ("GET", "/v1/kv?prefix=a", Some(Role::Read)),
            ("GET", "/v1/watch?key=a", Some(Role::Read)),
            ("GET", "/v1/lookup/a", Some(Role::Read)),
            ("GET", "/v1/ring", Some(Role::Read)),
            ("GET", "/v1/node", Some(Role::Read)),
            ("GET", "/metrics", Some(Role::Read)),
            ("GET", "/nothing", Some(Role::Read)),
            ("PUT", "/v1/kv/a", Some(Role::Write)),
            ("DELETE", "http://h/v1/kv/a", Some(Role::Write)),
            ("BREW", "/v1/kv/a", Some(Role::Write)),
            ("GET", "/v1/recover", Some(Role::Admin)),
            ("POST", "/v1/recover?lost=a:1", Some(Role::Admin)),
            ("POST", "/v1/node/leave", Some(Role::Admin)),
            ("OPTIONS", "/v1/node/leave", Some(Role::Admin)),
            ("POST", "http://h/v1/node/leave?x", Some(Role::Admin)),
            ("OPTIONS", "/v1/kv/a", None),
            ("GET", "/livez", None),
            ("GET", "/readyz", None),
        ];
        for (method, target, needed) in cases {
            let ask = |token| asked(&access, method, target, token, true);
            let Some(needed) = needed else {
                assert_eq!(ask(None), Ok(()), "{method} {target}");
                continue;
            };
            assert_eq!(ask(None), Err(Denied::NoToken), "{method} {target}");
            assert_eq!(ask(Some("nobody-nobody-nobody")), Err(Denied::UnknownToken), "{method} {target}");
            for (token, role) in [(READ, Role::Read), (WRITE, Role::Write), (ADMIN, Role::Admin)] {
                let expected = if role < needed { Err(Denied::Role(needed)) } else { Ok(()) };
                assert_eq!(ask(Some(token)), expected, "{method} {target} as {role:?}");
            }
        }
    }

    #[test]
    fn a_token_with_a_prefix_reaches_nothing_else() {
        let access = access();
        let ask = |method, target| asked(&access, method, target, Some(APP), true);
        for (method, target) in [
            ("PUT", "/v1/kv/app%20one/a"),
            ("GET", "/v1/kv/app%20one%2Fb?consistency=stale"),
            ("DELETE", "/v1/kv/app%20one/"),
            ("GET", "/v1/kv?prefix=app+one/x"),
            ("GET", "/v1/watch?prefix=app%20one/"),
            ("GET", "/v1/watch?key=app+one/k"),
            ("GET", "/v1/lookup/app%20one/a"),
            ("GET", "/v1/ring"),
        ] {
            assert_eq!(ask(method, target), Ok(()), "{method} {target}");
        }
        for (method, target) in [
            ("PUT", "/v1/kv/app%20on"),
            ("PUT", "/v1/kv/app%20two/a"),
            ("GET", "/v1/kv/a?consistency=stale"),
            ("DELETE", "/v1/kv/%61pp/"),
            ("GET", "/v1/kv"),
            ("GET", "/v1/kv?prefix=app"),
            ("GET", "/v1/kv?scope=node"),
            ("GET", "/v1/watch?prefix="),
            ("GET", "/v1/watch?key=other"),
            ("GET", "/v1/lookup/a"),
        ] {
            assert_eq!(ask(method, target), Err(Denied::Prefix), "{method} {target}");
        }
    }

    #[test]
    fn a_token_that_may_only_read_by_now_writes_nothing_that_it_has_begun() {
        let (field, request) = (format!("Bearer {WRITE}"), |method: &str| {
            let headers = vec![("host".to_owned(), "h".to_owned())];
            let (method, target, body) = (method.to_owned(), "/v1/kv/a".to_owned(), Vec::new());
            let limits = Limits { value_bytes_max: 100, origins: Vec::new() };
            parse(HttpRequest { method, target, headers, body }, &limits).unwrap().request
        });
        let demoted = Access::parse(&format!("read {WRITE}")).unwrap();
        for method in ["PUT", "DELETE"] {
            assert_eq!(access().covers(Some(&field), &request(method)), Ok(()));
            assert_eq!(demoted.covers(Some(&field), &request(method)), Err(Denied::Role(Role::Write)));
        }
        assert_eq!(demoted.covers(Some(&field), &request("GET")), Ok(()));
    }

    #[test]
    fn without_tokens_only_the_host_itself_may_what_an_admin_may() {
        let access = Access::default();
        for is_local in [true, false] {
            for (method, target) in [("GET", "/v1/kv/a"), ("PUT", "/v1/kv/a"), ("GET", "/v1/ring")] {
                assert_eq!(asked(&access, method, target, None, is_local), Ok(()));
            }
            let expected = if is_local { Ok(()) } else { Err(Denied::Elsewhere) };
            for (method, target) in [("POST", "/v1/node/leave"), ("GET", "/v1/recover")] {
                assert_eq!(asked(&access, method, target, Some("whatever-it-may-be"), is_local), expected);
            }
        }
    }

    #[test]
    fn schemes_are_told_apart_and_tokens_are_whole() {
        let access = access();
        let ask = |field: &str| {
            let authorization = Some(field);
            access.admits(&Asking { method: "GET", target: "/v1/ring", authorization, is_local: false })
        };
        assert_eq!(ask(&format!("bEARER  {READ} ")), Ok(()));
        for field in [format!("Basic {READ}"), READ.to_owned(), "Bearer".to_owned(), String::new()] {
            assert_eq!(ask(&field), Err(Denied::NoToken), "{field:?}");
        }
        for token in [&READ[1..], &READ[..READ.len() - 1], &format!("{READ}a"), &READ.to_uppercase()] {
            assert!(matches!(ask(&format!("Bearer {token}")), Err(Denied::UnknownToken)), "{token:?}");
        }
    }

    #[test]
    fn mistakes_in_a_file_are_named_by_line_and_tokens_never_told() {
        let cases = [
            (String::new(), "no token"),
            (format!("root {READ}"), "line 1: it does not begin with read, write or admin"),
            ("read short".to_owned(), "line 1: the token after the role has 16 to 512"),
            (format!("\nwrite {READ}é"), "line 2: the token after"),
            (format!("read {READ}\nwrite {READ}"), "line 2: the token stands on another line"),
            (format!("admin {ADMIN} app/"), "line 1: an admin has no prefix"),
            (format!("read {READ} a%2"), "no percent-encoded byte"),
            (format!("read {READ} a b"), "line 1: there is more on it"),
        ];
        for (text, says) in cases {
            let said = Access::parse(&text).unwrap_err();
            assert!(said.contains(says) && !said.contains(READ) && !said.contains("short"), "{said}");
        }
        let many: Vec<String> = (0..=TOKENS_MAX).map(|n| format!("read token-token-token-{n}")).collect();
        assert!(Access::parse(&many.join("\n")).unwrap_err().contains("more than 1024"));
        assert_eq!(format!("{:?}", access()), "Access(Some(4) tokens)");
    }
}
