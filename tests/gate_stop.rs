//! Stopping, alone in its process: it counts the threads and the socket directories that are left.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use common::{PATIENCE, config, response, serve, wait_until};

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn socket_dirs() -> BTreeSet<PathBuf> {
    let prefix = format!("chordkv-{}-", std::process::id());
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().filter_map(Result::ok);
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    named.map(|entry| entry.path()).collect()
}

/// How often the thread of that name has gone to sleep, and so been woken.
fn voluntary_switches(name: &str) -> u64 {
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
        if status.lines().any(|line| line.strip_prefix("Name:").is_some_and(|rest| rest.trim() == name)) {
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
            return line.trim().parse().unwrap();
        }
    }
    panic!("no thread {name}");
}

/// One test, so that nothing else in the process starts or ends threads meanwhile.
#[test]
fn stopping_lets_answers_leave_and_leaves_no_thread_descriptor_or_directory_and_an_idle_gate_sleeps() {
    let (threads_before, descriptors_before, dirs_before) = (threads(), descriptors(), socket_dirs());

    let mut served = serve(config());
    assert!(!socket_dirs().is_subset(&dirs_before));
    served.still_serves();
    let mut idle = served.client();
    assert_eq!(idle.get("/k").status, 200);
    let mut slow = served.client();
    slow.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    let ticket = served.next_held();

    // Idle connections with deadlines far away must not wake the gate. Nothing tells that nothing happens, so the
    // test lets the kernel do other work: a second client's time-out.
    wait_until("the first timers have settled", || {
        let before = voluntary_switches("http-gate");
        idle.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(std::io::Read::read(&mut idle.stream, &mut [0; 1]).is_err());
        voluntary_switches("http-gate") == before
    });
    idle.stream.set_read_timeout(Some(PATIENCE)).unwrap();

    let handle = served.handle.take().unwrap();
    handle.begin_stop(PATIENCE);
    idle.wait_closed();
    wait_until("no connection is accepted", || std::net::TcpStream::connect(served.addr).is_err());
    assert!(!handle.is_quiet());
    served.responder.answer(ticket, response(200, "left in time"));
    let answer = slow.answer();
    assert_eq!((answer.text().as_str(), answer.closes()), ("left in time", true));
    wait_until("the gate is quiet", || handle.is_quiet());
    handle.stop(Duration::ZERO);
    assert!(socket_dirs().is_subset(&dirs_before));

    // A stop without grace cuts off what never gets its answer, and so does a drop.
    for drop_only in [false, true] {
        let mut served = serve(config());
        let mut stuck = served.client();
        stuck.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        served.next_held();
        let handle = served.handle.take().unwrap();
        if drop_only {
            drop(handle);
        } else {
            handle.stop(Duration::from_millis(50));
        }
        stuck.wait_closed();
        assert!(socket_dirs().is_subset(&dirs_before));
    }
    drop((served, idle, slow));
    wait_until("all threads have ended", || threads() <= threads_before);
    wait_until("all descriptors are closed", || descriptors() <= descriptors_before);
}
