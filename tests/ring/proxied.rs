//! The documented nginx before a node: its configuration is read from the document, and only ports and paths are changed.

use std::fs;
use std::process::{Child, Command, Output, Stdio};

use super::tokens::{ADMIN, WRITE, token_file};
use crate::support::{Node, PATIENCE, Reserved, side_by_side, wait_for};

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_there(program: &str) -> bool {
    let asked =
        Command::new(program).arg("-h").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok()
}

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().expect("it runs")
}

#[test]
fn users_reach_a_node_over_tls_through_the_documented_nginx() {
    let _turn = side_by_side();
    if let Some(missing) = ["nginx", "openssl", "curl"].into_iter().find(|program| !is_there(program)) {
        eprintln!("proxied: SKIPPED, there is no {missing} here");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let node = Node::create(&["--http-token-file", token_file(dir.path()).to_str().expect("UTF-8")]);
    node.wait_ready();

    let made = run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            &path("tls.key"),
            "-out",
            &path("tls.crt"),
        ],
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let document = include_str!("../../docs/reverse-proxy.md");
    let (_, rest) = document.split_once("```nginx\n").expect("a configuration");
    let (text, _) = rest.split_once("```").expect("its end");
    let port = Reserved::port();
    let mut text = text.to_owned();
    for (from, to) in [
        ("0.0.0.0:8443", port.addr.to_string()),
        ("127.0.0.1:8000", node.http.to_string()),
        ("/etc/chordkv/tls.crt", path("tls.crt")),
        ("/etc/chordkv/tls.key", path("tls.key")),
        ("/var/log/nginx/chordkv.log", path("nginx.log")),
        ("/run/nginx-chordkv.pid", path("nginx.pid")),
    ] {
        assert!(text.contains(from), "{from} is not in the document");
        text = text.replace(from, &to);
    }
    // Its temporary files, for which the distribution's places need other rights.
    let places =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {};", path(kind)));
    let text = text.replacen("access_log off;", &format!("access_log off; {}", places.concat()), 1);
    fs::write(path("nginx.conf"), text).expect("a file");
    let start = Command::new("nginx")
        .args([
            "-p",
            &path(""),
            "-c",
            &path("nginx.conf"),
            "-e",
            &path("early.log"),
            "-g",
            "daemon off; master_process off;",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _nginx = Nginx(start.expect("nginx starts"));

    let url = |target: &str| format!("https://localhost:{}{target}", port.addr.port());
    let certificate = path("tls.crt");
    let curl = |target: &str, args: &[&str]| {
        let url = url(target);
        let shared =
            ["--silent", "--ipv4", "--cacert", &certificate, "--path-as-is", "--write-out", "\n%{http_code}", &url];
        let said = String::from_utf8_lossy(&run("curl", &[&shared, args].concat()).stdout).into_owned();
        let (body, status) = said.rsplit_once('\n').expect("a status");
        (status.parse::<u16>().expect("a number"), body.to_owned())
    };
    wait_for("nginx answers", PATIENCE, || (curl("/livez", &[]).0 == 200).then_some(()));
    let token = |token: &str| format!("Authorization: Bearer {token}");
    let (write, admin) = (token(WRITE), token(ADMIN));
    assert_eq!(curl("/v1/kv/a%2Fb%20c", &["-X", "PUT", "--data-binary", "v"]).0, 401);
    assert_eq!(curl("/v1/kv/a%2Fb%20c", &["-X", "PUT", "--data-binary", "value", "-H", &write]).0, 201);
    assert_eq!(curl("/v1/kv/a/b%20c", &["-H", &write]), (200, "value".to_owned()));
    let large = path("large");
    fs::write(&large, vec![b'x'; 1 << 20]).expect("a file");
    let upload = format!("@{large}");
    assert_eq!(curl("/v1/kv/large", &["-X", "PUT", "--data-binary", &upload, "-H", &write]).0, 201);
    assert_eq!(curl("/v1/kv/large", &["-H", &write]).1.len(), 1 << 20);
    // What has changed since: a watch that waits, told through the proxy.
    let (status, page) = curl("/v1/watch?key=a/b%20c", &["-H", &write]);
    assert_eq!(status, 200, "{page}");
    assert_eq!(curl("/v1/recover", &["-H", &write]).0, 403);
    assert_eq!(curl("/v1/recover", &["-H", &admin]).0, 200);
}
