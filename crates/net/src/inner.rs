//! What a fetcher works with, whatever it fetches.

use std::sync::Arc;

use aqueduct_core::StepMetrics;
use aqueduct_primitives::Tasks;

use crate::retry::Tries;
use crate::store::Stores;
use crate::web::Web;
use crate::{Backoff, HttpOptions};

/// Options of its own, and what it shares with other fetchers.
pub(crate) struct Inner {
    pub(crate) http: HttpOptions,
    pub(crate) backoff: Backoff,
    pub(crate) tasks: Tasks,
    pub(crate) web: Arc<Web>,
    pub(crate) stores: Arc<Stores>,
}

impl Inner {
    /// The tries of a request that is to come.
    pub(crate) fn tries(&self, metrics: &Arc<StepMetrics>) -> Tries {
        let closed = self.web.clients.closed().clone();
        Tries::new(self.http.retries(), self.backoff, Arc::clone(metrics), closed)
    }
}
