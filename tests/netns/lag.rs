//! Delay and loss for kernels without netem. Each host puts its packets, whole Ethernet frames, into datagrams (VXLAN,
//! RFC 7348) for the hub; there a thread loses some of them and passes the others on when their time has come.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use chordkv::base::Rng;

use super::net::{VXLAN_PORT, number, outer_addr};

pub struct Lag {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The header that VXLAN puts before the frame.
const VXLAN_BYTES: usize = 8;
const ETHERNET_BYTES: usize = 14;
/// The thread looks at least so often whether it is over.
const LOOK: Duration = Duration::from_millis(50);

impl Lag {
    /// To be called within the hub.
    pub fn start(hosts: usize, delay_ms: u64, loss_percent: u32) -> Self {
        let socket = UdpSocket::bind(("0.0.0.0", VXLAN_PORT)).expect("the hub's port is free");
        let over = Arc::new(AtomicBool::new(false));
        let (told, delay) = (Arc::clone(&over), Duration::from_millis(delay_ms));
        let thread = thread::spawn(move || {
            let mut rng = Rng::new(u64::from(loss_percent));
            let mut under_way: VecDeque<(Instant, SocketAddr, Vec<u8>)> = VecDeque::new();
            let mut buffer = vec![0; 65_536];
            while !told.load(Ordering::Relaxed) {
                let now = Instant::now();
                while under_way.front().is_some_and(|(due, ..)| *due <= now) {
                    let (_, to, packet) = under_way.pop_front().expect("it was seen");
                    socket.send_to(&packet, to).expect("the hosts are there");
                }
                let next = under_way.front().map_or(LOOK, |(due, ..)| due.saturating_duration_since(now));
                // Zero would mean for ever.
                socket.set_read_timeout(Some(next.clamp(Duration::from_micros(100), LOOK))).expect("a time-out");
                match socket.recv(&mut buffer) {
                    Ok(_) if rng.below(100) < u64::from(loss_percent) => {}
                    Ok(count) => {
                        let mut packet = buffer[..count].to_vec();
                        fill_checksum(&mut packet);
                        let receivers = (0..hosts).filter(|host| is_for(&packet, *host));
                        let due = Instant::now() + delay;
                        under_way.extend(receivers.map(|host| (due, receiver(host), packet.clone())));
                    }
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                    Err(error) => panic!("the hub hears nothing: {error}"),
                }
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "the hub works to the end");
    }
}

fn receiver(host: usize) -> SocketAddr {
    (outer_addr(host), VXLAN_PORT).into()
}

/// By the last byte of the Ethernet address that the frame begins with. Nothing is broadcast: neighbours are known.
fn is_for(packet: &[u8], host: usize) -> bool {
    packet.get(VXLAN_BYTES + 5) == Some(&number(host))
}

/// The kernel leaves the checksum of TCP to the device that a packet leaves by, and here there is none.
fn fill_checksum(packet: &mut [u8]) {
    const TCP: u8 = 6;
    let Some(ip) = packet.get_mut(VXLAN_BYTES + ETHERNET_BYTES..).filter(|ip| ip.len() >= 40 && ip[9] == TCP) else {
        return;
    };
    let (head, length) = (usize::from(ip[0] & 15) * 4, usize::from(u16::from_be_bytes([ip[2], ip[3]])));
    if ip[0] >> 4 != 4 || length < head + 20 || length > ip.len() {
        return;
    }
    ip[head + 16..head + 18].fill(0);
    // The addresses, the protocol and the length count too (RFC 9293, section 3.1).
    let words = ip[12..20].chunks(2).chain(ip[head..length].chunks(2));
    let sum: usize = words.map(|word| usize::from(word[0]) << 8 | usize::from(*word.get(1).unwrap_or(&0))).sum();
    let mut sum = sum + usize::from(TCP) + length - head;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).expect("it was folded");
    ip[head + 16..head + 18].copy_from_slice(&checksum.to_be_bytes());
}
