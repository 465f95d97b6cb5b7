//! Credentials on requests, and tokens fetched by client credentials (RFC 6749, section 4.4).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aqueduct_core::ErrorKind;
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use tokio::sync::Semaphore;
use url::Url;

use crate::failure::{self, Failure};
use crate::options::{Auth, Secret};

/// A token answer is a few hundred bytes; larger ones are something else.
const MAX_TOKEN_ANSWER_BYTES: usize = 1 << 20;

/// A token is renewed so long before it ends, so that it does not end on its way.
const RENEW_BEFORE: Duration = Duration::from_secs(30);

/// How long a token counts whose answer does not say.
const DEFAULT_TOKEN_LIFE: Duration = Duration::from_secs(300);

/// Puts the credentials that need no request of their own on a request.
pub(crate) fn apply(auth: &Auth, request: RequestBuilder) -> RequestBuilder {
    match auth {
        Auth::Basic { user, password } => request.basic_auth(user, Some(password.expose())),
        Auth::Bearer(token) => request.bearer_auth(token.expose()),
        Auth::Header { name, value } => request.header(name, value.expose()),
        Auth::Query { name, value } => request.query(&[(name, value.expose())]),
        Auth::Oauth2 { .. } | Auth::Aws { .. } => request,
    }
}

/// Tokens in use, by what they were asked with.
#[derive(Debug)]
pub(crate) struct Tokens {
    by_grant: Mutex<HashMap<Grant, Token>>,
    /// One asks for a new token at a time; the others then find it.
    turn: Semaphore,
}

/// What a token is asked for with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Grant {
    pub(crate) token_url: Url,
    client_id: String,
    client_secret: Secret,
    scopes: Vec<String>,
    audience: Option<String>,
}

#[derive(Clone, Debug)]
struct Token {
    text: Secret,
    ends: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Secret,
    expires_in: Option<u64>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { by_grant: Mutex::default(), turn: Semaphore::new(1) }
    }
}

impl Grant {
    /// What a token is asked for with, if these credentials need one. `validate` has checked the URL.
    pub(crate) fn of(auth: &Auth) -> Option<Self> {
        let Auth::Oauth2 { token_url, client_id, client_secret, scopes, audience } = auth else {
            return None;
        };
        Some(Self {
            token_url: Url::parse(token_url).ok()?,
            client_id: client_id.clone(),
            client_secret: client_secret.clone(),
            scopes: scopes.clone(),
            audience: audience.clone(),
        })
    }

    /// The request for a token: the client's id and secret as HTTP Basic, which servers must take (RFC 6749,
    /// section 2.3.1), the rest as a form.
    pub(crate) fn request(&self, client: &reqwest::Client) -> RequestBuilder {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !self.scopes.is_empty() {
            form.append_pair("scope", &self.scopes.join(" "));
        }
        if let Some(audience) = &self.audience {
            form.append_pair("audience", audience);
        }
        client
            .post(self.token_url.clone())
            .basic_auth(&self.client_id, Some(self.client_secret.expose()))
            .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(http::header::ACCEPT, "application/json")
            .body(form.finish())
    }
}

impl Tokens {
    /// A token that still counts, or one that `ask` gets, whose answer must end within `read_timeout`. The second value
    /// says whether it was just asked for.
    pub(crate) async fn token<F>(
        &self,
        grant: &Grant,
        read_timeout: Duration,
        ask: impl FnOnce() -> F,
    ) -> Result<(Secret, bool), Failure>
    where
        F: Future<Output = Result<Response, Failure>>,
    {
        if let Some(token) = self.known(grant) {
            return Ok((token, false));
        }
        let _turn = self.turn.acquire().await.map_err(|_| failure::shut_down())?;
        if let Some(token) = self.known(grant) {
            return Ok((token, false));
        }
        let response = ask().await?;
        let token = tokio::time::timeout(read_timeout, read_token(grant, response))
            .await
            .map_err(|_| failure::timed_out_in_answer(&grant.token_url, read_timeout))??;
        self.lock().insert(grant.clone(), token.clone());
        Ok((token.text, true))
    }

    /// Forgets a token that the server no longer takes.
    pub(crate) fn forget(&self, grant: &Grant) {
        self.lock().remove(grant);
    }

    fn known(&self, grant: &Grant) -> Option<Secret> {
        let tokens = self.lock();
        let token = tokens.get(grant)?;
        (Instant::now() < token.ends).then(|| token.text.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Grant, Token>> {
        self.by_grant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_token(grant: &Grant, mut response: Response) -> Result<Token, Failure> {
    let url = &grant.token_url;
    if !response.status().is_success() {
        return Err(failure::of_status(url, response.status(), response.headers()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failure::of_client(url, error))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_TOKEN_ANSWER_BYTES {
            let message = format!("a token's answer of more than {MAX_TOKEN_ANSWER_BYTES} bytes");
            return Err(failure::at(url, ErrorKind::Limit, message).into());
        }
    }
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|error| {
        // The parser's message may quote the token.
        let place = format!("line {} column {}", error.line(), error.column());
        failure::at(url, ErrorKind::Data, "expected JSON with `access_token`").with("at", place)
    })?;
    let life = answer.expires_in.map_or(DEFAULT_TOKEN_LIFE, Duration::from_secs);
    let ends = Instant::now().checked_add(life.saturating_sub(RENEW_BEFORE)).unwrap_or_else(Instant::now);
    Ok(Token { text: answer.access_token, ends })
}
