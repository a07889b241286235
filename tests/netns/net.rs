//! A network of hosts that this test makes: a network namespace for each host, a pair of virtual Ethernet devices from it
//! to a bridge in one more. Nothing outside of these namespaces is touched, so every network has the same addresses.
//!
//! Whatever is lost is lost in silence, as on a network with routers: neighbours are known for good, so nobody hears
//! that a host cannot be reached. All is removed on drop; what a killed test left is removed by the next.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::{Command, Stdio, id};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::lag::Lag;

pub struct Net {
    prefix: String,
    hosts: usize,
    // What nodes send through.
    device: &'static str,
    lag: Option<Lag>,
}

impl Net {
    /// So many hosts that reach each other. `Err` says what this machine lacks.
    pub fn of(hosts: usize) -> Result<Self, String> {
        let net = Self::bare(hosts)?;
        (0..hosts).for_each(|host| net.know_others(host));
        Ok(net)
    }

    /// The same with so much delay and loss on the way of every packet. By netem, or where the kernel has none by
    /// carrying the packets through this process, which needs VXLAN.
    pub fn slow(hosts: usize, delay_ms: u64, loss_percent: u32) -> Result<Self, String> {
        let mut net = Self::bare(hosts)?;
        let netem = format!("qdisc add dev eth0 root netem delay {delay_ms}ms loss {loss_percent}%");
        let no_netem = (0..hosts).find_map(|host| run("tc", &["-n", &net.host(host), "-batch", "-"], &netem).err());
        if let Some(no_netem) = no_netem {
            let vxlan = |net: &mut Self| {
                (0..hosts).try_for_each(|host| ip(&net.host(host), &vxlan_of(host)))?;
                net.device = "vx0";
                let hub = format!("addr add {}/24 dev br0\n", outer_addr(HUB));
                ip(&net.hub(), &hub)
            };
            vxlan(&mut net).map_err(|no_vxlan| format!("no netem ({no_netem}), no VXLAN ({no_vxlan})"))?;
            net.lag = Some(in_namespace(&net.hub(), || Lag::start(hosts, delay_ms, loss_percent)));
            report("no netem in this kernel: delay and loss are made by carrying the packets through the test");
        }
        (0..hosts).for_each(|host| net.know_others(host));
        Ok(net)
    }

    fn bare(hosts: usize) -> Result<Self, String> {
        static NETS: AtomicUsize = AtomicUsize::new(0);
        if !geteuid().is_root() {
            return Err("not root".to_owned());
        }
        remove_stale()?;
        let prefix = format!("{PREFIX}{}-{}", id(), NETS.fetch_add(1, Ordering::Relaxed));
        // From here on, drop removes what there is of it.
        let net = Self { prefix, hosts, device: "eth0", lag: None };
        let names: Vec<String> = std::iter::once(net.hub()).chain((0..hosts).map(|host| net.host(host))).collect();
        for name in &names {
            run("ip", &["netns", "add", name], "").map_err(|error| format!("no network namespaces: {error}"))?;
        }
        // The second bridge is where the other side of a partition is.
        let mut hub = String::from("link add br0 type bridge\nlink add br1 type bridge\n");
        for host in 0..hosts {
            let _ = writeln!(hub, "link add p{host} type veth peer name eth0 netns {}", net.host(host));
            let _ = writeln!(hub, "link set p{host} master br0 up");
        }
        hub.push_str("link set br0 up\nlink set br1 up\n");
        ip(&net.hub(), &hub).map_err(|error| format!("no virtual Ethernet: {error}"))?;
        for host in 0..hosts {
            let script = format!(
                "link set lo up\nlink set eth0 address {}\nlink set eth0 up\naddr add {}/24 dev eth0\n",
                mac(host),
                addr(host)
            );
            net.ip(host, &script);
        }
        Ok(net)
    }

    /// Does something as that host. A socket that it opens stays that host's.
    pub fn within<T: Send>(&self, host: usize, act: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.host(host), act)
    }

    // ----- faults -----

    /// From now on these hosts reach only each other, the others only the others.
    pub fn part(&self, hosts: &[usize]) {
        self.move_to("br1", hosts);
    }

    /// These hosts are back among the others.
    pub fn unite(&self, hosts: &[usize]) {
        self.move_to("br0", hosts);
    }

    fn move_to(&self, bridge: &str, hosts: &[usize]) {
        let moves: Vec<String> = hosts.iter().map(|host| format!("link set p{host} master {bridge}\n")).collect();
        ip(&self.hub(), &moves.concat()).expect("ports move");
    }

    /// Pulls the cable of this host.
    pub fn unplug(&self, host: usize) {
        ip(&self.hub(), &format!("link set p{host} down\n")).expect("the link goes down");
    }

    pub fn plug(&self, host: usize) {
        ip(&self.hub(), &format!("link set p{host} up\n")).expect("the link comes up");
    }

    /// Packets from one host to the other vanish; the other direction is as before.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.ip(from, &neighbour(to, &mac(NOBODY), self.device));
    }

    pub fn mend_one_way(&self, from: usize, to: usize) {
        self.ip(from, &neighbour(to, &mac(to), self.device));
    }

    // ----- names -----

    fn know_others(&self, host: usize) {
        let others = (0..self.hosts).filter(|other| *other != host);
        let script: String = others.map(|other| neighbour(other, &mac(other), self.device)).collect();
        self.ip(host, &script);
    }

    fn ip(&self, host: usize, script: &str) {
        ip(&self.host(host), script).expect("the host's network is as told");
    }

    /// The namespace of a host.
    pub fn host(&self, host: usize) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // First, as it works in one of them.
        self.lag = None;
        for name in (0..self.hosts).map(|host| self.host(host)).chain([self.hub()]) {
            // One that was not made cannot be removed.
            let _ = run("ip", &["netns", "del", &name], "");
        }
    }
}

/// Where the nodes of a host are reached.
pub fn addr(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number(host))
}

/// Where a host is reached below the VXLAN, which then has the other addresses.
pub fn outer_addr(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, number(host))
}

/// Of each host's Ethernet address, and of its Internet addresses, the last byte says whose it is.
pub fn number(host: usize) -> u8 {
    u8::try_from(host + 1).expect("a few hosts")
}

fn mac(host: usize) -> String {
    format!("02:00:00:00:00:{:02x}", number(host))
}

fn neighbour(host: usize, mac: &str, device: &str) -> String {
    format!("neigh replace {} lladdr {mac} dev {device} nud permanent\n", addr(host))
}

/// The host's device and addresses when its packets go through this process, each in a datagram of its own.
fn vxlan_of(host: usize) -> String {
    let (inner, outer, hub, mac) = (addr(host), outer_addr(host), outer_addr(HUB), mac(host));
    format!(
        "addr del {inner}/24 dev eth0\naddr add {outer}/24 dev eth0\n\
         link add vx0 address {mac} type vxlan id 7 dev eth0 remote {hub} dstport {VXLAN_PORT} nolearning\n\
         link set vx0 gso_max_segs 1\naddr add {inner}/24 dev vx0\nlink set vx0 up\n"
    )
}

pub const VXLAN_PORT: u16 = 4789;
/// As hosts.
const HUB: usize = 200;
const NOBODY: usize = 201;
const PREFIX: &str = "chordkv-test-";

/// A line that is seen also when the test passes.
pub fn report(line: &str) {
    // Nobody reads it if it fails.
    let _ = writeln!(io::stderr(), "netns: {line}");
}

fn remove_stale() -> Result<(), String> {
    let all = run("ip", &["netns", "list"], "")?;
    for name in all.lines().filter_map(|line| line.split(' ').next()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another test may be just as fast.
            let _ = run("ip", &["netns", "del", name], "");
        }
    }
    Ok(())
}

/// Does something in this namespace.
pub fn in_namespace<T: Send>(name: &str, act: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(Path::new("/run/netns").join(name)).expect("it was made");
    let act = || {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), network).expect("root may");
        act()
    };
    // A thread of its own: it is not used for anything else afterwards.
    thread::scope(|scope| scope.spawn(act).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

fn ip(namespace: &str, script: &str) -> Result<(), String> {
    run("ip", &["-n", namespace, "-batch", "-"], script).map(drop)
}

/// What the program said, or why it failed.
fn run(program: &str, args: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{program} does not run: {error}"))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that fails early does not read on.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().next().unwrap_or("it failed without a word").to_owned())
}
