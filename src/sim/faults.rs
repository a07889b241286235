//! What can go wrong: processes and hosts that end, stop or slow down, ways that are blocked, clocks that jump.

use super::world::{Condition, HostId, World};
use crate::base::{Span, Weight};

impl World {
    /// Nodes that are started on new hosts from now on have this weight.
    pub fn set_weight(&mut self, weight: Weight) {
        self.config.overlay.weight = weight;
    }

    /// Ends a host's process without a word. Its connections break, as the host itself goes on.
    pub fn crash(&mut self, host: HostId) {
        self.counters.crashed += 1;
        self.crashes.push(self.now);
        self.thaw_for_good(host);
        self.end_process(host);
        self.break_links(host);
    }

    /// A host goes dark: its process is over, and nobody is told.
    pub fn vanish(&mut self, host: HostId) {
        self.counters.vanished += 1;
        self.crashes.push(self.now);
        self.end_process(host);
        let of = self.host_mut(host);
        of.links.clear();
        of.condition = Condition::Dark;
    }

    /// Power for a dark host: whoever still has a connection with its past learns that it is over.
    pub(super) fn light_up(&mut self, host: HostId) {
        self.host_mut(host).condition = Condition::Up;
        self.break_links(host);
    }

    /// Stops a process (SIGSTOP). Its host's system goes on taking what arrives.
    pub fn freeze(&mut self, host: HostId) {
        let of = self.host_mut(host);
        if matches!(of.condition, Condition::Up) && of.node.is_some() {
            of.condition = Condition::Frozen(Vec::new());
            self.counters.frozen += 1;
        }
    }

    /// Lets a stopped process go on (SIGCONT): everything that waited happens now.
    pub fn thaw(&mut self, host: HostId) {
        let now = self.now;
        if let Condition::Frozen(waiting) = std::mem::replace(&mut self.host_mut(host).condition, Condition::Up) {
            for happening in waiting {
                self.schedule(now, happening);
            }
        }
    }

    fn thaw_for_good(&mut self, host: HostId) {
        if matches!(self.host(host).condition, Condition::Frozen(_)) {
            self.host_mut(host).condition = Condition::Up;
        }
    }

    /// Whether a host's process is stopped.
    pub fn is_frozen(&self, host: HostId) -> bool {
        matches!(self.host(host).condition, Condition::Frozen(_))
    }

    /// Puts a host on one side of a partition: hosts of different sides cannot reach each other. All begin on side 0.
    pub fn put_on_side(&mut self, host: HostId, side: u8) {
        self.host_mut(host).side = side;
    }

    /// Blocks the way from one host to another, and not back.
    pub fn block(&mut self, from: HostId, to: HostId) {
        self.blocked.insert(from, to);
    }

    /// All hosts are on one side and no way is blocked; processes go on, hosts have their speed, links their quality.
    pub fn heal(&mut self) {
        self.mend();
        for host in self.all_hosts() {
            self.thaw(host);
            let of = self.host_mut(host);
            of.side = 0;
            of.slowness = 1;
        }
    }

    /// No way is blocked, and links have their quality.
    pub fn mend(&mut self) {
        self.blocked.clear();
        let network = &mut self.config.network;
        network.loss_per_mille = 0;
        network.duplicate_per_mille = 0;
        network.reorder_per_mille = 0;
        network.severed_per_mille = 0;
    }

    /// The network, to make it worse.
    pub fn network_mut(&mut self) -> &mut super::NetworkConfig {
        &mut self.config.network
    }

    /// Frames from and to this host take so many times as long.
    pub fn slow_down(&mut self, host: HostId, times: u64) {
        self.host_mut(host).slowness = times.max(1);
    }

    /// A host's wall clock jumps; its monotonic clock does not.
    pub fn jump_wall(&mut self, host: HostId, by: Span, back: bool) {
        self.counters.wall_jumps += 1;
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.host_mut(host).wall_offset_ms += if back { -by } else { by };
    }
}
