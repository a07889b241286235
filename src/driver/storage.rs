//! Where this node's records are, and the way there and back.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::Waker;

use super::data_dir::DataDir;
use super::durable::{Durable, Loaded};
use super::ring_key::Identity;
use super::settings::{NodeSettings, RunError};
use crate::base::Incarnation;
use crate::data::{Done, MemoryStore, Work, carry_out, gauge};
use crate::node::{Input, Memory, RingParams};

/// The node's store. There is none before the ring is known.
pub(super) enum Storage {
    /// Gone with the process.
    Memory { store: Option<MemoryStore>, bytes_max: Option<u64>, done: VecDeque<Input> },
    /// In a directory.
    Durable { durable: Box<Durable>, _dir: DataDir },
}

impl Storage {
    /// Looks what there is, if there can be anything. `drawn` is who the node becomes otherwise.
    pub fn load(settings: &NodeSettings, drawn: Identity) -> Result<(Self, Option<Loaded>), RunError> {
        let bytes_max = settings.bytes_max;
        let Some(dir) = &settings.data_dir else {
            return Ok((Self::Memory { store: None, bytes_max, done: VecDeque::new() }, None));
        };
        let dir = DataDir::open(dir)?;
        let (durable, loaded) = Durable::load(&dir.path, settings.fsync, bytes_max, drawn)?;
        Ok((Self::Durable { durable: Box::new(durable), _dir: dir }, loaded))
    }

    /// What to call it in reports.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory",
            Self::Durable { .. } => "sqlite",
        }
    }

    /// Whether the records outlive the process.
    pub fn is_durable(&self) -> bool {
        matches!(self, Self::Durable { .. })
    }

    /// The ring is known.
    pub fn start(
        &mut self,
        params: &RingParams,
        me: (Incarnation, SocketAddr),
        waker: &Arc<Waker>,
    ) -> Result<(), RunError> {
        match self {
            Self::Memory { store, bytes_max, .. } => {
                *store = Some(MemoryStore::new(params.space).with_bytes_max(*bytes_max));
                Ok(())
            }
            Self::Durable { durable, .. } => durable.start(params, me, waker),
        }
    }

    /// Does this, or has it done; [`Storage::poll`] gives the answer.
    pub fn ask(&mut self, job: u64, work: Work) {
        match self {
            Self::Memory { store: Some(store), done: all, .. } => {
                // What is gone with the process needs no note of its views.
                let done = if let Work::Keep(_) = work { Done::Changed } else { carry_out(work, store) };
                all.push_back(Input::Stored { job, done, gauge: Some(gauge(store)) });
            }
            Self::Memory { store: None, .. } => {}
            Self::Durable { durable, .. } => durable.ask(job, work),
        }
    }

    /// The next answer.
    pub fn poll(&mut self) -> Option<Input> {
        match self {
            Self::Memory { done, .. } => done.pop_front(),
            Self::Durable { durable, .. } => durable.poll(),
        }
    }

    /// Keeps what the node knows of its ring, if anything can be kept.
    pub fn remember(&self, memory: &Memory) {
        if let Self::Durable { durable, .. } = self {
            durable.remember(memory);
        }
    }

    /// The node has left its ring, and is nobody any more.
    pub fn forget(&mut self) -> Result<(), RunError> {
        match self {
            Self::Memory { .. } => Ok(()),
            Self::Durable { durable, .. } => durable.forget().map_err(|error| RunError {
                message: format!("the node has left, and what it kept cannot be removed: {error}"),
            }),
        }
    }
}
