//! Where this node's records are, and the way there and back.

use std::collections::VecDeque;

use crate::data::{MemoryStore, Work, carry_out, gauge};
use crate::node::{Input, RingParams};

/// The node's store.
#[derive(Debug, Default)]
pub(super) struct Storage {
    // There is none before the ring is known.
    memory: Option<MemoryStore>,
    done: VecDeque<Input>,
}

impl Storage {
    /// The ring is known.
    pub fn open(&mut self, params: &RingParams) {
        self.memory = Some(MemoryStore::new(params.space));
    }

    /// Does this, or has it done; [`Storage::poll`] gives the answer.
    pub fn ask(&mut self, job: u64, work: Work) {
        if let Some(store) = &mut self.memory {
            let done = carry_out(work, store);
            self.done.push_back(Input::Stored { job, done, gauge: gauge(store) });
        }
    }

    /// The next answer.
    pub fn poll(&mut self) -> Option<Input> {
        self.done.pop_front()
    }
}
