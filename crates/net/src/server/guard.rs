//! Who may ask: by which name, from which site, with which token.
//!
//! A page of another site can have a browser send requests to this machine, and by a name that it has pointed here it can
//! even read the answers. Names are therefore checked on every request (what CORS does not do), and so is the site.

use std::net::IpAddr;

use http::{HeaderValue, Method, StatusCode, Uri, header};

use super::head::RequestHead;
use super::refusal::Refusal;
use crate::Secret;

const LOCALHOST: &str = "localhost";

/// Refuses a request to a name that is not this server's.
pub(super) fn check_host(head: &RequestHead, hosts: &[String]) -> Result<(), Refusal> {
    let Some(host) = head.text(&header::HOST)? else { return Ok(()) };
    let name = host_name(host);
    let is_ours = name.eq_ignore_ascii_case(LOCALHOST)
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
        || hosts.iter().any(|own| own.eq_ignore_ascii_case(name));
    if is_ours { Ok(()) } else { Err(Refusal::forbidden("this server is not called by that name")) }
}

fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Where a request comes from that a page has caused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// No page, or one of this server.
    Own,
    /// A page of another site.
    Other(String),
}

pub(super) fn site(head: &RequestHead) -> Result<Site, Refusal> {
    let Some(origin) = head.text(&header::ORIGIN)? else { return Ok(Site::Own) };
    let host = head.text(&header::HOST)?;
    let authority = origin.parse::<Uri>().ok().and_then(|uri| Some(uri.authority()?.to_string()));
    match authority {
        Some(authority) if host.is_some_and(|host| host.eq_ignore_ascii_case(&authority)) => Ok(Site::Own),
        _ => Ok(Site::Other(origin.to_owned())),
    }
}

/// Refuses a request from another site, unless it is one of those; `*` is any.
pub(super) fn check_site(head: &RequestHead, allowed: &[String]) -> Result<Option<String>, Refusal> {
    match site(head)? {
        Site::Own => Ok(None),
        Site::Other(origin) if allowed.iter().any(|one| one == "*" || *one == origin) => Ok(Some(origin)),
        Site::Other(_) => Err(Refusal::forbidden("pages of other sites may not ask here; see `cors`")),
    }
}

/// Refuses a request without this token (RFC 6750, section 2.1).
pub(super) fn check_token(head: &RequestHead, token: Option<&Secret>) -> Result<(), Refusal> {
    let Some(token) = token else { return Ok(()) };
    let given = head.text(&header::AUTHORIZATION)?.unwrap_or_default();
    let (scheme, given) = given.split_once(' ').unwrap_or_default();
    let is_right = scheme.eq_ignore_ascii_case("bearer") && is_same(given.trim(), token.expose());
    if is_right { Ok(()) } else { Err(Refusal::unauthorized()) }
}

/// Compares hashes, so that how long it takes says nothing about where the two differ.
fn is_same(given: &str, token: &str) -> bool {
    // Their comparison takes the same time whatever they are.
    blake3::hash(given.as_bytes()) == blake3::hash(token.as_bytes())
}

/// Refuses a method that a stream does not know. A browser's question whether a page of an allowed site may ask with a token
/// is answered here.
pub(super) fn check_get(head: &RequestHead, allowed_origin: Option<&str>) -> Result<(), Refusal> {
    let origin = allowed_origin.and_then(|origin| HeaderValue::from_str(origin).ok());
    match (&head.method, origin) {
        (&Method::GET, _) => Ok(()),
        (&Method::OPTIONS, Some(origin)) => Err(Refusal::new(StatusCode::NO_CONTENT, "")
            .with(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)
            .with(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET"))
            .with(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("authorization, last-event-id"),
            )
            .with(header::VARY, HeaderValue::from_static("origin"))),
        _ => Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a stream is read by GET")
            .with(header::ALLOW, HeaderValue::from_static("GET"))),
    }
}

/// The most bytes that the body of a request may have. Refuses one that is larger than the limit, and one where a request
/// has none (RFC 9110, section 9.3).
pub(super) fn body_bytes(head: &RequestHead, limit: usize) -> Result<usize, Refusal> {
    let n_bytes = match (head.text(&header::CONTENT_LENGTH)?, head.text(&header::TRANSFER_ENCODING)?) {
        (None, None) => 0,
        (_, Some(_)) => limit,
        (Some(length), None) => match length.parse() {
            Ok(n_bytes) => n_bytes,
            Err(_) => return Err(Refusal::bad_request("`Content-Length` is no number of bytes")),
        },
    };
    if n_bytes > limit {
        let text = format!("the body has {n_bytes} bytes, and {limit} at most are read");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let may_have_one = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
    if n_bytes > 0 && !may_have_one {
        return Err(Refusal::bad_request(format!("a {} has no body", head.method)));
    }
    Ok(n_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&'static str, &str)]) -> RequestHead {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
        });
        let (method, path) = (http::Method::GET, "/".to_owned());
        RequestHead { method, path, query: None, headers: headers.collect(), peer: None }
    }

    // T11, reliability.md 63
    #[test]
    fn only_names_of_this_machine_addresses_and_given_names_are_answered_to() {
        let is_ours = |host: &str| check_host(&head(&[("host", host)]), &["live.example.org".into()]).is_ok();
        for ours in
            ["localhost", "LOCALHOST:80", "127.0.0.1:8787", "[::1]:1", "10.0.0.7", "live.example.org:80"]
        {
            assert!(is_ours(ours), "{ours}");
        }
        for foreign in
            ["attacker.example", "localhost.attacker.example", "127.0.0.1.nip.example", "", "example.org"]
        {
            assert!(!is_ours(foreign), "{foreign}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused_unless_allowed() {
        let from = |origin| head(&[("host", "localhost:8787"), ("origin", origin)]);
        assert_eq!(check_site(&from("http://localhost:8787"), &[]).unwrap(), None);
        for other in ["http://evil.example", "null", "http://localhost:9", "file://"] {
            assert!(check_site(&from(other), &["http://good.example".into()]).is_err(), "{other}");
            assert_eq!(check_site(&from(other), &["*".into()]).unwrap().as_deref(), Some(other));
        }
        assert!(check_site(&from("http://good.example"), &["http://good.example".into()]).is_ok());
    }

    // T12
    #[test]
    fn a_token_must_be_the_one() {
        let token = Secret::from("tok");
        let with = |value: &str| check_token(&head(&[("authorization", value)]), Some(&token)).is_ok();
        assert!(with("Bearer tok") && with("bearer tok"));
        for wrong in [
            "",
            "tok",
            "Bearer",
            "Bearer to",
            "Bearer tokk",
            "Basic tok",
            &format!("Bearer {}", "t".repeat(9000)),
        ] {
            assert!(!with(wrong), "{wrong}");
        }
        assert!(check_token(&head(&[]), Some(&token)).is_err() && check_token(&head(&[]), None).is_ok());
    }
}
