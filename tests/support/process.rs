//! One child process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::ops::Deref;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Client, PATIENCE, wait_for};

/// A child, perhaps on its way to become a node.
pub struct Process {
    child: Child,
    // Open as long as this lives: its end would stop the child.
    stdin: Option<ChildStdin>,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

/// A child that listens.
pub struct Node {
    process: Process,
    pub peers: SocketAddr,
    pub http: SocketAddr,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Process {
    /// Runs `chordkv node` with these arguments and ports that the system chooses, unless they say otherwise.
    pub fn node(args: &[&str]) -> Self {
        Self::node_in(&[], args)
    }

    /// The same with these in its environment.
    pub fn node_in(env: &[(&str, &str)], args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chordkv"));
        command.args(Self::node_args(args)).envs(env.iter().copied());
        Self::spawn(command)
    }

    /// The same on a disk of its own in memory: `dir` is there for this process only. Needs the rights to mount.
    pub fn node_on_small_disk(dir: &str, size: &str, args: &[&str]) -> Self {
        let script = "mount -t tmpfs -o size=$1 chordkv-test \"$2\" && shift 2 && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", size, dir, env!("CARGO_BIN_EXE_chordkv")]);
        command.args(Self::node_args(args));
        Self::spawn(command)
    }

    /// The same with so many descriptors.
    pub fn node_with_descriptors(count: u32, args: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let script = "ulimit -S -n $0 && exec \"$@\"";
        command.args(["-c", script, &count.to_string(), env!("CARGO_BIN_EXE_chordkv")]).args(Self::node_args(args));
        Self::spawn(command)
    }

    fn node_args<'a>(args: &[&'a str]) -> Vec<&'a str> {
        let given = |flag: &str| args.contains(&flag);
        let mut all = vec!["node", "--stop-with-stdin"];
        for (flag, value) in [("--listen", ANY_PORT), ("--http", ANY_PORT), ("--log-format", "json")] {
            if !given(flag) {
                all.extend([flag, value]);
            }
        }
        [&all, args].concat()
    }

    pub fn run(args: &[&str]) -> Self {
        Self::run_in(&[], args)
    }

    /// The same with these in its environment.
    pub fn run_in(env: &[(&str, &str)], args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chordkv"));
        command.args(args).envs(env.iter().copied());
        Self::spawn(command)
    }

    /// What it says is what it prints to standard output.
    pub fn printing(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chordkv"));
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        Self::spawn_as_it_is(command, |child| child.stdout.take().map(|out| Box::new(out) as Box<dyn Read + Send>))
    }

    fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        Self::spawn_as_it_is(command, |child| child.stderr.take().map(|out| Box::new(out) as Box<dyn Read + Send>))
    }

    fn spawn_as_it_is(mut command: Command, output: impl Fn(&mut Child) -> Option<Box<dyn Read + Send>>) -> Self {
        command.stdin(Stdio::piped());
        let given: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CHORDKV_")) {
            if !given.contains(&name) {
                command.env_remove(name);
            }
        }
        let mut child = command.spawn().expect("the program starts");
        let output = BufReader::new(output(&mut child).expect("it is piped"));
        let log = Arc::new(Log::default());
        let sink = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                sink.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                sink.more.notify_all();
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, log, reader: Some(reader) }
    }

    /// Memory that it has resident, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Waits until it listens.
    #[track_caller]
    pub fn listening(self) -> Node {
        let line = self.wait_said("\"listening\"", 1, PATIENCE);
        let line: Value = serde_json::from_str(&line).expect("a JSON line");
        let addr = |field: &str| line[field].as_str().and_then(|text| text.parse().ok()).expect("an address");
        let (peers, http) = (addr("peers"), addr("http"));
        Node { process: self, peers, http }
    }

    pub fn said(&self) -> Vec<String> {
        self.log.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the `count`th line with `text` in it.
    #[track_caller]
    pub fn wait_said(&self, text: &str, count: usize, limit: Duration) -> String {
        let end = Instant::now() + limit;
        let mut lines = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = lines.iter().filter(|line| line.contains(text)).nth(count - 1) {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not said {count} times within {limit:?}: {text}\n{}", lines.join("\n"));
            lines = self.log.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a signal to this child and to nobody else: it has not been waited for, so its id is still its own.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the child is there");
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has ended by itself; gives its exit code and everything that it said.
    #[track_caller]
    pub fn ended(&mut self, limit: Duration) -> (Option<i32>, Vec<String>) {
        let status: ExitStatus = wait_for("the process ends", limit, || self.child.try_wait().expect("a child"));
        if let Some(reader) = self.reader.take() {
            reader.join().expect("every line was read");
        }
        (status.code(), self.said())
    }

    /// Ends with this code within that time.
    #[track_caller]
    pub fn ends_with(&mut self, code: i32, limit: Duration) -> Vec<String> {
        let (found, said) = self.ended(limit);
        assert_eq!(found, Some(code), "{}", said.join("\n"));
        said
    }

    /// Ends with this code, and the one line that is no log line says why.
    #[track_caller]
    pub fn fails_with(&mut self, code: i32, says: &[&str]) -> Vec<String> {
        let said = self.ends_with(code, PATIENCE);
        let plain: Vec<&String> = said.iter().filter(|line| !line.starts_with('{')).collect();
        assert!(plain.len() == 1 && plain[0].starts_with("chordkv: "), "{plain:#?}");
        for part in says {
            assert!(plain[0].contains(part), "{:?} does not say {part:?}", plain[0]);
        }
        assert_eq!(said.last(), Some(plain[0]), "it is the last word");
        said
    }

    /// As if the power failed: nothing is handed over or said.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child is there");
        self.ended(PATIENCE);
    }

    #[track_caller]
    pub fn has_not_panicked(&self) {
        let said = self.said();
        assert!(!said.iter().any(|line| line.contains("panicked")), "{}", said.join("\n"));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It fails for a child that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if thread::panicking() {
            let said = self.said();
            eprintln!("--- node {} said (last lines):", self.child.id());
            said.iter().skip(said.len().saturating_sub(LINES_SHOWN)).for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Node {
    /// The only member of a new ring.
    pub fn create(args: &[&str]) -> Self {
        Process::node(args).listening()
    }

    /// A node that joins through `seed`; it need not be in the ring yet.
    pub fn join(seed: SocketAddr, args: &[&str]) -> Self {
        Process::node(&[&["--join", &seed.to_string()], args].concat()).listening()
    }

    pub fn client(&self) -> Client {
        Client::new(self.http)
    }

    /// Ready: in the ring, and every slot that belongs to it is there.
    #[track_caller]
    pub fn wait_ready(&self) {
        let mut client = self.client();
        wait_for("the node is ready", PATIENCE, || client.get("/readyz").ok().filter(|answer| answer.status == 200));
    }
}

impl Deref for Node {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl std::ops::DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

const ANY_PORT: &str = "127.0.0.1:0";
const LINES_SHOWN: usize = 40;
