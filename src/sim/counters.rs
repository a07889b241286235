//! What is counted in a world.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened so far.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Adds what happened in another world.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Messages delivered.
    messages,
    /// Bytes sent, prefixes included.
    bytes,
    /// Bytes of them that keep the ring.
    bytes_of_ring,
    /// Events taken from the queue.
    events,
    /// Times the ring invariant was checked.
    checks,
    /// Nodes that joined.
    joined,
    /// Nodes that left in order.
    left,
    /// Processes that crashed.
    crashed,
    /// Hosts that vanished without a word.
    vanished,
    /// Processes started on a host that had one before.
    restarted,
    /// Processes that were stopped and went on.
    frozen,
    /// Nodes that lost all neighbours.
    orphaned,
    /// Nodes that carried the ring on alone.
    reformed,
    /// Members that came to count as gone, for all who noticed.
    gone,
    /// Slots of which somebody got a copy.
    slots_taken,
    /// Frames that vanished by chance.
    lost,
    /// Frames that arrived twice.
    doubled,
    /// Frames that others were let pass.
    passed,
    /// Frames that vanished on a blocked way.
    blocked,
    /// Connections that broke as the other end was not heard any more.
    unheard,
    /// Connections that could not be made in time.
    dials_timed_out,
    /// Wall clocks that jumped.
    wall_jumps,
    /// Lookups answered.
    lookups,
    /// Lookups without an answer before their deadline.
    lookups_failed,
}
