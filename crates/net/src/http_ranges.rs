//! An HTTP file read by range, pinned to the version it had when it was opened.

use std::ops::Range;
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, RandomAccess, Result, StepMetrics};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use reqwest::Response;
use url::Url;

use crate::address::Trust;
use crate::body::too_large;
use crate::failure::{self, Failure, changed, later, no_ranges};
use crate::fetched::Ranged;
use crate::inner::Inner;
use crate::pace::Pace;
use crate::range::{ContentRange, Version, content_length, unsatisfied_total};
use crate::request::Ask;

/// A file of known length and version, read by `Range`.
struct HttpRanges {
    inner: Arc<Inner>,
    ask: Ask,
    version: Version,
    n_total: u64,
    metrics: Arc<StepMetrics>,
}

/// Opens a file: asks for its first byte to learn its length, its version, and whether parts are to be had.
///
/// # Errors
/// The server gives no parts; or as any request.
pub(crate) async fn open(
    inner: Arc<Inner>,
    url: &Url,
    from: Trust,
    metrics: &Arc<StepMetrics>,
) -> Result<Ranged> {
    let ask = Ask { range: Some("bytes=0-0".into()), ..Ask::new(url, from, Method::GET) };
    let mut tries = inner.tries(metrics);
    let (n_total, version) = loop {
        match probe(&inner, &ask).await {
            Ok(known) => break known,
            Err(failure) => tries.after(failure, false).await?,
        }
    };
    if let Some(max_bytes) = inner.http.max_bytes.filter(|max_bytes| n_total > max_bytes.get()) {
        return Err(too_large(url, max_bytes));
    }
    let validator = version.validator(n_total);
    let file = HttpRanges { inner, ask, version, n_total, metrics: Arc::clone(metrics) };
    Ok(Ranged { validator, file: Arc::new(file) })
}

async fn probe(inner: &Inner, ask: &Ask) -> Result<(u64, Version), Failure> {
    let response = inner.send(ask).await?.response;
    let headers = response.headers().clone();
    let n_total = match response.status() {
        StatusCode::PARTIAL_CONTENT => ContentRange::of(&headers)
            .filter(|range| (range.start, range.end) == (0, 1))
            .and_then(|range| range.total),
        StatusCode::RANGE_NOT_SATISFIABLE => unsatisfied_total(&headers).filter(|n_total| *n_total == 0),
        status if status.is_success() => content_length(&headers).filter(|n_bytes| *n_bytes == 0),
        status => return Err(failure::of_status(&ask.url, status, &headers)),
    };
    crate::request::drain(response).await;
    Ok((n_total.ok_or_else(|| no_ranges(&ask.url))?, Version::of(&headers)))
}

#[async_trait]
impl RandomAccess for HttpRanges {
    fn len(&self) -> u64 {
        self.n_total
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.check_range(&range)?;
        let mut tries = self.inner.tries(&self.metrics);
        loop {
            match self.read_once(&range).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => tries.after(failure, false).await?,
            }
        }
    }
}

impl HttpRanges {
    fn check_range(&self, range: &Range<u64>) -> Result<()> {
        if range.end <= self.n_total {
            return Ok(());
        }
        let message = format!("bytes {}..{} of a file of {}", range.start, range.end, self.n_total);
        Err(failure::at(&self.ask.url, ErrorKind::Data, message))
    }

    async fn read_once(&self, range: &Range<u64>) -> Result<Bytes, Failure> {
        let mut ask = self.ask.clone();
        ask.range = Some(format!("bytes={}-{}", range.start, range.end - 1));
        ask.if_range = self.version.strong().map(str::to_owned);
        let response = self.inner.send(&ask).await?.response;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                self.check_part(response.headers(), range)?;
                self.collect(response, range.end - range.start).await
            }
            StatusCode::OK => Err(self.not_a_part(response.headers()).into()),
            status @ (StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PRECONDITION_FAILED) => {
                let what = format!("the server answered {status} to a range");
                Err(self.became(&Version::of(response.headers()), &what).into())
            }
            status => Err(failure::of_status(&ask.url, status, response.headers())),
        }
    }

    fn check_part(&self, headers: &HeaderMap, range: &Range<u64>) -> Result<(), Failure> {
        let version = Version::of(headers);
        if !self.version.agrees(&version) {
            return Err(self.became(&version, "a part came of another version").into());
        }
        match ContentRange::of(headers) {
            Some(ContentRange { total: Some(total), .. }) if total != self.n_total => {
                let what = format!("it had {} bytes and has {total}", self.n_total);
                Err(self.became(&version, &what).into())
            }
            Some(part) if (part.start, part.end) == (range.start, range.end) => Ok(()),
            _ => {
                let found = crate::range::text(headers, &http::header::CONTENT_RANGE).unwrap_or_default();
                let message = format!("asked for bytes {}..{}, got `{found}`", range.start, range.end);
                Err(later(&self.ask.url, message))
            }
        }
    }

    /// The whole file came where a part was asked for: of another version, or from a server that no longer
    /// gives parts.
    fn not_a_part(&self, headers: &HeaderMap) -> Error {
        if self.version.agrees(&Version::of(headers)) {
            return no_ranges(&self.ask.url);
        }
        self.became(&Version::of(headers), "all of it came where a part was asked for")
    }

    fn became(&self, now: &Version, what: &str) -> Error {
        changed(&self.ask.url, what, self.version.became(now))
    }

    /// Exactly so many bytes; without a copy when they come in one piece.
    async fn collect(&self, mut response: Response, n_bytes: u64) -> Result<Bytes, Failure> {
        let url = &self.ask.url;
        let n_bytes = usize::try_from(n_bytes)
            .map_err(|_| failure::at(url, ErrorKind::Limit, "a range beyond the address space"))?;
        let mut whole = Bytes::new();
        let mut pieces = BytesMut::new();
        let mut pace = Pace::default();
        while let Some(chunk) = self.inner.chunk(url, &mut response, &mut pace).await? {
            if whole.len() + pieces.len() + chunk.len() > n_bytes {
                return Err(later(url, format!("more than the {n_bytes} bytes of the range")));
            }
            if whole.is_empty() && pieces.is_empty() {
                whole = chunk;
                continue;
            }
            if pieces.is_empty() {
                pieces.reserve(n_bytes);
                pieces.extend_from_slice(&std::mem::take(&mut whole));
            }
            pieces.extend_from_slice(&chunk);
        }
        let bytes = if pieces.is_empty() { whole } else { pieces.freeze() };
        if bytes.len() < n_bytes {
            return Err(later(url, format!("the range ended after {} of {n_bytes} bytes", bytes.len())));
        }
        Ok(bytes)
    }
}
