//! `export` and `import`: what one ring has goes into another of another size.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use crate::support::{Node, PATIENCE, ring::wait_settled, ring_of, side_by_side};

pub fn chordkv(http: SocketAddr, args: &[&str], input: Option<&[u8]>) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chordkv"))
        .args(args)
        .args(["--node", &http.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    child.stdin.take().expect("a pipe").write_all(input.unwrap_or_default()).expect("all is read");
    child.wait_with_output().expect("an end")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_one_ring_exports_another_of_another_size_imports() {
    let _turn = side_by_side();
    let ring = ring_of(3, &[]);
    let mut client = ring.nodes[0].client();
    let odd: [(&[u8], &[u8]); 4] =
        [(b"a/b c", b"text"), (b"\xff\x00", b"\x00\xfe\xff"), (b"\"\\\n", b""), (b"%2F", b"\n\n")];
    for (key, value) in odd {
        client.put_if(key, value, &[("Content-Type", "text/odd")]).expect("an answer").is(201);
    }
    for n in 0..1_200 {
        client.put(format!("key-{n}").as_bytes(), n.to_string().as_bytes()).expect("an answer").is(201);
    }
    client.ask("PUT", "/v1/kv/mortal?ttl=1h", &[], b"soon gone").expect("an answer").is(201);
    client.ask("PUT", "/v1/kv/gone?ttl=1ms", &[], b"gone").expect("an answer").is(201);

    let exported = chordkv(ring.nodes[1].http, &["export"], None);
    assert!(exported.status.success(), "{}", text(&exported.stderr));
    assert_eq!(text(&exported.stdout).lines().count(), 1_205);
    let of_each: usize = ring
        .nodes
        .iter()
        .map(|node| text(&chordkv(node.http, &["export", "--only-this-node"], None).stdout).lines().count())
        .sum();
    assert_eq!(of_each, 3 * 1_205, "three nodes have a copy of every key");

    let other = Node::create(&[]);
    wait_settled(other.http, 1, PATIENCE);
    let mut there = other.client();
    there.put(b"key-7", b"mine").expect("an answer").is(201);
    let imported = chordkv(other.http, &["import", "--keep"], Some(&exported.stdout));
    assert!(imported.status.success(), "{}", text(&imported.stderr));
    assert!(
        text(&imported.stderr).contains("1204 keys are imported, 1 were there already"),
        "{}",
        text(&imported.stderr)
    );
    assert_eq!(there.read(b"key-7").expect("an answer").is(200).text(), "mine");
    let imported = chordkv(other.http, &["import"], Some(&exported.stdout));
    assert!(imported.status.success(), "{}", text(&imported.stderr));
    for n in 0..1_200 {
        assert_eq!(there.read(format!("key-{n}").as_bytes()).expect("an answer").is(200).text(), n.to_string());
    }
    for (key, value) in odd {
        let answer = there.read(key).expect("an answer");
        assert_eq!((answer.is(200).body.as_slice(), answer.field("content-type")), (value, Some("text/odd")));
    }
    let mortal = there.read(b"mortal").expect("an answer");
    let left: u64 = mortal.is(200).field("x-chord-expires-in").expect("a time to live").parse().expect("seconds");
    assert!((3_500..=3_600).contains(&left), "{left}");
}

#[test]
fn a_stream_that_is_none_is_refused_with_its_line() {
    let _turn = side_by_side();
    let node = Node::create(&[]);
    let stream = b"{\"key\":\"a\",\"value\":\"b\"}\n\n{\"key\":\"c\"}\n";
    let imported = chordkv(node.http, &["import"], Some(stream));
    let said = text(&imported.stderr);
    assert!(imported.status.code() == Some(1) && said.contains("line 3: it needs either value"), "{said}");
    assert_eq!(node.client().read(b"a").expect("an answer").is(200).text(), "b");
    let said = text(&chordkv(node.http, &["import", "nowhere/backup"], None).stderr);
    assert!(said.contains("nowhere/backup cannot be read"), "{said}");
    let said = text(&chordkv(node.http, &["export", "--out", "nowhere/backup"], None).stderr);
    assert!(said.contains("nowhere/backup cannot be written"), "{said}");
}
