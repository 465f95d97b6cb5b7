//! What all clones of a fetcher share for HTTP: connections, tokens, rates, the hosts that the flow names.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use url::Url;

use crate::address::names_host;
use crate::auth::Tokens;
use crate::clients::Clients;
use crate::rate::Rates;

/// Made once, with the first fetcher.
#[derive(Debug, Default)]
pub(crate) struct Web {
    pub(crate) clients: Clients,
    pub(crate) rates: Rates,
    pub(crate) tokens: Tokens,
    /// Hosts that the flow names.
    trusted: RwLock<HashSet<String>>,
}

impl Web {
    /// Adds hosts that the flow names.
    pub(crate) fn trust(&self, hosts: impl IntoIterator<Item = String>) {
        self.trusted.write().unwrap_or_else(PoisonError::into_inner).extend(hosts);
    }

    /// Whether the flow names this URL's host.
    pub(crate) fn is_trusted(&self, url: &Url) -> bool {
        let trusted = self.trusted.read().unwrap_or_else(PoisonError::into_inner);
        trusted.iter().any(|entry| names_host(entry, url))
    }
}
