//! The keys of `http:` in a flow file; each may also stand on a source.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use aqueduct_core::Problem;
use aqueduct_primitives::ByteCount;
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use aqueduct_core::units;

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Of what is slower nobody would wait for the end; slow lines and servers that send a row now and then are faster.
const DEFAULT_MIN_RATE: ByteCount = ByteCount::new(16);
const DEFAULT_RETRIES: u32 = 5;
const DEFAULT_MAX_REDIRECTS: u32 = 10;
const DEFAULT_USER_AGENT: &str = concat!("aqueduct/", env!("CARGO_PKG_VERSION"));

/// How HTTP requests are made. Every key is optional, so that a source's own keys go on top of the flow's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct HttpOptions {
    /// Headers sent with every request, to the configured origin only.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// How long connecting may take, name lookup and TLS included. Default 10s.
    #[serde(default, deserialize_with = "units::optional_duration")]
    #[schemars(with = "Option<units::Period>")]
    pub connect_timeout: Option<Duration>,
    /// How long no byte may arrive. Default 30s.
    #[serde(default, deserialize_with = "units::optional_duration")]
    #[schemars(with = "Option<units::Period>")]
    pub read_timeout: Option<Duration>,
    /// Bytes a second that a body must bring, counted over a minute, or over `read_timeout` if that is longer, of waiting
    /// for it. 0 is no limit. Default 16.
    #[serde(default, deserialize_with = "units::optional_byte_count")]
    #[schemars(with = "Option<units::Size>")]
    pub min_rate: Option<ByteCount>,
    /// How many times a request is made again after a failure that may pass. Default 5.
    #[serde(default)]
    pub retries: Option<u32>,
    /// How many redirects are followed. Default 10.
    #[serde(default)]
    pub max_redirects: Option<u32>,
    /// The most bytes taken of one answer, as they are sent. Default: no limit.
    #[serde(default, deserialize_with = "units::optional_byte_count")]
    #[schemars(with = "Option<units::Size>")]
    pub max_bytes: Option<ByteCount>,
    /// Requests a second to one host. Default: no limit.
    #[serde(default)]
    pub rate_limit: Option<f64>,
    /// What the program calls itself. Default `aqueduct/VERSION`.
    #[serde(default)]
    pub user_agent: Option<String>,
    /// `none`, `env` (the usual environment variables) or a proxy's URL. Default none.
    #[serde(default)]
    pub proxy: Option<Secret>,
    /// A PEM file of certificates to trust beside the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the client's certificate.
    #[serde(default)]
    pub client_cert: Option<PathBuf>,
    /// A PEM file with the client's private key.
    #[serde(default)]
    pub client_key: Option<PathBuf>,
    /// Whether invalid certificates are accepted. Default false.
    #[serde(default)]
    pub insecure: Option<bool>,
    /// Hosts that URLs out of data may go to although their addresses are private.
    #[serde(default)]
    pub allow_hosts: Vec<String>,
    /// Credentials, sent to the configured origin only.
    #[serde(default)]
    pub auth: Option<Auth>,
}

/// Credentials of HTTP requests.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Auth {
    /// A user name and a password (RFC 7617).
    Basic {
        /// The user's name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A bearer token (RFC 6750).
    Bearer(Secret),
    /// A header of its own.
    Header {
        /// The header's name.
        name: String,
        /// Its value.
        value: Secret,
    },
    /// A parameter of the URL's query.
    Query {
        /// The parameter's name.
        name: String,
        /// Its value.
        value: Secret,
    },
    /// A token fetched by client credentials (RFC 6749, section 4.4).
    Oauth2 {
        /// Where tokens are had.
        token_url: String,
        /// The client's id.
        client_id: String,
        /// The client's secret.
        client_secret: Secret,
        /// The scopes asked for.
        #[serde(default)]
        scopes: Vec<String>,
        /// The audience asked for.
        #[serde(default)]
        audience: Option<String>,
    },
    /// AWS signatures.
    Aws {
        /// The service's name in signatures: `execute-api`, `s3`.
        service: String,
        /// The region.
        region: String,
        /// The profile of the shared credentials file.
        #[serde(default)]
        profile: Option<String>,
    },
}

/// Text that is never shown.
#[derive(Clone, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl HttpOptions {
    /// These options, and those of `defaults` for what they leave open. Headers and allowed hosts add up; of
    /// two headers of one name, these count.
    #[must_use]
    pub fn or(self, defaults: &Self) -> Self {
        let mut headers = self.headers;
        for (name, value) in &defaults.headers {
            if !headers.keys().any(|own| own.eq_ignore_ascii_case(name)) {
                headers.insert(name.clone(), value.clone());
            }
        }
        let mut allow_hosts = defaults.allow_hosts.clone();
        allow_hosts.extend(self.allow_hosts);
        Self {
            headers,
            connect_timeout: self.connect_timeout.or(defaults.connect_timeout),
            read_timeout: self.read_timeout.or(defaults.read_timeout),
            min_rate: self.min_rate.or(defaults.min_rate),
            retries: self.retries.or(defaults.retries),
            max_redirects: self.max_redirects.or(defaults.max_redirects),
            max_bytes: self.max_bytes.or(defaults.max_bytes),
            rate_limit: self.rate_limit.or(defaults.rate_limit),
            user_agent: self.user_agent.or_else(|| defaults.user_agent.clone()),
            proxy: self.proxy.or_else(|| defaults.proxy.clone()),
            ca_file: self.ca_file.or_else(|| defaults.ca_file.clone()),
            client_cert: self.client_cert.or_else(|| defaults.client_cert.clone()),
            client_key: self.client_key.or_else(|| defaults.client_key.clone()),
            insecure: self.insecure.or(defaults.insecure),
            allow_hosts,
            auth: self.auth.or_else(|| defaults.auth.clone()),
        }
    }

    /// All that is wrong with the options themselves. Pure: opens no file, looks no name up.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = self.header_problems();
        if self.rate_limit.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            problems.push(Problem::at("/rate_limit", "expected more than 0 requests a second"));
        }
        for (pointer, timeout) in
            [("/connect_timeout", self.connect_timeout), ("/read_timeout", self.read_timeout)]
        {
            if timeout == Some(Duration::ZERO) {
                problems.push(Problem::at(pointer, "no time at all; expected a duration such as 10s"));
            }
        }
        if self.client_cert.is_some() != self.client_key.is_some() {
            problems.push(Problem::at("", "`client_cert` and `client_key` go together; one is missing"));
        }
        if self.proxy.as_ref().is_some_and(|proxy| !is_proxy(proxy.expose())) {
            problems.push(Problem::at("/proxy", "expected none, env or an http(s) URL"));
        }
        problems.extend(self.auth.as_ref().and_then(Auth::problem));
        problems
    }

    fn header_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, value) in &self.headers {
            let pointer = format!("/headers/{name}");
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                problems.push(Problem::at(pointer, "not the name of a header"));
            } else if http::HeaderValue::from_str(value.expose()).is_err() {
                problems
                    .push(Problem::at(pointer, "a header's value has no line breaks or control characters"));
            }
        }
        if self.user_agent.as_ref().is_some_and(|name| http::HeaderValue::from_str(name).is_err()) {
            problems.push(Problem::at("/user_agent", "a header's value has no line breaks"));
        }
        problems
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT)
    }

    pub(crate) fn read_timeout(&self) -> Duration {
        self.read_timeout.unwrap_or(DEFAULT_READ_TIMEOUT)
    }

    pub(crate) fn min_rate(&self) -> ByteCount {
        self.min_rate.unwrap_or(DEFAULT_MIN_RATE)
    }

    pub(crate) fn retries(&self) -> u32 {
        self.retries.unwrap_or(DEFAULT_RETRIES)
    }

    pub(crate) fn max_redirects(&self) -> u32 {
        self.max_redirects.unwrap_or(DEFAULT_MAX_REDIRECTS)
    }

    pub(crate) fn proxy(&self) -> &str {
        self.proxy.as_ref().map_or("none", Secret::expose)
    }

    pub(crate) fn user_agent(&self) -> &str {
        self.user_agent.as_deref().unwrap_or(DEFAULT_USER_AGENT)
    }
}

fn is_proxy(text: &str) -> bool {
    matches!(text, "none" | "env")
        || Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

impl Auth {
    fn problem(&self) -> Option<Problem> {
        match self {
            Self::Aws { .. } => Some(Problem::at(
                "/auth/aws",
                "signing plain HTTP requests for AWS is not built yet; s3:// URLs are signed: see `storage`",
            )),
            Self::Header { name, value } => {
                let is_valid = http::HeaderName::from_bytes(name.as_bytes()).is_ok()
                    && http::HeaderValue::from_str(value.expose()).is_ok();
                (!is_valid).then(|| Problem::at("/auth/header", "not a valid header"))
            }
            Self::Bearer(token) => http::HeaderValue::from_str(token.expose())
                .is_err()
                .then(|| Problem::at("/auth/bearer", "a token has no line breaks or control characters")),
            Self::Oauth2 { token_url, .. } => Url::parse(token_url)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
                .then_some(())
                .map_or_else(
                    || Some(Problem::at("/auth/oauth2/token_url", "expected an http(s) URL")),
                    |()| None,
                ),
            Self::Basic { .. } | Self::Query { .. } => None,
        }
    }
}
