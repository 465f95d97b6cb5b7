//! What went wrong on the way, and whether trying again can help.

use std::time::Duration;

use aqueduct_core::{Changed, Error, ErrorKind, Retry};
use aqueduct_primitives::ByteCount;
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode, header};
use url::Url;

use crate::address::{self, PrivateAddress};
use crate::mask::masked_url;
use crate::pace::TooSlow;

const NO_RANGES: &str = "the server does not do ranges; read it from its start instead";

/// Whether this error says that a server gives no parts of a file: read the whole of it instead.
pub fn does_no_ranges(error: &Error) -> bool {
    error.kind() == ErrorKind::Io && error.message() == NO_RANGES
}

/// One try that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Why. [`Error::retry`] says whether another try can help.
    pub(crate) error: Error,
    /// How long the server asks to wait.
    pub(crate) retry_after: Option<Duration>,
    /// Whether the bytes came too slowly, so that those it brought are no reason to go on trying.
    pub(crate) is_slow: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None, is_slow: false }
    }
}

/// A failure at a URL that passes or does not.
pub(crate) fn at(url: &Url, kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, "fetch", message).with("url", masked_url(url))
}

/// The network failed: another try can help.
pub(crate) fn later(url: &Url, message: impl Into<String>) -> Failure {
    at(url, ErrorKind::Io, message).retry_later().into()
}

/// No byte arrived in time.
pub(crate) fn timed_out(url: &Url, key: &'static str, limit: Duration) -> Failure {
    later(url, format!("timed out: no byte arrived within `{key}`, {}", humantime::format_duration(limit)))
}

/// A small answer did not end in time.
pub(crate) fn timed_out_in_answer(url: &Url, limit: Duration) -> Failure {
    let limit = humantime::format_duration(limit);
    later(url, format!("timed out: the answer did not end within `read_timeout`, {limit}"))
}

/// A call did not end in time.
pub(crate) fn timed_out_calling(url: &Url, limit: Duration) -> Failure {
    let timed_out = TimedOut { limit };
    at(url, ErrorKind::Io, timed_out.to_string()).with_source(timed_out).retry_later().into()
}

/// The cause of an error of [`Fetcher::call`](crate::Fetcher::call): it took longer than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out: no whole answer within {}", humantime::format_duration(*.limit))]
pub struct TimedOut {
    /// It may take so long.
    pub limit: Duration,
}

/// No connection was made in time.
pub(crate) fn timed_out_connecting(url: &Url, limit: Duration, error: reqwest::Error) -> Failure {
    let limit = humantime::format_duration(limit);
    let message = format!("timed out while connecting: no connection within `connect_timeout`, {limit}");
    at(url, ErrorKind::Io, message).with_source(error.without_url()).retry_later().into()
}

/// Bytes arrive, but so few that nobody would see the end.
pub(crate) fn too_slow(url: &Url, slow: &TooSlow, min_rate: ByteCount) -> Failure {
    let TooSlow { n_bytes, waited } = slow;
    let (waited, min_rate) =
        (humantime::format_duration(Duration::from_secs(waited.as_secs())), min_rate.get());
    let message = format!(
        "the server is too slow: {n_bytes} bytes arrived in {waited}, less than `min_rate`, {min_rate} bytes a second; \
         if it can do no better, set a lower one, or 0 for none"
    );
    Failure { is_slow: true, ..later(url, message) }
}

/// The bytes are not those of the version that was begun with.
pub(crate) fn changed(url: &Url, what: &str, change: Changed) -> Error {
    let message = format!("it changed while it was read: {what}; {change}; run again");
    at(url, ErrorKind::Io, message).with_source(change)
}

/// The server gives no parts.
pub(crate) fn no_ranges(url: &Url) -> Error {
    at(url, ErrorKind::Io, NO_RANGES)
}

/// The fetcher was closed.
pub(crate) fn shut_down() -> Error {
    Error::new(ErrorKind::Cancelled, "fetch", "the client has been shut down")
}

/// An answer that is not what was asked for.
pub(crate) fn of_status(url: &Url, status: StatusCode, headers: &HeaderMap) -> Failure {
    let kind = match status.as_u16() {
        404 | 410 => ErrorKind::NotFound,
        401 | 403 | 407 | 451 => ErrorKind::Denied,
        _ => ErrorKind::Io,
    };
    let error = at(url, kind, format!("the server answered {status}")).with("status", status.as_u16());
    let passes = matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error();
    if !passes {
        return error.into();
    }
    Failure { retry_after: retry_after(headers, Utc::now()), ..error.retry_later().into() }
}

/// What the client library says, without its own copy of the URL, which is not masked.
pub(crate) fn of_client(url: &Url, error: reqwest::Error) -> Failure {
    let error = error.without_url();
    if let Some(private) = find::<PrivateAddress>(&error) {
        return address::denied(url, private.clone()).into();
    }
    if is_about_certificates(&error) {
        let message = "the server's certificate is not trusted; see `ca_file` and `insecure`";
        return at(url, ErrorKind::Denied, message).with_source(error).into();
    }
    let message = if error.is_builder() {
        return at(url, ErrorKind::Config, "the request cannot be made").with_source(error).into();
    } else if error.is_connect() {
        "could not connect"
    } else {
        "the connection broke"
    };
    at(url, ErrorKind::Io, message).with_source(error).retry_later().into()
}

/// Whether another try can help.
pub(crate) fn may_pass(error: &Error) -> bool {
    error.retry() == Retry::Later
}

/// The wait of a `Retry-After` header (RFC 9110, section 10.2.3): seconds, or a date. Junk counts as none.
pub(crate) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?.with_timezone(&Utc);
    Some((date - now).to_std().unwrap_or_default())
}

/// The certificate errors of the TLS library have no type that reaches us; their text does.
fn is_about_certificates(error: &reqwest::Error) -> bool {
    error.is_connect() && causes(error).any(|cause| cause.to_string().contains("certificate"))
}

fn find<'e, E: std::error::Error + 'static>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e E> {
    causes(error).find_map(|cause| cause.downcast_ref::<E>())
}

/// An error and all its causes, also those that an I/O error wraps.
fn causes<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| match error.downcast_ref::<std::io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
        None => error.source(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(text: &str) -> Option<Duration> {
        let now = DateTime::parse_from_rfc2822("Sun, 06 Nov 1994 08:49:37 GMT").unwrap().with_timezone(&Utc);
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]);
        retry_after(&headers, now)
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_date_and_junk_is_none() {
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-1"), None);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let url = Url::parse("http://host/a").unwrap();
        let passes = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            may_pass(&of_status(&url, status, &HeaderMap::new()).error)
        };
        assert!([408, 425, 429, 500, 502, 503, 504].into_iter().all(passes));
        assert!(![400, 401, 403, 404, 409, 410, 412, 416, 451].into_iter().any(passes));
    }
}
