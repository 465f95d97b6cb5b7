//! Calls to the service: each within its time, made again where that may help, and not while the service cools down.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use aqueduct_core::{Error, ErrorKind, Result, Retry, StepMetrics};
use aqueduct_net::{Backoff, Call, Fetcher, HttpOptions, Location, Reply, TimedOut, Trust};
use aqueduct_primitives::ByteCount;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;

use super::config::Config;
use super::pace::Pace;
use super::trouble::{Trouble, TroubleKind, one_line};

/// How many times a call is made again unless the flow says otherwise.
const DEFAULT_RETRIES: u32 = 3;
/// How long a call may take that clears up.
const CLEAR_UP_TIMEOUT: Duration = Duration::from_secs(20);
/// Beside its text, an answer has so much around it; and its text takes twice as much in JSON at most, or it is too long.
const ENVELOPE: ByteCount = ByteCount::kib(64);

/// One request to the service.
#[derive(Clone, Debug)]
pub(super) struct Request {
    method: Method,
    url: String,
    /// Whether the service itself has named the URL.
    is_named_by_service: bool,
    headers: HeaderMap,
    body: Vec<Bytes>,
}

impl Request {
    pub(super) fn new(method: Method, url: impl Into<String>) -> Self {
        let (url, is_named_by_service) = (url.into(), false);
        Self { method, url, is_named_by_service, headers: HeaderMap::new(), body: Vec::new() }
    }

    /// A question or another request of JSON, by POST.
    pub(super) fn json(url: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::POST, url)
            .header("content-type", "application/json")
            .body([body.to_string().into()])
    }

    /// To a URL that came from the service: it may lead to no private address but the service's own.
    pub(super) fn named_by_service(mut self) -> Self {
        self.is_named_by_service = true;
        self
    }

    /// Sets a header; one that is none is left out.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn body(self, body: impl Into<Vec<Bytes>>) -> Self {
        Self { body: body.into(), ..self }
    }
}

/// A call that failed.
#[derive(Debug)]
pub(super) struct CallFailed {
    /// The status, if there was an answer.
    pub(super) status: Option<u16>,
    pub(super) is_timeout: bool,
    /// Whether it may help to make it again.
    pub(super) may_pass: bool,
    pub(super) retry_after: Option<Duration>,
    pub(super) message: String,
}

impl CallFailed {
    /// What came is not what the service says it sends.
    pub(super) fn odd(message: impl Into<String>) -> Self {
        let (status, is_timeout, may_pass, retry_after) = (None, false, true, None);
        Self { status, is_timeout, may_pass, retry_after, message: message.into() }
    }

    fn of_status(request: &Request, reply: &Reply) -> Self {
        let status = reply.status.as_u16();
        let said = one_line(&String::from_utf8_lossy(reply.body.get(..1000).unwrap_or(&reply.body)));
        // Without credentials that may stand in it.
        let at = Location::parse(&request.url, Path::new("")).map(|at| at.to_string()).unwrap_or_default();
        let method = &request.method;
        Self {
            status: Some(status),
            is_timeout: false,
            may_pass: matches!(status, 408 | 425 | 429) || reply.status.is_server_error(),
            retry_after: reply.retry_after(),
            message: format!("{method} {at}: the service answered {status}: {said}"),
        }
    }

    fn of_error(request: &Request, error: &Error) -> Self {
        Self {
            status: None,
            is_timeout: error.cause::<TimedOut>().is_some(),
            may_pass: error.retry() == Retry::Later,
            retry_after: None,
            message: format!("{}: {}", request.method, error.chain()),
        }
    }

    /// Whether the service has more to do than it can.
    fn is_pressure(&self) -> bool {
        self.is_timeout || matches!(self.status, Some(429 | 503 | 529))
    }

    /// As the section's trouble.
    pub(super) fn into_trouble(self, kind: TroubleKind) -> Trouble {
        let kind = if self.is_timeout { TroubleKind::TimedOut } else { kind };
        Trouble::new(kind, self.message)
    }

    /// Whether no other section can fare better.
    pub(super) fn is_about_the_run(&self) -> bool {
        self.status == Some(401)
    }

    /// As the error that ends the run.
    pub(super) fn into_error(self) -> Error {
        let message =
            format!("the service takes no such credentials; see `auth`: {}", one_line(&self.message));
        Error::new(ErrorKind::Denied, "ask service", message)
    }
}

/// The questions that may still be asked.
#[derive(Debug)]
pub(super) struct Allowance {
    left: AtomicU64,
    total: Option<u64>,
}

impl Allowance {
    pub(super) fn new(total: Option<u64>) -> Self {
        Self { left: AtomicU64::new(total.unwrap_or(u64::MAX)), total }
    }

    /// Takes one.
    pub(super) fn take(&self) -> bool {
        self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    /// Gives one back that was not asked.
    pub(super) fn give_back(&self) {
        self.left.fetch_add(1, SeqCst);
    }

    /// The error that ends a run which has asked all it may.
    pub(super) fn used_up(&self) -> Error {
        let total = self.total.unwrap_or(u64::MAX);
        let message = format!(
            "all {total} questions that a run may ask are asked; what was answered is kept, run it again to go on, or raise \
             `max_requests`"
        );
        Error::new(ErrorKind::Limit, "ask service", message)
    }
}

/// Makes calls.
pub(super) struct Caller {
    fetcher: Fetcher,
    home: Location,
    pub(super) timeout: Duration,
    retries: u32,
    backoff: Backoff,
    max_body: ByteCount,
    pub(super) pace: Arc<Pace>,
    metrics: Arc<StepMetrics>,
}

impl Caller {
    /// Calls to a service at this URL.
    ///
    /// # Errors
    /// The options are wrong.
    pub(super) fn new(
        config: &Config,
        url: &str,
        pace: Arc<Pace>,
        cx: &aqueduct_core::Context,
    ) -> Result<Self> {
        let read_timeout = Some(config.http.read_timeout.unwrap_or(config.timeout));
        let fetcher = cx.service::<Fetcher>()?.with(&HttpOptions { read_timeout, ..config.http.clone() })?;
        let backoff = Backoff::default();
        let backoff = Backoff {
            first: backoff.first.min(config.cool_down),
            max: config.cool_down,
            max_retry_after: backoff.max_retry_after.max(config.cool_down),
        };
        Ok(Self {
            retries: fetcher.options().retries.unwrap_or(DEFAULT_RETRIES),
            fetcher,
            home: Location::parse(url, cx.base_dir())?,
            timeout: config.timeout,
            backoff,
            max_body: config.max_answer_bytes.saturating_mul(2).saturating_add(ENVELOPE),
            pace,
            metrics: Arc::clone(cx.metrics()),
        })
    }

    /// Makes a call once; an answer that is no success is a failure.
    pub(super) async fn once(&self, request: &Request) -> Result<Reply, CallFailed> {
        self.pace.until_cool().await;
        self.at_once(request, self.timeout).await
    }

    /// [`Caller::once`], to clear up: though the service cools down, and within less time, for whoever stops a run waits for it.
    pub(super) async fn to_clear_up(&self, request: &Request) -> Result<Reply, CallFailed> {
        self.at_once(request, self.timeout.min(CLEAR_UP_TIMEOUT)).await
    }

    async fn at_once(&self, request: &Request, timeout: Duration) -> Result<Reply, CallFailed> {
        let call = self.call(request, timeout).map_err(|error| CallFailed::of_error(request, &error))?;
        match self.fetcher.call(&call).await {
            Ok(reply) if reply.status.is_success() => Ok(reply),
            Ok(reply) => Err(CallFailed::of_status(request, &reply)),
            Err(error) => Err(CallFailed::of_error(request, &error)),
        }
    }

    fn call(&self, request: &Request, timeout: Duration) -> Result<Call> {
        let origin = match &self.home {
            Location::Http(url) => Some(url.clone()),
            _ => None,
        };
        Ok(Call {
            method: request.method.clone(),
            at: Location::parse(&request.url, Path::new(""))?,
            from: if request.is_named_by_service { Trust::Data { origin } } else { Trust::Flow },
            headers: request.headers.clone(),
            body: request.body.clone(),
            timeout,
            max_answer_bytes: self.max_body,
        })
    }

    /// Whether to make a call again that has failed so many times, the waiting done.
    pub(super) async fn is_tried_again(&self, failed: &CallFailed, n_failed: u32) -> bool {
        if failed.is_pressure() {
            self.pace.pressed();
        }
        if !failed.may_pass || n_failed > self.retries {
            return false;
        }
        let wait = self.backoff.wait(n_failed, failed.retry_after);
        self.metrics.retries.add(1);
        let wait_ms = wait.as_millis();
        tracing::debug!(n_failed, wait_ms, error = failed.message, "a call is made again");
        if matches!(failed.status, Some(429 | 503 | 529)) {
            // What one is told holds for all.
            self.pace.cool_down(wait);
        } else {
            tokio::time::sleep(wait).await;
        }
        true
    }
}
