//! The head of a request: read within limits, whoever sends it (RFC 9112, sections 2 to 5).

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::limits::ServerLimits;
use super::refusal::Refusal;
use super::socket::Socket;

/// More headers are refused: browsers send a dozen.
const MAX_HEADERS: usize = 64;

/// What is read at first, and what most heads fit.
const FIRST_READ_BYTES: usize = 1 << 10;

/// What a request asks for.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// `GET`, say.
    pub method: Method,
    /// Without the query, as it was sent.
    pub path: String,
    /// What comes after the question mark, if there is one.
    pub query: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// Who asks; nothing on a socket of the file system.
    pub peer: Option<IpAddr>,
}

impl RequestHead {
    /// A header as text, if it is there once and is text.
    ///
    /// # Errors
    /// It is there, and more than once or not text: 400.
    pub fn text(&self, name: &HeaderName) -> Result<Option<&str>, Refusal> {
        let mut values = self.headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        match (value.to_str(), values.next()) {
            (Ok(text), None) => Ok(Some(text)),
            _ => Err(Refusal::bad_request(format!("the header `{name}` is there twice, or is no text"))),
        }
    }
}

/// A head, and the bytes that were read with it.
pub(super) struct Read {
    pub(super) head: RequestHead,
    pub(super) bytes: Vec<u8>,
}

/// Why there is no head.
pub(super) enum NoHead {
    /// The peer went, or took too long: there is nobody to answer.
    Gone,
    Refused(Refusal),
}

/// Reads until the head is whole. The caller bounds the time.
pub(super) async fn read(
    socket: &Socket,
    peer: Option<IpAddr>,
    limits: &ServerLimits,
) -> Result<Read, NoHead> {
    let mut bytes = Vec::new();
    loop {
        socket.readable().await.map_err(|_| NoHead::Gone)?;
        let start = bytes.len();
        let room = start.max(FIRST_READ_BYTES).min(limits.max_head_bytes - start);
        bytes.resize(start + room, 0);
        match socket.try_read(&mut bytes[start..]) {
            Ok(0) => return Err(NoHead::Gone),
            Ok(n) => bytes.truncate(start + n),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bytes.truncate(start),
            Err(_) => return Err(NoHead::Gone),
        }
        if let Some(head) = parse(&bytes, peer).map_err(NoHead::Refused)? {
            return Ok(Read { head, bytes });
        }
        if bytes.len() >= limits.max_head_bytes {
            let limit = limits.max_head_bytes;
            let text = format!("the head of the request has more than {limit} bytes");
            return Err(NoHead::Refused(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text)));
        }
    }
}

/// A head, if it is whole.
fn parse(bytes: &[u8], peer: Option<IpAddr>) -> Result<Option<RequestHead>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let wrong = |what: &str| Refusal::bad_request(format!("no HTTP request: {what}"));
    if request.parse(bytes).map_err(|error| wrong(&error.to_string()))?.is_partial() {
        return Ok(None);
    }
    let method = request.method.and_then(|method| method.parse().ok()).ok_or_else(|| wrong("its method"))?;
    let target = request.path.filter(|target| target.starts_with('/')).ok_or_else(|| wrong("its target"))?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let mut found = HeaderMap::with_capacity(request.headers.len());
    for header in request.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| wrong("a header's name"))?;
        let value = HeaderValue::from_bytes(header.value).map_err(|_| wrong("a header's value"))?;
        found.append(name, value);
    }
    if request.version == Some(1) && !found.contains_key(header::HOST) {
        return Err(wrong("it has no Host"));
    }
    Ok(Some(RequestHead { method, path: path.to_owned(), query, headers: found, peer }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_whole_and_not_before() {
        let whole = b"GET /streams/a?x=1 HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 7\r\n\r\nrest";
        let n_head = whole.len() - 4;
        assert!((0..n_head).all(|n| parse(&whole[..n], None).is_ok_and(|head| head.is_none())));
        let head = parse(whole, None).unwrap().unwrap();
        assert_eq!((head.path.as_str(), head.query.as_deref()), ("/streams/a", Some("x=1")));
        assert_eq!(head.text(&HeaderName::from_static("last-event-id")).unwrap(), Some("7"));
    }

    #[test]
    fn junk_is_refused() {
        for junk in [
            &b"\x16\x03\x01\x02\x00"[..],
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET http://elsewhere/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nBad Header: b\r\n\r\n",
            b"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
        ] {
            assert!(parse(junk, None).is_err(), "{}", String::from_utf8_lossy(junk));
        }
    }
}
