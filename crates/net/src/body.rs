//! A body that is whole when it ends, whatever happened on the way.
//!
//! When a body breaks off, the rest is asked for by Range if the server gives parts and names the version
//! strongly; else all of it again, and what was given already is skipped. Either way nothing of another
//! version is ever mixed in: a part must carry the same name, and bytes that come again must hash to the
//! same value as those given before.

use std::sync::Arc;

use aqueduct_core::{ByteStream, Error, ErrorKind, Result};
use async_stream::try_stream;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use reqwest::Response;
use url::Url;

use crate::failure::{self, Failure, changed, later};
use crate::inner::Inner;
use crate::pace::Pace;
use crate::range::{ContentRange, Version, content_length, refuses_ranges};
use crate::request::{Answer, Ask, drain};
use crate::retry::Tries;

/// What is known of a body under way.
struct Download {
    inner: Arc<Inner>,
    ask: Ask,
    tries: Tries,
    version: Version,
    n_total: Option<u64>,
    /// Whether parts are still to be asked for.
    uses_ranges: bool,
    /// Given to the reader, and their hash.
    n_given: u64,
    given: blake3::Hasher,
    /// How many had been given at the last failure.
    n_given_before: u64,
    again: Option<Again>,
    /// Of the answer that is being read.
    pace: Pace,
}

/// Bytes that were given already come again.
#[derive(Default)]
struct Again {
    n_bytes: u64,
    hash: blake3::Hasher,
    /// The version they are of. It counts only once they have proved to be the same: a later part of it must
    /// not follow bytes of another.
    version: Version,
}

impl Inner {
    /// Opens a whole file: tries until there is an answer with a body.
    pub(crate) async fn open(&self, ask: &Ask, tries: &mut Tries) -> Result<Answer> {
        loop {
            let failure = match self.send(ask).await {
                Ok(answer) => match whole(ask, answer).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            tries.after(failure, false).await?;
        }
    }
}

/// An answer that carries the whole file, or says that it is the version that is known.
async fn whole(ask: &Ask, answer: Answer) -> Result<Answer, Failure> {
    let status = answer.response.status();
    if status == StatusCode::NOT_MODIFIED && ask.unless.is_some() {
        return Ok(answer);
    }
    if status.is_success() && status != StatusCode::PARTIAL_CONTENT {
        return Ok(answer);
    }
    let failure = failure::of_status(&answer.url, status, answer.response.headers());
    drain(answer.response).await;
    Err(failure)
}

/// The body of an answer, taken up again where it breaks off.
///
/// # Errors
/// It is longer than `max_bytes` already by what its headers say.
pub(crate) fn body(inner: Arc<Inner>, ask: Ask, first: Answer, tries: Tries) -> Result<ByteStream> {
    let headers = first.response.headers();
    let mut download = Download {
        version: Version::of(headers),
        n_total: content_length(headers),
        uses_ranges: !refuses_ranges(headers) && ask.json.is_none(),
        inner,
        ask,
        tries,
        n_given: 0,
        given: blake3::Hasher::new(),
        n_given_before: 0,
        again: None,
        pace: Pace::default(),
    };
    download.check_size(download.n_total.unwrap_or(0))?;
    let mut response = first.response;
    Ok(Box::pin(try_stream! {
        loop {
            match download.piece(&mut response).await {
                Ok(Some(piece)) => yield piece,
                Ok(None) => break,
                Err(failure) => {
                    drop(response);
                    response = download.reopen(failure).await?;
                }
            }
        }
    }))
}

impl Download {
    fn url(&self) -> &Url {
        &self.ask.url
    }

    /// The next bytes that the reader has not had; nothing at the end of the whole body.
    async fn piece(&mut self, response: &mut Response) -> Result<Option<Bytes>, Failure> {
        loop {
            let chunk = match self.inner.chunk(&self.ask.url, response, &mut self.pace).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return self.at_end(),
                // All of it came: how the connection ends is no matter.
                Err(_) if self.again.is_none() && self.n_total == Some(self.n_given) => return Ok(None),
                Err(failure) => return Err(failure),
            };
            let fresh = self.skip_given(chunk)?;
            if !fresh.is_empty() {
                self.count(&fresh)?;
                return Ok(Some(fresh));
            }
        }
    }

    fn at_end(&self) -> Result<Option<Bytes>, Failure> {
        if let Some(again) = &self.again {
            return Err(self.became(&again.version, "it became shorter").into());
        }
        match self.n_total {
            Some(n_total) if self.n_given < n_total => {
                let message = format!("the body ended after {} of {n_total} bytes", self.n_given);
                Err(later(self.url(), message))
            }
            _ => Ok(None),
        }
    }

    fn count(&mut self, fresh: &Bytes) -> Result<()> {
        self.n_given += fresh.len() as u64;
        if self.tries.retries > 0 {
            self.given.update(fresh);
        }
        if let Some(n_total) = self.n_total.filter(|n_total| self.n_given > *n_total) {
            let message = format!("the body has more than the {n_total} bytes it was to have");
            return Err(failure::at(self.url(), ErrorKind::Io, message));
        }
        self.check_size(self.n_given)
    }

    fn check_size(&self, n_bytes: u64) -> Result<()> {
        match self.inner.http.max_bytes {
            Some(max_bytes) if n_bytes > max_bytes.get() => Err(too_large(self.url(), max_bytes)),
            _ => Ok(()),
        }
    }

    /// Cuts off what was given already. Once all of that has come again, it must be the same.
    fn skip_given(&mut self, mut chunk: Bytes) -> Result<Bytes> {
        let Some(again) = &mut self.again else { return Ok(chunk) };
        let n_left = usize::try_from(self.n_given - again.n_bytes).unwrap_or(usize::MAX);
        let known = chunk.split_to(n_left.min(chunk.len()));
        again.hash.update(&known);
        again.n_bytes += known.len() as u64;
        if again.n_bytes == self.n_given {
            if again.hash.finalize() != self.given.finalize() {
                let now = std::mem::take(&mut again.version);
                let what = format!("its first {} bytes are others than before", self.n_given);
                return Err(self.became(&now, &what));
            }
            self.version = std::mem::take(&mut again.version);
            self.again = None;
        }
        Ok(chunk)
    }

    /// Asks for the rest until there is an answer that goes on where the last one broke off.
    async fn reopen(&mut self, mut failure: Failure) -> Result<Response> {
        loop {
            let moved = self.n_given > self.n_given_before;
            self.n_given_before = self.n_given;
            self.pace = Pace::default();
            self.tries.after(failure, moved).await?;
            match self.ask_for_rest().await {
                Ok(response) => return Ok(response),
                Err(next) => failure = next,
            }
        }
    }

    async fn ask_for_rest(&mut self) -> Result<Response, Failure> {
        let name = self.version.strong().filter(|_| self.uses_ranges && self.n_given > 0).map(str::to_owned);
        let mut ask = self.ask.clone();
        ask.range = name.as_ref().map(|_| format!("bytes={}-", self.n_given));
        ask.if_range = name;
        let response = self.inner.send(&ask).await?.response;
        let status = response.status();
        match status {
            StatusCode::PARTIAL_CONTENT if ask.range.is_some() => {
                self.check_part(response.headers())?;
                self.again = None;
            }
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PRECONDITION_FAILED if ask.range.is_some() => {
                self.uses_ranges = false;
                return Err(later(self.url(), format!("the server answered {status} to a range")));
            }
            _ if status.is_success() && status != StatusCode::PARTIAL_CONTENT => {
                self.start_again(response.headers())?;
            }
            _ => return Err(failure::of_status(self.url(), status, response.headers())),
        }
        Ok(response)
    }

    /// A part must begin where the last byte was, end with the file, and be of the same version.
    fn check_part(&mut self, headers: &HeaderMap) -> Result<(), Failure> {
        let range = ContentRange::of(headers);
        let fits = range.is_some_and(|range| {
            let n_total = self.n_total.or(range.total);
            range.start == self.n_given
                && n_total == Some(range.end)
                && range.total.is_none_or(|total| total == range.end)
        });
        let version = Version::of(headers);
        if fits && self.version.agrees(&version) {
            self.n_total = self.n_total.or(range.and_then(|range| range.total));
            return Ok(());
        }
        self.uses_ranges = false;
        let found = crate::range::text(headers, &http::header::CONTENT_RANGE).unwrap_or_default();
        let message = format!(
            "asked for the bytes from {} on of version {}, the server sent `{found}` of version {}",
            self.n_given,
            self.version.shown(),
            version.shown()
        );
        Err(later(self.url(), message))
    }

    /// All of it comes again, of the same version or another: the bytes decide.
    fn start_again(&mut self, headers: &HeaderMap) -> Result<()> {
        let (n_total, version) = (content_length(headers), Version::of(headers));
        if let (Some(before), Some(now)) = (self.n_total, n_total)
            && before != now
        {
            return Err(self.became(&version, &format!("it had {before} bytes and has {now}")));
        }
        self.n_total = self.n_total.or(n_total);
        if self.n_given > 0 {
            self.again = Some(Again { version, ..Again::default() });
        } else {
            self.version = version;
        }
        Ok(())
    }

    /// It is another version by now: the names of both tell whoever serves it which is which.
    fn became(&self, now: &Version, what: &str) -> Error {
        changed(self.url(), what, self.version.became(now))
    }
}

/// A body is longer than it may be.
pub(crate) fn too_large(url: &Url, max_bytes: aqueduct_primitives::ByteCount) -> Error {
    failure::at(
        url,
        ErrorKind::Limit,
        format!("the body is longer than `max_bytes`, {max_bytes}; raise it if that is meant"),
    )
    .with("max_bytes", max_bytes)
}
