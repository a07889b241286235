//! The scenarios.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::hosts::{Hosts, peer_addr};
use super::net::Net;
use crate::support::PATIENCE;

/// From the end of a fault until the ring is whole again.
const WHOLE_AGAIN: Duration = Duration::from_secs(15);
/// How long faults last at least.
const FAULT: Duration = Duration::from_secs(25);
/// Until those who are left have counted the others out, one after the other.
const COUNTED_OUT: Duration = Duration::from_secs(45);
/// With a round trip of 400 ms and some 20 kB/s that the losses leave a connection, a thousand slots get their copies
/// within half of this.
const FORMS_SLOWLY: Duration = Duration::from_secs(60);

/// Lets a fault last so long in all.
fn last(since: Instant, length: Duration) {
    std::thread::sleep(length.saturating_sub(since.elapsed()));
}

#[test]
fn a_partition_of_7_into_4_and_3_makes_two_rings_and_15_s_after_it_heals_one() {
    let Some(hosts) = Hosts::start("partition", Net::of(7), 7, PATIENCE) else { return };
    let (most, few) = ([0, 1, 2, 3], [4, 5, 6]);
    hosts.net.part(&few);
    let start = Instant::now();
    hosts.becomes_whole("parted", &most, COUNTED_OUT);
    hosts.becomes_whole("parted", &few, COUNTED_OUT);
    last(start, FAULT);
    hosts.net.unite(&few);
    hosts.becomes_whole("united", &hosts.all(), WHOLE_AGAIN);
    hosts.serve(&hosts.all(), "after", PATIENCE);
    hosts.have_not_panicked();
}

#[test]
fn a_link_that_works_one_way_only_stops_no_other_node_and_the_ring_of_5_is_whole_when_it_works_again() {
    let Some(hosts) = Hosts::start("one way", Net::of(5), 5, PATIENCE) else { return };
    // The worst of links: from a node to its successor.
    let in_ring = hosts.in_ring_order();
    let (from, to, others) = (in_ring[0], in_ring[1], &in_ring[2..]);
    hosts.net.cut_one_way(from, to);
    hosts.say(&format!("nothing gets from {} to its successor {}", peer_addr(from), peer_addr(to)));
    let start = Instant::now();
    hosts.serve(others, "meanwhile", PATIENCE);
    last(start, FAULT);
    hosts.serve(others, "later", PATIENCE);
    hosts.say(&match hosts.judge(&hosts.all()) {
        Ok(()) => "the ring is whole in spite of it".to_owned(),
        Err(fault) => format!("the ring in spite of it: {fault}"),
    });
    hosts.net.mend_one_way(from, to);
    hosts.becomes_whole("mended", &hosts.all(), WHOLE_AGAIN);
    hosts.serve(&hosts.all(), "after", PATIENCE);
    hosts.have_not_panicked();
}

#[test]
fn five_nodes_with_200_ms_and_5_percent_loss_between_them_form_a_ring_and_serve_through_each_other() {
    let Some(hosts) = Hosts::start("slow", Net::slow(5, 200, 5), 5, FORMS_SLOWLY) else { return };
    hosts.have_not_panicked();
}

#[test]
fn a_process_stopped_for_30_s_is_a_member_again_15_s_after_it_goes_on() {
    let Some(hosts) = Hosts::start("stopped", Net::of(5), 5, PATIENCE) else { return };
    let (stopped, others) = (2, [0, 1, 3, 4]);
    hosts.nodes[stopped].signal(Signal::STOP);
    let start = Instant::now();
    hosts.becomes_whole("without it", &others, COUNTED_OUT);
    last(start, Duration::from_secs(30));
    hosts.nodes[stopped].signal(Signal::CONT);
    hosts.becomes_whole("continued", &hosts.all(), WHOLE_AGAIN);
    hosts.serve(&hosts.all(), "after", PATIENCE);
    hosts.have_not_panicked();
}

#[test]
fn a_host_whose_cable_is_pulled_for_25_s_is_a_member_again_15_s_after_it_is_back() {
    let Some(hosts) = Hosts::start("unplugged", Net::of(5), 5, PATIENCE) else { return };
    // The one that the others joined through.
    let (gone, others) = (0, [1, 2, 3, 4]);
    hosts.net.unplug(gone);
    let start = Instant::now();
    hosts.becomes_whole("without it", &others, COUNTED_OUT);
    // Its copies wait for it: only after 60 s does it count as lost.
    last(start, FAULT);
    hosts.net.plug(gone);
    hosts.becomes_whole("plugged in", &hosts.all(), WHOLE_AGAIN);
    hosts.serve(&hosts.all(), "after", PATIENCE);
    hosts.have_not_panicked();
}
