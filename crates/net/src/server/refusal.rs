//! Answers that say no.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

/// Why a request is not served.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The status to answer with.
    pub status: StatusCode,
    /// Headers, with the kind of the text, beside those that every answer has.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What is wrong and what to do, for a person.
    pub text: String,
}

impl Refusal {
    /// With a status and a text.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        let text_kind = HeaderValue::from_static("text/plain; charset=utf-8");
        Self { status, headers: vec![(header::CONTENT_TYPE, text_kind)], text: text.into() }
    }

    /// With a text that is JSON.
    #[must_use]
    pub fn json(mut self) -> Self {
        self.headers.retain(|(name, _)| name != header::CONTENT_TYPE);
        self.with(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }

    /// 400.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// 403.
    pub fn forbidden(text: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, text)
    }

    /// 401, with the challenge that goes with it.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "a token is needed: `Authorization: Bearer TOKEN`")
            .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 404.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing here")
    }

    /// 503, and when to come again.
    pub fn busy(text: impl Into<String>, retry_after_seconds: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
            .with(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds))
    }

    /// With one header more.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// As an answer.
    pub fn into_response(self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(self.text + "\n"));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers);
        response
    }

    /// The whole answer, for a connection that nobody else answers on.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.status.as_str(),
            self.status.canonical_reason().unwrap_or_default(),
            self.text.len() + 1
        )
        .into_bytes();
        for (name, value) in &self.headers {
            head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        head.extend([b"\r\n", self.text.as_bytes(), b"\n"].concat());
        head
    }
}
