//! Which addresses a URL may lead to: private ones only when the flow itself names the host.

use url::Url;

/// Who named a location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The flow: it may lead anywhere, and gets the configured credentials.
    Flow,
    /// The data. It may lead to public addresses, to the origin it came from, to hosts that the flow names
    /// and to `allow_hosts`; credentials go to the origin it came from only.
    Data {
        /// The URL that the data came from, if it came from one.
        origin: Option<Url>,
    },
}
