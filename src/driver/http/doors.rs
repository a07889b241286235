//! Who may ask for what, as all threads of the front see it. It can change while they run.

use std::sync::{Arc, PoisonError, RwLock};

use crate::data::http::Access;

/// Shared by all that ask it; what was changed counts for the next request.
#[derive(Clone, Debug, Default)]
pub struct Doors(Arc<RwLock<Arc<Access>>>);

impl Doors {
    /// These rules from the begin.
    pub fn new(access: Access) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(access))))
    }

    /// The rules as they are now.
    pub fn get(&self) -> Arc<Access> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Other rules from now on.
    pub fn set(&self, access: Access) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
    }
}
