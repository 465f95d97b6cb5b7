//! One request: redirects followed by hand, each hop checked, credentials only where they belong.

use std::net::SocketAddr;
use std::time::Duration;

use aqueduct_core::{ErrorKind, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use reqwest::{RequestBuilder, Response};
use url::Url;

use crate::Known;
use crate::address::{Trust, check_all, check_literal, denied, names_host, same_origin};
use crate::auth::{Grant, apply};
use crate::failure::{self, Failure, shut_down};
use crate::inner::Inner;
use crate::listener::EVENT_STREAM;
use crate::pace::{Pace, waited_for};
use crate::range::content_length;

/// The body of a redirect or an error is read if it is no larger, so that its connection can be used again;
/// otherwise the connection is dropped with it.
const MAX_DRAINED_BYTES: u64 = 16 << 10;

/// How long such a body may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Configured headers that say nothing about the one who asks; only these go to other origins.
const HARMLESS: [HeaderName; 2] = [header::ACCEPT, header::ACCEPT_LANGUAGE];

/// What to ask for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) url: Url,
    pub(crate) from: Trust,
    pub(crate) method: Method,
    /// The value of `Range`.
    pub(crate) range: Option<String>,
    /// The value of `If-Range`.
    pub(crate) if_range: Option<String>,
    /// Headers of this request alone.
    pub(crate) headers: HeaderMap,
    /// What is sent along, as JSON.
    pub(crate) json: Option<Bytes>,
    /// What is sent along, as its headers say: pieces, one after the other.
    pub(crate) body: Vec<Bytes>,
    /// It asks for a stream of events, those behind this one; with an empty text for those that come.
    pub(crate) events_after: Option<String>,
    /// The answer is wanted only if there is another version than this.
    pub(crate) unless: Option<Known>,
}

impl Ask {
    pub(crate) fn new(url: &Url, from: Trust, method: Method) -> Self {
        Self {
            url: url.clone(),
            from,
            method,
            range: None,
            if_range: None,
            headers: HeaderMap::new(),
            json: None,
            body: Vec::new(),
            events_after: None,
            unless: None,
        }
    }

    /// A question that takes more than a URL, and changes nothing where it is asked: it may be asked again.
    pub(crate) fn post(url: &Url, from: Trust, json: Bytes) -> Self {
        Self { json: Some(json), ..Self::new(url, from, Method::POST) }
    }

    /// Whether it gets the configured credentials there.
    fn is_at_home(&self, url: &Url) -> bool {
        self.configured_origin().is_some_and(|origin| same_origin(origin, url))
    }

    /// The origin that gets the configured credentials.
    fn configured_origin(&self) -> Option<&Url> {
        match &self.from {
            Trust::Flow => Some(&self.url),
            Trust::Data { origin } => origin.as_ref(),
        }
    }
}

/// The answer, after redirects, whatever its status.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) url: Url,
}

impl Inner {
    /// Makes one try: up to `max_redirects` requests.
    pub(crate) async fn send(&self, ask: &Ask) -> Result<Answer, Failure> {
        let mut url = ask.url.clone();
        for n_hops in 0..=self.http.max_redirects() {
            let response = self.send_one(ask, &url, n_hops == 0).await?;
            let Some(next) = redirect_target(&url, &response)? else {
                return Ok(Answer { response, url });
            };
            drain(response).await;
            url = next;
        }
        let message = format!("more than {} redirects; see `max_redirects`", self.http.max_redirects());
        let error = failure::at(&ask.url, ErrorKind::Limit, message);
        Err(error.with("last_redirect", crate::masked_url(&url)).into())
    }

    /// The next piece of a body; nothing at its end.
    pub(crate) async fn chunk(
        &self,
        url: &Url,
        response: &mut Response,
        pace: &mut Pace,
    ) -> Result<Option<Bytes>, Failure> {
        let (limit, min_rate) = (self.http.read_timeout(), self.http.min_rate());
        pace.check(min_rate, limit).map_err(|slow| failure::too_slow(url, &slow, min_rate))?;
        let next = async {
            match tokio::time::timeout(limit, response.chunk()).await {
                Ok(chunk) => chunk.map_err(|error| failure::of_client(url, error)),
                Err(_) => Err(failure::timed_out(url, "read_timeout", limit)),
            }
        };
        let (chunk, waited) = waited_for(self.until_closed(next)).await;
        let chunk = chunk?;
        pace.add(chunk.as_ref().map_or(0, Bytes::len), waited);
        Ok(chunk)
    }

    async fn send_one(&self, ask: &Ask, url: &Url, is_first_hop: bool) -> Result<Response, Failure> {
        let request = self.in_turn(ask, url, is_first_hop).await?;
        self.send_in_turn(ask, url, request).await
    }

    /// A request whose turn has come at its host.
    pub(crate) async fn in_turn(
        &self,
        ask: &Ask,
        url: &Url,
        is_first_hop: bool,
    ) -> Result<RequestBuilder, Failure> {
        let guarded = self.is_guarded(ask, url, is_first_hop).await?;
        let client = self.web.clients.client(&self.http, guarded, &self.tasks).await?;
        if let (Some(rate), Some(host)) = (self.http.rate_limit, url.host_str()) {
            let turn = async {
                self.web.rates.turn(host, rate).await;
                Ok(())
            };
            self.until_closed(turn).await?;
        }
        let headers = self.headers(ask, ask.is_at_home(url));
        let request = client.request(ask.method.clone(), url.clone()).headers(headers);
        Ok(match (&ask.json, ask.body.as_slice()) {
            (Some(json), _) => request.header(header::CONTENT_TYPE, "application/json").body(json.clone()),
            (None, []) => request,
            (None, [whole]) => request.body(whole.clone()),
            (None, pieces) => {
                let n_bytes: usize = pieces.iter().map(Bytes::len).sum();
                let pieces = ask.body.clone().into_iter().map(Ok::<_, std::io::Error>);
                let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
                request.header(header::CONTENT_LENGTH, n_bytes).body(body)
            }
        })
    }

    /// Sends it, with the credentials that belong to where it goes.
    pub(crate) async fn send_in_turn(
        &self,
        ask: &Ask,
        url: &Url,
        request: RequestBuilder,
    ) -> Result<Response, Failure> {
        let is_at_home = ask.is_at_home(url);
        match self.http.auth.as_ref().filter(|_| is_at_home && url.username().is_empty()) {
            Some(auth) => match Grant::of(auth) {
                Some(grant) => self.send_with_token(&grant, url, request).await,
                None => self.execute(url, apply(auth, request)).await,
            },
            None => self.execute(url, request).await,
        }
    }

    fn headers(&self, ask: &Ask, is_at_home: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        insert(&mut headers, "user-agent", self.http.user_agent());
        insert(&mut headers, "accept-encoding", "identity");
        for (name, value) in &self.http.headers {
            if is_at_home || HARMLESS.iter().any(|harmless| name.eq_ignore_ascii_case(harmless.as_str())) {
                insert(&mut headers, name, value.expose());
            }
        }
        headers.extend(ask.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        if let Some(range) = &ask.range {
            insert(&mut headers, "range", range);
        }
        if let Some(name) = &ask.if_range {
            insert(&mut headers, "if-range", name);
        }
        if let Some(last_event_id) = &ask.events_after {
            insert(&mut headers, "accept", EVENT_STREAM);
            insert(&mut headers, "cache-control", "no-store");
            match HeaderValue::from_bytes(last_event_id.as_bytes()) {
                Ok(value) if !last_event_id.is_empty() => headers.insert("last-event-id", value),
                _ => None,
            };
        }
        if let Some(known) = &ask.unless {
            known.if_none_match().into_iter().for_each(|etag| insert(&mut headers, "if-none-match", etag));
            known.if_modified_since().iter().for_each(|at| insert(&mut headers, "if-modified-since", at));
        }
        headers
    }

    /// A token that the server no longer takes is replaced once by a new one; a new one it does not take is
    /// an error.
    async fn send_with_token(
        &self,
        grant: &Grant,
        url: &Url,
        request: RequestBuilder,
    ) -> Result<Response, Failure> {
        let again = request.try_clone();
        let (token, is_new) = self.token(grant).await?;
        let response = self.execute(url, request.bearer_auth(token.expose())).await?;
        match again {
            Some(again) if response.status() == StatusCode::UNAUTHORIZED && !is_new => {
                drain(response).await;
                self.web.tokens.forget(grant);
                let (token, _) = self.token(grant).await?;
                self.execute(url, again.bearer_auth(token.expose())).await
            }
            _ => Ok(response),
        }
    }

    async fn token(&self, grant: &Grant) -> Result<(crate::Secret, bool), Failure> {
        let ask = || async {
            let client = self.web.clients.client(&self.http, false, &self.tasks).await?;
            self.execute(&grant.token_url, grant.request(&client)).await
        };
        self.until_closed(self.web.tokens.token(grant, self.http.read_timeout(), ask)).await
    }

    async fn execute(&self, url: &Url, request: RequestBuilder) -> Result<Response, Failure> {
        let connect_timeout = self.http.connect_timeout();
        let limit = connect_timeout.saturating_add(self.http.read_timeout());
        let sent = async {
            match tokio::time::timeout(limit, request.send()).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(error)) if error.is_connect() && error.is_timeout() => {
                    Err(failure::timed_out_connecting(url, connect_timeout, error))
                }
                Ok(Err(error)) => Err(failure::of_client(url, error)),
                Err(_) => Err(failure::timed_out(url, "read_timeout", self.http.read_timeout())),
            }
        };
        self.until_closed(sent).await
    }

    async fn until_closed<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.web.clients.closed().cancelled() => Err(shut_down().into()),
            done = work => done,
        }
    }

    /// Whether the request must keep to public addresses: only the data, or a redirect, named its host.
    async fn is_guarded(&self, ask: &Ask, url: &Url, is_first_hop: bool) -> Result<bool, Failure> {
        if !matches!(url.scheme(), "http" | "https") {
            let message = format!("`{}` is no scheme to fetch from; expected http or https", url.scheme());
            return Err(failure::at(url, ErrorKind::Denied, message).into());
        }
        let is_named = match &ask.from {
            Trust::Flow => is_first_hop || url.host() == ask.url.host(),
            Trust::Data { origin } => origin.as_ref().is_some_and(|origin| same_origin(origin, url)),
        };
        let is_allowed = || self.http.allow_hosts.iter().any(|entry| names_host(entry, url));
        if is_named || is_allowed() || self.web.is_trusted(url) {
            return Ok(false);
        }
        check_literal(url).map_err(|private| denied(url, private))?;
        if self.http.proxy() != "none" {
            self.check_name(url).await?;
        }
        Ok(true)
    }

    /// Behind a proxy, where the lookup that counts is not ours, names are at least looked up here.
    async fn check_name(&self, url: &Url) -> Result<(), Failure> {
        let Some(host) = url.domain() else { return Ok(()) };
        let found =
            tokio::time::timeout(self.http.connect_timeout(), tokio::net::lookup_host((host, 0))).await;
        Ok(check_found(url, found.ok().and_then(Result::ok).into_iter().flatten())?)
    }
}

/// A name of which no address is known may stand for any.
fn check_found(url: &Url, found: impl Iterator<Item = SocketAddr>) -> Result<()> {
    if check_all(found).map_err(|private| denied(url, private))?.is_empty() {
        let message = "only the data names this host, and its addresses cannot be looked up to check them; \
                       if it is meant, add it to `http.allow_hosts`";
        return Err(failure::at(url, ErrorKind::Denied, message));
    }
    Ok(())
}

/// Where a redirect leads, if the answer is one (RFC 9110, section 15.4).
fn redirect_target(url: &Url, response: &Response) -> Result<Option<Url>, Failure> {
    let status = response.status();
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let target = response.headers().get(header::LOCATION).map(HeaderValue::as_bytes);
    let next =
        target.and_then(|target| std::str::from_utf8(target).ok()).and_then(|text| url.join(text).ok());
    let Some(next) = next else {
        let message = format!("the server answered {status}, a redirect that leads nowhere");
        return Err(failure::at(url, ErrorKind::Io, message).with("status", status.as_u16()).into());
    };
    let wrong = match (url.scheme(), next.scheme()) {
        ("https", "http") => "a redirect leads from https to http, which is refused",
        (_, "http" | "https") => return Ok(Some(next)),
        _ => "a redirect leads to another scheme, which is refused; expected http or https",
    };
    Err(failure::at(url, ErrorKind::Denied, wrong).with("redirect", crate::masked_url(&next)).into())
}

/// Sets a header. `validate` has refused names and values that are none.
fn insert(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

/// Reads a small body to its end, so that its connection can be used again.
pub(crate) async fn drain(response: Response) {
    if content_length(response.headers()).is_some_and(|n_bytes| n_bytes <= MAX_DRAINED_BYTES) {
        // What is in it does not matter, nor whether it comes.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, response.bytes()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(from: &str, to: &str) -> Result<Option<Url>, Failure> {
        let answer = http::Response::builder().status(302).header("Location", to).body("").unwrap();
        redirect_target(&Url::parse(from).unwrap(), &Response::from(answer))
    }

    // reliability 16: behind a proxy, where names are looked up only to be checked
    #[test]
    fn a_name_of_which_no_public_address_is_known_is_not_asked_of_a_proxy() {
        let url = Url::parse("http://name.example/a").unwrap();
        let check = |found: &[&str]| check_found(&url, found.iter().map(|text| text.parse().unwrap()));
        assert!(check(&["1.1.1.1:0"]).is_ok());
        for (found, told) in [(&[][..], "cannot be looked up"), (&["1.1.1.1:0", "10.0.0.1:0"], "10.0.0.1")] {
            let error = check(found).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(error.chain().contains(told), "{}", error.chain());
        }
    }

    // reliability 10
    #[test]
    fn no_redirect_leads_from_https_to_http() {
        for to in ["http://host/b", "HTTP://host/b", "http://other/b"] {
            let error = target("https://host/a", to).unwrap_err().error;
            assert_eq!(error.kind(), ErrorKind::Denied, "{to}");
            assert!(error.chain().contains("from https to http"), "{to}: {}", error.chain());
        }
        for (from, to) in
            [("https://host/a", "/b"), ("https://host/a", "//other/b"), ("http://host/a", "https://host/b")]
        {
            assert_eq!(
                target(from, to).unwrap().map(|url| url.scheme().to_owned()).as_deref(),
                Some("https"),
                "{to}"
            );
        }
    }
}
