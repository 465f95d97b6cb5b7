//! Requests that change something on a server, each made once: whoever calls decides what is done when it fails.

use std::time::Duration;

use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_primitives::ByteCount;
use bytes::{Bytes, BytesMut};
use chrono::Utc;
use http::{HeaderMap, Method, StatusCode};

use crate::failure::{self, Failure};
use crate::inner::Inner;
use crate::pace::Pace;
use crate::request::Ask;
use crate::{Location, Trust};

/// A request with a method, headers and a body of one's own.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method: `POST`, `DELETE`.
    pub method: Method,
    /// Where; an HTTP URL.
    pub at: Location,
    /// Who named it. Credentials go to the flow's own URL, or to the origin that the data came from.
    pub from: Trust,
    /// Headers beside the configured ones.
    pub headers: HeaderMap,
    /// The body, in pieces that are sent one after the other.
    pub body: Vec<Bytes>,
    /// How long it may take from its turn at the host to the end of the answer.
    pub timeout: Duration,
    /// The most bytes that the answer may have.
    pub max_answer_bytes: ByteCount,
}

/// The answer to a [`Call`], whatever its status.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Bytes,
}

impl Reply {
    /// How long the server asks to wait before the next request.
    pub fn retry_after(&self) -> Option<Duration> {
        failure::retry_after(&self.headers, Utc::now())
    }
}

impl Inner {
    /// Makes the request once.
    pub(crate) async fn call(&self, call: &Call) -> Result<Reply, Failure> {
        let Location::Http(url) = &call.at else {
            return Err(Error::bug("call", "only HTTP servers are called").with("url", &call.at).into());
        };
        let ask = Ask {
            headers: call.headers.clone(),
            body: call.body.clone(),
            ..Ask::new(url, call.from.clone(), call.method.clone())
        };
        let request = self.in_turn(&ask, url, true).await?;
        let answered = async {
            let mut response = self.send_in_turn(&ask, url, request).await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let (mut body, mut pace) = (BytesMut::new(), Pace::default());
            while let Some(piece) = self.chunk(url, &mut response, &mut pace).await? {
                if body.len().saturating_add(piece.len()) > call.max_answer_bytes.as_usize() {
                    let message = "the answer is longer than it may be";
                    let error = failure::at(url, ErrorKind::Limit, message);
                    return Err(error.with("limit_bytes", call.max_answer_bytes).into());
                }
                body.extend_from_slice(&piece);
            }
            Ok(Reply { status, headers, body: body.freeze() })
        };
        match tokio::time::timeout(call.timeout, answered).await {
            Ok(answered) => answered,
            Err(_) => Err(failure::timed_out_calling(url, call.timeout)),
        }
    }
}
