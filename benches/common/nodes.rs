//! Real `chordkv node` processes on ports chosen by the system. None outlives the benchmark: each is killed on drop, and
//! stops by itself when its standard input ends, which the death of its parent brings about.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::Value;

use super::PATIENCE;

/// A process that ends with its value.
pub struct Process(Child);

/// A running node.
pub struct Node {
    pub process: Process,
    /// Where peers connect to.
    pub addr: SocketAddr,
    log: Receiver<Value>,
}

impl Process {
    /// Starts it with pipes for what the command does not say otherwise.
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).spawn().expect("the program can be started"))
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// The processor time that its first thread has had; `None` where the system does not tell.
    pub fn cpu_time(&self) -> Option<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", self.0.id())).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Node {
    /// Starts a node that joins through `seed`, or creates a ring, and waits until it listens.
    pub fn start(seed: Option<SocketAddr>, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chordkv"));
        command.args(["node", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log-format", "json"]);
        command.args(["--stop-with-stdin", "--drain-timeout", "1s"]).args(flags);
        if let Some(seed) = seed {
            command.args(["--join", &seed.to_string()]);
        }
        // Settings of whoever runs this must not reach the nodes.
        let mut process = Process::start(command.env_clear().stderr(Stdio::piped()));
        let lines = BufReader::new(process.child().stderr.take().expect("standard error is a pipe")).lines();
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // Nobody listens any more once the ring stands; the pipe must be kept empty all the same.
                let _ = sender.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        let listening = wait_for(&log, "listening");
        let addr = listening["peers"].as_str().and_then(|text| text.parse().ok());
        Self { process, addr: addr.expect("the node tells its address"), log }
    }

    /// Waits until the node is in a ring.
    pub fn wait_joined(&self) {
        wait_for(&self.log, "joined the ring");
    }

    /// Waits until the node has created a ring.
    pub fn wait_created(&self) {
        wait_for(&self.log, "a new ring");
    }
}

fn wait_for(log: &Receiver<Value>, message: &str) -> Value {
    loop {
        let line = log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the node does not say {message:?} in time"));
        if line["message"] == message {
            return line;
        }
        assert!(line.is_object(), "the node says: {line}");
    }
}

/// Binds this process and those that it will start to one processor. Returns which, where the system can do that.
#[cfg(target_os = "linux")]
pub fn pin_to_one_core() -> Option<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None).ok()?;
    let core = (0..CpuSet::MAX_CPU).rev().find(|&core| allowed.is_set(core))?;
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one).ok().map(|()| core)
}

#[cfg(not(target_os = "linux"))]
pub fn pin_to_one_core() -> Option<usize> {
    None
}
