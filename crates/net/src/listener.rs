//! A stream of events (WHATWG HTML, "Server-sent events"), listened to for as long as it lasts and asked for again where it
//! breaks off.
//!
//! What the bytes say is not known here. Nothing is held but the piece of the answer that is being given.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{ByteStream, Error, ErrorKind, Result, StepMetrics};
use async_stream::try_stream;
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::Response;
use url::Url;

use crate::Trust;
use crate::failure::{self, Failure, later, may_pass, shut_down};
use crate::fetched::encoding;
use crate::inner::Inner;
use crate::pace::Pace;
use crate::range::text;
use crate::request::{Answer, Ask, drain};
use crate::retry::tell;

/// What a stream of events is called.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";

/// One who listens. Made by [`Fetcher::listener`](crate::Fetcher::listener).
///
/// `read_timeout` is how long nothing at all may come, heartbeats counted; `max_bytes` and `min_rate` are for what has an
/// end.
pub struct Listener {
    inner: Arc<Inner>,
    url: Url,
    reconnects: u32,
    metrics: Arc<StepMetrics>,
    /// How long the server wants others to wait before they come back.
    asked_wait: Option<Duration>,
    has_listened: bool,
    /// Since something new came.
    n_failed: u32,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("n_failed", &self.n_failed).finish_non_exhaustive()
    }
}

impl Listener {
    pub(crate) fn new(inner: Arc<Inner>, url: &Url, reconnects: u32, metrics: Arc<StepMetrics>) -> Self {
        Self {
            inner,
            url: url.clone(),
            reconnects,
            metrics,
            asked_wait: None,
            has_listened: false,
            n_failed: 0,
        }
    }

    /// The bytes of the stream behind this event; of what comes from now on, if the id is empty. Nothing, when the server
    /// says by 204 that there is no more.
    ///
    /// An error of the bytes is their last item.
    ///
    /// # Errors
    /// The server refuses, sends something else, or the tries are used up.
    ///
    /// # Cancel safety
    /// Dropping the future or the bytes closes the connection.
    pub async fn connect(&mut self, last_event_id: &str) -> Result<Option<ByteStream>> {
        loop {
            let failure = match self.ask(last_event_id).await {
                Ok(answer) => {
                    self.has_listened = true;
                    return Ok(answer.map(|response| self.bytes(response)));
                }
                Err(failure) => failure,
            };
            self.n_failed += 1;
            self.pause(failure, false).await?;
        }
    }

    /// [`Listener::connect`] after the stream broke off, with why if not by its end, once it is time. One that `moved` on
    /// begins the count of tries anew.
    ///
    /// # Errors
    /// As [`Listener::connect`]; and why it broke off, if no other try can help.
    ///
    /// # Cancel safety
    /// As [`Listener::connect`].
    pub async fn connect_again(
        &mut self,
        last_event_id: &str,
        broke: Option<Error>,
        moved: bool,
    ) -> Result<Option<ByteStream>> {
        let failure = match broke {
            Some(error) => error.into(),
            None => later(&self.url, "the server ended the stream"),
        };
        self.n_failed = if moved { 1 } else { self.n_failed + 1 };
        self.pause(failure, moved).await?;
        self.connect(last_event_id).await
    }

    /// From now on so long is waited before the stream is asked for again, within reason.
    pub fn wait_as_asked(&mut self, wait: Duration) {
        self.asked_wait = Some(wait.min(self.inner.backoff.max_retry_after));
    }

    async fn ask(&self, last_event_id: &str) -> Result<Option<Response>, Failure> {
        let ask = Ask {
            events_after: Some(last_event_id.to_owned()),
            ..Ask::new(&self.url, Trust::Flow, Method::GET)
        };
        let Answer { response, url } = self.inner.send(&ask).await?;
        match response.status() {
            StatusCode::OK => {
                check_events(&url, response.headers())?;
                Ok(Some(response))
            }
            StatusCode::NO_CONTENT => Ok(None),
            status => {
                let failure = failure::of_status(&url, status, response.headers());
                drain(response).await;
                Err(failure)
            }
        }
    }

    fn bytes(&self, mut response: Response) -> ByteStream {
        let (inner, url) = (Arc::clone(&self.inner), self.url.clone());
        Box::pin(try_stream! {
            // Each with a pace of its own: nothing is too slow that has no end.
            while let Some(chunk) =
                inner.chunk(&url, &mut response, &mut Pace::default()).await.map_err(|failure| failure.error)?
            {
                yield chunk;
            }
        })
    }

    /// Waits until the next try is due.
    async fn pause(&self, failure: Failure, moved: bool) -> Result<()> {
        let Failure { error, retry_after, .. } = failure;
        if !may_pass(&error) {
            return Err(error);
        }
        let (limit, key) = match self.has_listened {
            true => (self.reconnects, "reconnects"),
            false => (self.inner.http.retries(), "retries"),
        };
        if self.n_failed > limit {
            return Err(error.with("tries", self.n_failed).with(key, limit));
        }
        let backoff = || self.inner.backoff.wait(self.n_failed, retry_after);
        let wait = match (self.asked_wait, retry_after) {
            (Some(asked), None) if moved => asked,
            (Some(asked), None) => asked.max(backoff()),
            _ => backoff(),
        };
        self.metrics.retries.add(1);
        tell(self.n_failed, wait, &error.chain());
        tokio::select! {
            biased;
            () = self.inner.web.clients.closed().cancelled() => Err(shut_down()),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }
}

/// Whether it is a stream of events, sent as it is.
fn check_events(url: &Url, headers: &HeaderMap) -> Result<()> {
    let found = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
    let essence = found.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(EVENT_STREAM) {
        let shown: String = found.chars().take(80).collect();
        let message = format!("expected a stream of events, `{EVENT_STREAM}`; the server sent `{shown}`");
        return Err(failure::at(url, ErrorKind::Data, message));
    }
    let encoded = text(headers, &header::CONTENT_ENCODING).unwrap_or_default();
    match encoding(&encoded).map_err(|error| error.with("url", crate::masked_url(url)))? {
        None => Ok(()),
        Some(_) => {
            let message = format!("the server packed the stream as `{encoded}` although it was asked not to");
            Err(failure::at(url, ErrorKind::Data, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content_type: &str, encoding: &str) -> Result<()> {
        let answer = http::Response::builder()
            .header(header::CONTENT_TYPE, content_type)
            .header(header::CONTENT_ENCODING, encoding);
        let (head, ()) = answer.body(()).unwrap().into_parts();
        check_events(&Url::parse("http://host/events").unwrap(), &head.headers)
    }

    // WHATWG HTML, 9.2.3: anything else fails the connection
    #[test]
    fn only_a_stream_of_events_is_listened_to() {
        assert!(check("text/event-stream", "").is_ok());
        assert!(check("Text/Event-Stream; charset=utf-8", "identity").is_ok());
        let told = check("text/html; charset=utf-8", "").unwrap_err();
        assert!(told.message().contains("text/html"), "{told}");
        assert!(check("text/event-stream", "gzip").is_err());
        assert!(check("", "").is_err());
    }
}
