//! Requests to the HTTP interface of a node, and what its refusals mean to the user.

use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::http::{HeaderMap, Method, Request};

use super::env::Env;
use super::failure::Failure;
use super::text::one_line;
use super::url::NodeUrl;

/// One node, over HTTP.
pub struct Client {
    node: NodeUrl,
    agent: Agent,
    timeout: Duration,
    /// The field that shows who asks, if anything was said.
    authorization: Option<String>,
}

/// What was asked for.
pub struct Ask<'a> {
    /// `GET`, `PUT`, `POST` or `DELETE`.
    pub method: Method,
    /// Path and query, percent-encoded.
    pub target: &'a str,
    /// Header lines; their values are text that a header may have.
    pub headers: &'a [(&'static str, &'a str)],
    /// The body of a `PUT`.
    pub body: &'a [u8],
}

impl<'a> Ask<'a> {
    /// A plain request.
    pub fn new(method: Method, target: &'a str) -> Self {
        Self { method, target, headers: &[], body: &[] }
    }
}

/// What a node answered.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header lines.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The host refused the connection: no process listens there.
    Refused(String),
    /// No connection; nothing was done.
    Unreachable(String),
    /// The connection broke off or took too long; what was asked for may have happened.
    Lost(String),
}

impl Client {
    /// To the node that was named by the flag, or in the environment, or to the usual one.
    pub fn to_node(flag: Option<NodeUrl>, env: &Env) -> Result<Self, Failure> {
        let node = match flag {
            Some(node) => node,
            None => env.read("NODE", NodeUrl::parse)?.unwrap_or_default(),
        };
        Ok(Self::new(node, TIMEOUT, token(env)?.map(|token| format!("Bearer {token}"))))
    }

    fn new(node: NodeUrl, timeout: Duration, authorization: Option<String>) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // Nodes are reached directly; a proxy of the web would not find 127.0.0.1.
            .proxy(None)
            .user_agent(concat!("chordkv/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(timeout.min(CONNECT_TIMEOUT)))
            .timeout_global(Some(timeout))
            .build()
            .new_agent();
        Self { node, agent, timeout, authorization }
    }

    /// The same node with another time-out.
    pub fn within(&self, timeout: Duration) -> Self {
        Self::new(self.node.clone(), timeout, self.authorization.clone())
    }

    /// Which node.
    pub fn node(&self) -> &NodeUrl {
        &self.node
    }

    /// What goes into the field `Authorization`.
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// Any answer, also a refusal.
    pub fn try_ask(&self, ask: &Ask<'_>) -> Result<Answer, NoAnswer> {
        self.exchange(ask).map_err(|error| self.no_answer(&error))
    }

    /// Any answer, also a refusal.
    pub fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        self.try_ask(ask).map_err(|none| none.into_failure(ask))
    }

    /// The document at a path, as it came and as it is understood.
    pub fn document<T: DeserializeOwned>(&self, target: &str) -> Result<(Vec<u8>, T), Failure> {
        let answer = self.ask(&Ask::new(Method::GET, target))?;
        if answer.status != 200 {
            return Err(self.refusal(&answer));
        }
        let document = self.read(&answer.body)?;
        Ok((answer.body, document))
    }

    /// A JSON document of the node.
    pub fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(body).map_err(|error| {
            Failure::Failed(format!(
                "{} sent a document that is not understood here ({error}); is it a chordkv node of this version?",
                self.node
            ))
        })
    }

    /// What a status that says no means.
    pub fn refusal(&self, answer: &Answer) -> Failure {
        let text = match serde_json::from_slice::<Problem>(&answer.body) {
            Ok(problem) if answer.status == 401 => one_line(&format!(
                "{} ({}). It is taken from CHORDKV_TOKEN, or from the file that CHORDKV_TOKEN_FILE names",
                problem.detail.trim_end_matches('.'),
                problem.code
            )),
            Ok(problem) => one_line(&format!("{} ({})", problem.detail, problem.code)),
            Err(_) => format!(
                "{} answered with status {}; is it the HTTP interface of a chordkv node?",
                self.node, answer.status
            ),
        };
        Failure::Failed(text)
    }

    fn exchange(&self, ask: &Ask<'_>) -> Result<Answer, ureq::Error> {
        let mut request = Request::builder().method(&ask.method).uri(self.node.with(ask.target));
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        for (name, value) in ask.headers {
            request = request.header(*name, *value);
        }
        let response = match ask.method {
            Method::PUT | Method::POST => self.agent.run(request.body(ask.body)?)?,
            _ => self.agent.run(request.body(())?)?,
        };
        let (parts, mut body) = response.into_parts();
        let body = body.with_config().limit(BODY_BYTES_MAX).read_to_vec()?;
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    fn no_answer(&self, error: &ureq::Error) -> NoAnswer {
        let node = &self.node;
        let seconds = |span: Duration| format!("{} s", span.as_secs_f64());
        let unreachable = |reason: &str| {
            format!(
                "{node} cannot be reached ({reason}): is the node running? --node or CHORDKV_NODE says which one is asked"
            )
        };
        match error {
            ureq::Error::HostNotFound => NoAnswer::Unreachable(unreachable("the host name is not known")),
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                let limit = seconds(self.timeout.min(CONNECT_TIMEOUT));
                NoAnswer::Unreachable(unreachable(&format!("no connection within {limit}")))
            }
            ureq::Error::Timeout(_) => {
                NoAnswer::Lost(format!("{node} did not answer within {}", seconds(self.timeout)))
            }
            ureq::Error::Io(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => NoAnswer::Refused(unreachable("connection refused")),
                io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::AddrNotAvailable => NoAnswer::Unreachable(unreachable(&error.to_string())),
                _ => NoAnswer::Lost(format!("the connection to {node} broke off ({error})")),
            },
            error => NoAnswer::Lost(format!(
                "the answer of {node} is not understood ({error}); is it the HTTP interface of a chordkv node?"
            )),
        }
    }
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl NoAnswer {
    fn into_failure(self, ask: &Ask<'_>) -> Failure {
        match self {
            Self::Refused(text) | Self::Unreachable(text) => Failure::Failed(text),
            Self::Lost(text) if ask.method == Method::GET => Failure::Failed(text),
            Self::Lost(text) => Failure::Failed(format!("{text}; what was asked for may have happened all the same")),
        }
    }
}

/// The user's token. Never part of a message.
fn token(env: &Env) -> Result<Option<String>, Failure> {
    let (name, text) = match (env.get("TOKEN"), env.get("TOKEN_FILE")) {
        (Some(token), _) => ("CHORDKV_TOKEN", token.to_str().unwrap_or_default().to_owned()),
        (None, Some(path)) => {
            let failed =
                |error| Failure::Failed(format!("CHORDKV_TOKEN_FILE: {} cannot be read: {error}", path.display()));
            ("CHORDKV_TOKEN_FILE", std::fs::read_to_string(path).map_err(failed)?)
        }
        (None, None) => return Ok(None),
    };
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::Usage(format!(
            "{name} in the environment: it is no token, which is one word of visible ASCII"
        )));
    }
    Ok(Some(token.to_owned()))
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
    code: String,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(30);
/// More than any page or value has; the ring document of 100,000 nodes is about so large.
const BODY_BYTES_MAX: u64 = 64 << 20;
