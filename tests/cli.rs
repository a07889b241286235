//! The built program: exit codes, what goes to which output, and what is sent to a node. The node is a thread that
//! speaks prepared answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

const COMMANDS: [&str; 14] = [
    "node",
    "leave",
    "get",
    "put",
    "del",
    "ls",
    "ring",
    "status",
    "trace",
    "health",
    "sim",
    "sim figures",
    "config",
    "config check",
];
const PROBLEM: &str = "Content-Type: application/problem+json\r\n";
const ETAG: &str = "\"1-2a-00000000000000000000000000000abc\"";

fn chordkv(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chordkv"));
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CHORDKV_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(args: &[&str]) -> Output {
    chordkv(args).output().expect("the program starts")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// A failure says why in one line, and nothing on standard output.
#[track_caller]
fn assert_fails(output: &Output, code: i32, says: &[&str]) {
    let text = err(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(out(output), "");
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in ["chordkv: "].iter().chain(says) {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

/// A node that gives the answers in order, one for each connection, and then is gone.
struct FakeNode {
    url: String,
    thread: JoinHandle<Vec<String>>,
}

impl FakeNode {
    fn start(answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let thread = thread::spawn(move || {
            let serve = |answer: Vec<u8>| {
                let (mut stream, _) = listener.accept().expect("a connection");
                let request = read_request(&stream);
                stream.write_all(&answer).expect("the answer is sent");
                request
            };
            answers.into_iter().map(serve).collect()
        });
        Self { url, thread }
    }

    /// The requests that came, each as its text.
    fn requests(self) -> Vec<String> {
        self.thread.join().expect("every answer was asked for")
    }
}

fn read_request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).expect("a line"), 0, "the request ends early: {head}");
    }
    let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).expect("the body");
    head + &String::from_utf8_lossy(&body)
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn no_content(headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 204 No Content\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

fn problem(status: &str, code: &str, detail: &str) -> Vec<u8> {
    let body = serde_json::json!({"type": "x", "title": "x", "status": 1, "detail": detail, "code": code});
    answer(status, PROBLEM, body.to_string().as_bytes())
}

fn json(body: &str) -> Vec<u8> {
    answer("200 OK", "Content-Type: application/json\r\n", body.as_bytes())
}

/// Runs a command against a node with these answers; gives what it did and what the node was asked.
fn against(answers: Vec<Vec<u8>>, args: &[&str]) -> (Output, Vec<String>) {
    let node = FakeNode::start(answers);
    let output = run(&[&["--node", &node.url], args].concat());
    (output, node.requests())
}

/// A URL where nothing listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

#[test]
fn help_of_every_command_is_data_with_examples() {
    for command in std::iter::once("").chain(COMMANDS) {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let output = run(&args);
        assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""), "{command}");
        assert!(out(&output).contains("Examples:\n  chordkv "), "{command}");
        assert!(!out(&output).contains('\x1b'), "colours in a pipe");
    }
    assert_eq!(out(&run(&["--version"])), format!("chordkv {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_ends_with_2_and_says_why_in_its_first_line() {
    let cases: [(&[&str], &str); 16] = [
        (&["frobnicate"], "unrecognized subcommand 'frobnicate'"),
        (&["get"], "required arguments"),
        (&["get", "a", "--frob"], "unexpected argument '--frob'"),
        (&["get", ""], "the key is empty"),
        (&["put", "a", "b", "--ttl", "30"], "such as 30s"),
        (&["ls", "--limit", "0"], "invalid value '0'"),
        (&["--node", "https://a", "ring"], "https is not spoken"),
        (&["node", "--capacity", "161"], "from 1 to 160"),
        (&["node", "--listen", "0.0.0.0:0"], "--advertise HOST:PORT"),
        (&["node", "--data-dir", ""], "name a directory"),
        (&["sim", "--nodes", "0"], "from 1 to 100000"),
        (&["sim", "--churn", "-1"], "such as 0.05"),
        (&["sim", "--kill", "1"], "such as 0.5"),
        (&["sim", "--latency", "20ms"], "plane:156ms"),
        (&["sim", "--node", "127.0.0.1:8000"], "asks no running node"),
        (&["sim", "--seed", "1", "figures"], "cannot be used with"),
    ];
    for (args, says) in cases {
        let output = run(args);
        let text = err(&output);
        assert_eq!((output.status.code(), out(&output).as_str()), (Some(2), ""), "{args:?}: {text}");
        assert!(text.lines().next().is_some_and(|first| first.contains(says)), "{text}");
    }
    assert_eq!(run(&[]).status.code(), Some(2));
}

#[test]
fn a_wrong_variable_is_wrong_usage_and_named() {
    let output = chordkv(&["ring"]).env("CHORDKV_NODE", "https://a").output().expect("the program starts");
    assert_fails(&output, 2, &["CHORDKV_NODE=https://a", "https is not spoken"]);
    let output = chordkv(&["node"]).env("CHORDKV_REPLICAS", "99").output().expect("the program starts");
    assert_fails(&output, 2, &["CHORDKV_REPLICAS=99", "from 1 to 16"]);
}

#[test]
fn a_node_that_does_not_run_is_named_by_every_client_command() {
    let url = nowhere();
    for command in ["leave", "get a", "put a b", "del a", "ls", "ring", "status", "trace a", "health"] {
        let args: Vec<&str> = command.split_whitespace().chain(["--node", &url]).collect();
        assert_fails(&run(&args), 1, &[&url, "connection refused", "is the node running?", "--node or CHORDKV_NODE"]);
    }
    assert_fails(&run(&["ring", "--node", "no-such-host.invalid:1"]), 1, &["no-such-host.invalid:1"]);
}

#[test]
fn a_silent_node_is_given_up_after_the_time_out() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    assert_fails(&run(&["health", "--timeout", "200ms", "--node", &url]), 1, &[&url, "did not answer within 0.2 s"]);
}

#[test]
fn get_prints_the_raw_value_and_nothing_else() {
    let value = b"\0\xff\nv";
    let headers = format!("ETag: {ETAG}\r\nContent-Type: text/plain\r\nX-Chord-Expires-In: 7\r\n");
    let found = || vec![answer("200 OK", &headers, value)];
    let (output, requests) = against(found(), &["get", "a/b c"]);
    assert_eq!((output.status.code(), output.stdout.as_slice(), err(&output).as_str()), (Some(0), &value[..], ""));
    assert!(requests[0].starts_with("GET /v1/kv/a%2Fb%20c HTTP/1.1\r\n"), "{}", requests[0]);

    let (output, requests) = against(found(), &["get", "a", "--json", "--stale"]);
    assert!(requests[0].starts_with("GET /v1/kv/a?consistency=stale "), "{}", requests[0]);
    let expected = serde_json::json!({
        "key": "a", "size": 4, "etag": ETAG, "content_type": "text/plain", "expires_in": 7, "value_base64": "AP8Kdg==",
    });
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON"), expected);

    let (output, _) = against(found(), &["get", "a", "--include"]);
    assert_eq!(output.stdout, value);
    assert!(err(&output).to_lowercase().contains("x-chord-expires-in: 7\n"), "{}", err(&output));

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("v");
    let (output, _) = against(found(), &["get", "a", "--out", path.to_str().expect("UTF-8")]);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(0), ""));
    assert_eq!(std::fs::read(path).expect("the file"), value);
}

#[test]
fn a_missing_key_is_1_with_the_detail_and_code_of_the_node() {
    let missing = || vec![problem("404 Not Found", "key_not_found", "there is no value under this key")];
    for args in [["get", "a"], ["del", "a"]] {
        let (output, _) = against(missing(), &args);
        assert_fails(&output, 1, &["chordkv: there is no value under this key (key_not_found)"]);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("v");
    against(missing(), &["get", "a", "--out", path.to_str().expect("UTF-8")]);
    assert!(!path.exists(), "nothing is written where there is no value");
}

#[cfg(unix)]
#[test]
fn keys_and_values_that_are_not_utf_8_arrive_byte_by_byte() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let node = FakeNode::start(vec![answer("201 Created", &format!("ETag: {ETAG}\r\n"), b"")]);
    let mut command = chordkv(&["--node", &node.url, "put", "--json"]);
    let output = command.arg(OsStr::from_bytes(b"\xff/\x01")).arg("v").output().expect("the program starts");
    let expected = format!("{{\"key\":\"/y8B\",\"key_base64\":true,\"etag\":{ETAG:?},\"created\":true}}\n");
    assert_eq!((output.status.code(), out(&output)), (Some(0), expected));
    assert!(node.requests()[0].starts_with("PUT /v1/kv/%FF%2F%01 "));
}

#[test]
fn put_sends_conditions_and_prints_the_etag() {
    let created = vec![answer("201 Created", &format!("ETag: {ETAG}\r\n"), b"")];
    let args = ["put", "a", "v", "--ttl", "1h 30m", "--if-none-match", "*", "--content-type", "text/css"];
    let (output, requests) = against(created, &args);
    assert_eq!(out(&output), format!("{} created\n", ETAG.trim_matches('"')), "{}", err(&output));
    let request = requests[0].to_lowercase();
    assert!(request.starts_with("put /v1/kv/a?ttl=1h%2030m http/1.1\r\n"), "{request}");
    for line in ["if-none-match: *", "content-type: text/css", "content-length: 1"] {
        assert!(request.contains(&format!("\r\n{line}\r\n")), "{line} is not in {request}");
    }
    assert!(request.ends_with("\r\n\r\nv"));

    let replaced = vec![no_content(&format!("ETag: {ETAG}\r\n"))];
    let (output, requests) = against(replaced, &["put", "a", "", "--if-match", ETAG.trim_matches('"')]);
    assert_eq!(out(&output), format!("{} replaced\n", ETAG.trim_matches('"')));
    let request = requests[0].to_lowercase();
    assert!(request.contains(&format!("\r\nif-match: {ETAG}\r\n")) && request.contains("\r\ncontent-length: 0\r\n"));
    assert!(!request.contains("content-type"), "{request}");
}

#[test]
fn put_reads_standard_input_and_files() {
    let created = || vec![answer("201 Created", &format!("ETag: {ETAG}\r\n"), b"")];
    for args in [&["put", "a"][..], &["put", "a", "-"]] {
        let node = FakeNode::start(created());
        let mut child = chordkv(&[&["--node", &node.url], args].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program starts");
        child.stdin.take().expect("a pipe").write_all(b"from a pipe").expect("written");
        assert!(child.wait().expect("an end").success());
        assert!(node.requests()[0].ends_with("\r\n\r\nfrom a pipe"));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("v");
    std::fs::write(&path, "from a file").expect("written");
    let (output, requests) = against(created(), &["put", "a", &format!("@{}", path.display())]);
    assert!(output.status.success() && requests[0].ends_with("\r\n\r\nfrom a file"));
}

#[test]
fn a_failed_precondition_is_1() {
    let failed = vec![problem("412 Precondition Failed", "precondition_failed", "the precondition does not hold")];
    let (output, requests) = against(failed, &["del", "a", "--if-match", "1-2a-0"]);
    assert_fails(&output, 1, &["the precondition does not hold (precondition_failed)"]);
    assert!(requests[0].starts_with("DELETE /v1/kv/a ") && requests[0].to_lowercase().contains("if-match: \"1-2a-0\""));
    let (output, _) = against(vec![no_content("")], &["del", "a"]);
    assert_eq!((output.status.code(), out(&output).as_str(), err(&output).as_str()), (Some(0), "", ""));
}

#[test]
fn a_write_whose_answer_is_lost_may_have_happened() {
    let (output, _) = against(vec![Vec::new()], &["put", "a", "b"]);
    assert_fails(&output, 1, &["may have happened"]);
    let (output, _) = against(vec![Vec::new()], &["get", "a"]);
    assert_fails(&output, 1, &["http://127.0.0.1:"]);
    assert!(!err(&output).contains("may have happened"));
}

fn page(keys: &[(&str, bool)], cursor: &str) -> Vec<u8> {
    let item = |(key, base64): &(&str, bool)| {
        let mut item = serde_json::json!({
            "key": key, "size": 1536, "etag": ETAG, "content_type": "text/css", "expires_in": 65,
        });
        if *base64 {
            item["key_base64"] = true.into();
        }
        item
    };
    let items: Vec<_> = keys.iter().map(item).collect();
    let cursor = if cursor.is_empty() { serde_json::Value::Null } else { cursor.into() };
    json(&serde_json::json!({"items": items, "cursor": cursor}).to_string())
}

#[test]
fn ls_follows_cursors_to_the_end_or_the_limit() {
    let pages = || vec![page(&[("a", false), ("b\n", false)], "Yg-_"), page(&[("//4=", true)], "")];
    let (output, requests) = against(pages(), &["ls", "a/"]);
    assert_eq!(out(&output), "a\nb\\x0A\n\\xFF\\xFE\n", "{}", err(&output));
    assert!(requests[0].starts_with("GET /v1/kv?prefix=a%2F&limit=1000&cursor= "), "{}", requests[0]);
    assert!(requests[1].starts_with("GET /v1/kv?prefix=a%2F&limit=1000&cursor=Yg-_ "), "{}", requests[1]);

    let (output, requests) = against(vec![page(&[("a", false), ("b", false)], "Yg")], &["ls", "--limit", "2"]);
    assert_eq!((out(&output).as_str(), output.status.code()), ("a\nb\n", Some(0)));
    assert!(requests[0].contains("&limit=2&"));

    let (output, _) = against(pages(), &["ls", "--json"]);
    let lines: Vec<serde_json::Value> =
        out(&output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((lines.len(), &lines[0]["key"], &lines[2]["key_base64"]), (3, &"a".into(), &true.into()));

    let (output, _) = against(pages(), &["ls", "--long"]);
    let text = out(&output);
    let head = "   SIZE  EXPIRES  TYPE      ETAG                                   KEY";
    assert_eq!(text.lines().next(), Some(head), "{text}");
    assert_eq!(
        text.lines().last(),
        Some(&*format!("1.5 KiB    1m 5s  text/css  {}  \\xFF\\xFE", ETAG.trim_matches('"')))
    );
}

#[test]
fn a_listing_that_turns_in_a_circle_ends() {
    let (output, _) = against(vec![page(&[("a", false)], "YQ"), page(&[("a", false)], "YQ")], &["ls"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("incomplete"));
}

#[test]
fn a_reader_that_has_read_enough_ends_the_listing_quietly() {
    let keys: Vec<String> = (0..1_000).map(|n| format!("{n:0200}")).collect();
    let keys: Vec<(&str, bool)> = keys.iter().map(|key| (key.as_str(), false)).collect();
    let node = FakeNode::start(vec![page(&keys, "YQ")]);
    let mut child = chordkv(&["ls", "--node", &node.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("an end");
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
}

#[test]
fn wrong_usage_ends_with_2_even_if_nobody_reads_why() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = chordkv(&["put"]).stderr(writer).stdout(Stdio::null()).status().expect("the program starts");
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_node_that_can_make_no_socket_says_where_and_what_to_do() {
    let output = chordkv(&["node", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .env("TMPDIR", "/nonexistent")
        .output()
        .expect("the program starts");
    assert_fails(&output, 1, &["/nonexistent", "TMPDIR"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_failure_also_for_help() {
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = chordkv(&["--help"]).stdout(full()).output().expect("the program starts");
    assert_fails(&output, 1, &["standard output cannot be written"]);
    let node = FakeNode::start(vec![answer("200 OK", "", b"v")]);
    let output = chordkv(&["get", "a", "--node", &node.url]).stdout(full()).output().expect("the program starts");
    assert_fails(&output, 1, &["standard output cannot be written"]);
}

fn ring_document() -> String {
    let node = serde_json::json!({
        "id": "0123456789abcdef", "addr": "127.0.0.1:4000", "http": "127.0.0.1:8000", "incarnation": "1",
        "standing": "member", "predecessor": "127.0.0.1:4000", "successor": "127.0.0.1:4000", "share": 1.0,
        "slots": 1024, "keys": 3, "bytes": 9, "uptime_seconds": 5, "version": "0.1.0",
    });
    let document = serde_json::json!({
        "ring": "7", "capacity": 160, "slots": 1024, "successors": 16, "replicas": 3, "max_value": 1 << 20,
        "whole": true, "settled": true, "nodes": [node], "unreachable": [], "of_a_later_version": 1,
    });
    document.to_string()
}

#[test]
fn ring_is_a_table_or_the_document_itself() {
    let (output, requests) = against(vec![json(&ring_document())], &["ring"]);
    assert!(out(&output).ends_with("\nring of 1 node, whole\n"), "{}", err(&output));
    assert!(out(&output).contains("0123456789  127.0.0.1:4000") && !out(&output).contains('\x1b'));
    assert!(requests[0].starts_with("GET /v1/ring "));
    let (output, _) = against(vec![json(&ring_document())], &["ring", "--json"]);
    assert_eq!(out(&output), ring_document() + "\n");
}

#[test]
fn something_else_than_a_node_is_said_to_be_so() {
    let (output, _) = against(vec![answer("404 Not Found", "", b"<html>")], &["ring"]);
    assert_fails(&output, 1, &["answered with status 404", "is it the HTTP interface of a chordkv node?"]);
    let (output, _) = against(vec![answer("200 OK", "", b"<html>")], &["status"]);
    assert_fails(&output, 1, &["is it a chordkv node"]);
    let (output, _) = against(vec![answer("301 Moved", "Location: /x\r\n", b"")], &["ls"]);
    assert_fails(&output, 1, &["answered with status 301"]);
    let (output, _) = against(vec![b"SSH-2.0-x\r\n".to_vec()], &["ring"]);
    assert_fails(&output, 1, &["http://127.0.0.1:"]);
}

#[test]
fn health_prints_what_failed_and_ends_with_it() {
    let well = r#"{"ok":true,"checks":[{"name":"loop","ok":true,"detail":null}]}"#;
    let (output, requests) = against(vec![json(well)], &["health"]);
    assert_eq!((output.status.code(), out(&output).as_str(), err(&output).as_str()), (Some(0), "ok\n", ""));
    assert!(requests[0].starts_with("GET /readyz "));
    let ill = r#"{"ok":false,"checks":[{"name":"loop","ok":true,"detail":null},{"name":"ring","ok":false,"detail":"alone"}]}"#;
    let unready = || vec![answer("503 Service Unavailable", "", ill.as_bytes())];
    let (output, _) = against(unready(), &["health"]);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(1), "ring: alone\n"));
    assert!(err(&output).contains("is not ready: 1 of 2 checks failed"));
    let (output, _) = against(unready(), &["health", "--json"]);
    assert_eq!((output.status.code(), out(&output)), (Some(1), format!("{ill}\n")));
}

#[test]
fn leave_waits_until_the_node_is_gone() {
    let leaving = || answer("202 Accepted", "", br#"{"status":"leaving"}"#);
    let (output, requests) = against(vec![leaving(), json("{}"), Vec::new()], &["leave"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(
        requests[0].starts_with("POST /v1/node/leave ") && requests[0].to_lowercase().contains("content-length: 0")
    );
    assert!(requests[1].starts_with("GET /livez "));
    assert!(err(&output).lines().last().is_some_and(|line| line.ends_with("has left")));

    let (output, requests) = against(vec![leaving()], &["leave", "--no-wait"]);
    assert_eq!((output.status.code(), requests.len()), (Some(0), 1));

    let node = FakeNode::start(vec![leaving(); 1]);
    let url = node.url.clone();
    drop(thread::spawn(move || node.requests()));
    assert!(run(&["leave", "--node", &url]).status.success());
}

#[test]
fn leave_gives_up_after_its_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let serving = thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let request = read_request(&stream);
            let status = if request.starts_with("POST") { "202 Accepted" } else { "200 OK" };
            stream.write_all(&answer(status, "", b"{}")).expect("the answer is sent");
        }
    });
    let output = run(&["leave", "--node", &url, "--timeout", "500ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).lines().last().is_some_and(|line| line.contains("after 0.5 s")), "{}", err(&output));
    drop(serving);
}

#[test]
fn config_check_names_lines_and_the_exit_code_says_if_all_is_well() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("c.toml");
    let name = path.to_str().expect("UTF-8");
    std::fs::write(&path, "capacity = 20\nlisten = \"127.0.0.1:4000\"\n").expect("written");
    let output = run(&["config", "check", name]);
    assert_eq!((output.status.code(), out(&output), err(&output).as_str()), (Some(0), format!("{name}: ok\n"), ""));

    std::fs::write(&path, "capacity = 200\n\nslot-bits = 3\n").expect("written");
    let output = run(&["config", "check", name]);
    let expected = format!(
        "{name}:1: capacity = \"200\": it is a number of bits from 1 to 160\n{name}:3: unknown key \"slot-bits\"; write slot_bits\n"
    );
    assert_eq!(
        (output.status.code(), out(&output), err(&output)),
        (Some(1), expected, format!("chordkv: {name} has 2 problems\n"))
    );
    let output = run(&["config", "check", name, "--json"]);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")["problems"][1]["line"], 3);
    assert_fails(&run(&["node", "--config", name]), 2, &["c.toml:1: capacity", "all 2 problems: chordkv config check"]);
    assert_fails(&run(&["config", "check", "/nowhere"]), 1, &["/nowhere cannot be read"]);
}

#[test]
fn a_simulated_ring_gives_the_same_report_for_the_same_seed() {
    let sim = |seed: &str| {
        let args = ["sim", "--nodes", "50", "--duration", "10s", "--churn", "0.2", "--kill", "0.1", "--lookups", "100"];
        let output = run(&[&args, &["--seed", seed, "--json"][..]].concat());
        assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
        out(&output)
    };
    let report = sim("7");
    assert_eq!(report, sim("7"));
    assert_ne!(report, sim("8"));
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let lookups = &report["lookups"];
    assert!(lookups["asked"].as_u64().is_some_and(|asked| asked > 90), "{report}");
    assert_eq!(lookups["wrong"], 0);
    assert!(report["members"].as_u64().is_some_and(|members| (30..60).contains(&members)), "{report}");
    assert!(report["traffic"]["bytes_per_node_second"].as_f64().is_some_and(|bytes| bytes > 50.0), "{report}");
}

#[test]
fn a_simulated_ring_is_reported_for_people_and_drawn() {
    let dir = tempfile::tempdir().expect("a directory");
    let plots = dir.path().join("plots");
    let svg = plots.to_str().expect("a path of text");
    let output = run(&["sim", "--nodes", "20", "--duration", "5s", "--lookups", "40", "--svg", svg]);
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
    let text = out(&output);
    for part in ["20 members", "40 asked, 0 failed", "A LOOKUP", "hops", "trace "] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    for name in ["hops", "times", "members", "bytes"] {
        let svg = std::fs::read_to_string(plots.join(format!("{name}.svg"))).expect("a plot");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{name}");
    }
    let missing = run(&["sim", "--nodes", "2", "--duration", "0s", "--lookups", "1", "--svg", "/dev/null/plots"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(err(&missing).contains("/dev/null/plots") && err(&missing).contains("cannot be written"));
    assert!(out(&missing).contains("A LOOKUP"), "the report is not lost with its plots");
}
