//! Tokens of users: who may ask for what.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::support::client::Answer;
use crate::support::{Client, Node, PATIENCE, Process, side_by_side};

pub const READ: &str = "read-0123456789abcdef";
pub const WRITE: &str = "write-0123456789abcdef";
pub const ADMIN: &str = "admin-0123456789abcdef";
pub const APP: &str = "app-0123456789abcdef";

/// A file with a token of each role, and one for keys of an application.
pub fn token_file(dir: &Path) -> PathBuf {
    let path = dir.join("tokens");
    write_secret(&path, &format!("# users\nread {READ}\nwrite {WRITE}\nadmin {ADMIN}\nwrite {APP} app/\n"));
    path
}

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).expect("it is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
}

#[track_caller]
fn ask(client: &mut Client, method: &str, target: &str, token: &str, body: &[u8]) -> Answer {
    let field = format!("Bearer {token}");
    let fields: &[(&str, &str)] = if token.is_empty() { &[] } else { &[("Authorization", &field)] };
    client.ask(method, target, fields, body).expect("an answer")
}

#[test]
fn each_token_may_what_its_role_says_and_nobody_anything_without() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let tokens = token_file(dir.path());
    let mut node = Node::create(&["--http-token-file", tokens.to_str().expect("UTF-8")]);
    node.wait_ready();
    let mut client = node.client();
    for (method, target, body) in [
        ("GET", "/v1/kv/a", &b""[..]),
        ("PUT", "/v1/kv/a", b"v"),
        ("DELETE", "/v1/kv/a", b""),
        ("GET", "/v1/kv", b""),
        ("GET", "/v1/ring", b""),
        ("GET", "/nothing", b""),
        ("POST", "/v1/node/leave", b"x"),
    ] {
        let answer = ask(&mut client, method, target, "", body);
        answer.is_problem(401, "token_missing");
        assert_eq!(answer.field("www-authenticate"), Some("Bearer realm=\"chordkv\""));
        ask(&mut client, method, target, "unknown-0123456789", body).is_problem(401, "token_unknown");
    }
    ask(&mut client, "PUT", "/v1/kv/a", READ, b"v").is_problem(403, "role_too_low");
    ask(&mut client, "PUT", "/v1/kv/a", WRITE, b"v").is(201);
    ask(&mut client, "GET", "/v1/kv/a", READ, b"").is(200);
    ask(&mut client, "PUT", "/v1/kv/app/a", APP, b"v").is(201);
    ask(&mut client, "GET", "/v1/kv?prefix=app/", APP, b"").is(200);
    ask(&mut client, "GET", "/v1/kv/a", APP, b"").is_problem(403, "outside_prefix");
    ask(&mut client, "GET", "/v1/kv", APP, b"").is_problem(403, "outside_prefix");
    ask(&mut client, "HEAD", "/v1/kv/a", APP, b"").is(403);
    ask(&mut client, "POST", "/v1/node/leave", WRITE, b"").is_problem(403, "role_too_low");
    ask(&mut client, "GET", "/v1/recover", WRITE, b"").is_problem(403, "role_too_low");
    ask(&mut client, "GET", "/v1/recover", ADMIN, b"").is(200);
    client.get("/livez").expect("an answer").is(200);
    ask(&mut client, "POST", "/v1/node/leave", ADMIN, b"").is(202);
    let said = node.ends_with(0, PATIENCE);
    for secret in [READ, WRITE, ADMIN, APP] {
        assert!(!said.iter().any(|line| line.contains(secret)), "a token stands in the log");
    }
}

#[test]
fn a_body_is_not_waited_for_where_there_is_no_token() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let node = Node::create(&["--http-token-file", token_file(dir.path()).to_str().expect("UTF-8")]);
    let mut stream = TcpStream::connect(node.http).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.write_all(b"PUT /v1/kv/a HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").expect("it is sent");
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("an answer before the body");
    assert_eq!(&head, b"HTTP/1.1 401");
    // Nor is one read where none is needed; a HEAD has no answer with a body, whatever it had itself.
    for (request, status) in [("OPTIONS /v1/kv/a", "413"), ("GET /livez", "413"), ("HEAD /v1/kv/a", "401")] {
        let mut stream = TcpStream::connect(node.http).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let head = format!("{request} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer before the body, and the end");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(answer.ends_with("\r\n\r\n"), request.starts_with("HEAD"), "{answer}");
    }
}

#[test]
fn tokens_change_while_the_node_runs_and_a_wrong_file_changes_nothing() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let path = token_file(dir.path());
    let node = Node::create(&["--http-token-file", path.to_str().expect("UTF-8")]);
    node.wait_ready();
    // On one connection that is open all the time.
    let mut client = node.client();
    ask(&mut client, "PUT", "/v1/kv/a", WRITE, b"v").is(201);
    write_secret(&path, &format!("read {WRITE}\n"));
    ask(&mut client, "PUT", "/v1/kv/a", WRITE, b"v").is(204);
    node.signal(Signal::HUP);
    node.wait_said("the tokens were read again", 1, PATIENCE);
    ask(&mut client, "PUT", "/v1/kv/a", WRITE, b"v").is_problem(403, "role_too_low");
    ask(&mut client, "GET", "/v1/kv/a", READ, b"").is_problem(401, "token_unknown");
    write_secret(&path, "nonsense");
    node.signal(Signal::HUP);
    node.wait_said("the tokens stay as they were", 1, PATIENCE);
    ask(&mut client, "GET", "/v1/kv/a", WRITE, b"").is(200);
}

#[test]
fn without_tokens_what_only_an_admin_may_is_for_the_host_itself() {
    let _turn = side_by_side();
    let mut node = Node::create(&[]);
    node.wait_ready();
    let mut client = node.client();
    for field in ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"] {
        for (method, target) in [("POST", "/v1/node/leave"), ("GET", "/v1/recover")] {
            let answer = client.ask(method, target, &[(field, "192.0.2.1")], b"").expect("an answer");
            answer.is_problem(403, "admin_token_needed");
        }
        client.ask("PUT", "/v1/kv/a", &[(field, "192.0.2.1")], b"v").expect("an answer");
        client.ask("GET", "/v1/kv/a", &[(field, "192.0.2.1")], b"").expect("an answer").is(200);
    }
    client.ask("POST", "/v1/node/leave", &[], b"").expect("an answer").is(202);
    node.ends_with(0, PATIENCE);
}

#[test]
fn commands_show_the_token_of_their_environment() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let node = Node::create(&["--http-token-file", token_file(dir.path()).to_str().expect("UTF-8")]);
    node.wait_ready();
    let url = node.http.to_string();
    let run = |env: &[(&str, &str)], args: &[&str]| Process::run_in(env, &[&["--node", &url], args].concat());
    run(&[], &["put", "a", "v"]).fails_with(1, &["token_missing", "CHORDKV_TOKEN"]);
    run(&[("CHORDKV_TOKEN", "wrong-0123456789abc")], &["put", "a", "v"]).fails_with(1, &["token_unknown"]);
    run(&[("CHORDKV_TOKEN", READ)], &["put", "a", "v"]).fails_with(1, &["role_too_low"]);
    run(&[("CHORDKV_TOKEN", "a b")], &["get", "a"]).fails_with(2, &["CHORDKV_TOKEN", "no token"]);
    run(&[("CHORDKV_TOKEN", WRITE)], &["put", "a", "v"]).ends_with(0, PATIENCE);
    let file = dir.path().join("mine");
    fs::write(&file, format!("{WRITE}\n")).expect("a file");
    let env = [("CHORDKV_TOKEN_FILE", file.to_str().expect("UTF-8"))];
    run(&env, &["bench", "--for", "100ms", "--connections", "2", "--keys", "5"]).ends_with(0, PATIENCE);
    run(&[("CHORDKV_TOKEN", WRITE)], &["leave"]).fails_with(1, &["role_too_low"]);
    run(&[("CHORDKV_TOKEN", ADMIN)], &["leave", "--no-wait"]).ends_with(0, PATIENCE);
}

#[test]
fn a_file_of_tokens_that_is_wrong_or_open_to_all_keeps_the_node_from_starting() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let path = token_file(dir.path());
    let text = path.to_str().expect("UTF-8");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
    Process::node(&["--http-token-file", text]).fails_with(1, &["--http-token-file", "chmod 600"]);
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let pipe = pipe.to_str().expect("UTF-8");
    Process::node(&["--http-token-file", pipe]).fails_with(1, &["no regular file"]);
    write_secret(&path, "read short");
    Process::node(&["--http-token-file", text]).fails_with(1, &["--http-token-file", "line 1"]);
}

#[test]
fn a_page_whose_origin_was_named_may_ask_and_no_other() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let node = Node::create(&["--cors-origin", "https://app.example.org"]);
    node.wait_ready();
    let mut client = node.client();
    let mut ask = |method: &str, origin: &str, body: &[u8]| {
        client.ask(method, "/v1/kv/a", &[("Origin", origin)], body).expect("an answer")
    };
    let page = "https://app.example.org";
    let asked = ask("OPTIONS", page, b"");
    assert_eq!(asked.is(204).field("access-control-allow-origin"), Some(page));
    assert_eq!(ask("PUT", page, b"v").is(201).field("access-control-allow-origin"), Some(page));
    assert_eq!(ask("GET", page, b"").is(200).field("access-control-allow-origin"), Some(page));
    ask("PUT", "https://evil.example", b"v").is_problem(403, "foreign_origin");
    assert_eq!(ask("GET", "https://evil.example", b"").is(200).field("access-control-allow-origin"), None);
    // A page can tell that its token is missing.
    let tokens = token_file(dir.path());
    let node = Node::create(&["--cors-origin", page, "--http-token-file", tokens.to_str().expect("UTF-8")]);
    let refused = |origin: &str| {
        let answer = node.client().ask("GET", "/v1/kv/a", &[("Origin", origin)], b"").expect("an answer");
        answer.is(401).field("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(refused(page).as_deref(), Some(page));
    assert_eq!(refused("https://evil.example"), None);
}

#[test]
fn whom_a_node_refuses_is_told_by_reason() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let key = dir.path().join("ring.key");
    let key = key.to_str().expect("UTF-8");
    Process::run(&["keygen", key]).ends_with(0, PATIENCE);
    let tokens = token_file(dir.path());
    let node = Node::create(&["--ring-key-file", key, "--http-token-file", tokens.to_str().expect("UTF-8")]);
    node.wait_ready();
    let mut client = node.client();
    ask(&mut client, "GET", "/v1/kv/a", "", b"").is(401);
    ask(&mut client, "GET", "/v1/kv/a", APP, b"").is_problem(403, "outside_prefix");
    ask(&mut client, "GET", "/metrics", "", b"").is(401);
    for _ in 0..2 {
        let mut stranger = TcpStream::connect(node.peers).expect("a connection");
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it is sent");
        // It is cut off, with or without an answer to what it said.
        let _ = stranger.read(&mut [0; 1]);
    }
    let told = ask(&mut client, "GET", "/metrics", READ, b"");
    assert_eq!(told.field("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let text = String::from_utf8(told.is(200).body.clone()).expect("UTF-8");
    for line in [
        "chordkv_in_ring 1",
        "chordkv_slots 1024",
        "chordkv_peers_refused_total{reason=\"no_key\"} 2",
        "chordkv_http_refused_total{code=\"token_missing\"} 2",
        "chordkv_http_refused_total{code=\"outside_prefix\"} 1",
        "# EOF",
    ] {
        assert!(text.lines().any(|of| of == line), "{line} is not in {text}");
    }
}
