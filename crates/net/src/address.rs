//! Which addresses a URL may lead to: private ones only when the flow itself names the host.
//!
//! A URL that the data named is checked in all three places where an address shows up: as a literal in the
//! URL, in every answer of the name lookup, and again at every redirect. Only checked addresses are dialled.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aqueduct_core::{Error, ErrorKind, Result};
use url::{Host, Url};

use crate::mask::masked_url;

/// Who named a location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The flow: it may lead anywhere, and gets the configured credentials.
    Flow,
    /// The data. It may lead to public addresses, to the origin it came from, to hosts that the flow names
    /// and to `allow_hosts`; credentials go to the origin it came from only.
    Data {
        /// The URL that the data came from, if it came from one.
        origin: Option<Url>,
    },
}

/// Names have at most so many addresses; more than that is no name anybody needs.
const MAX_ADDRESSES: usize = 256;

/// An address that a URL out of data may not lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PrivateAddress {
    address: IpAddr,
    kind: &'static str,
}

impl fmt::Display for PrivateAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is a {} address", self.address, self.kind)
    }
}

impl std::error::Error for PrivateAddress {}

/// The error for a URL that leads to such an address.
pub(crate) fn denied(url: &Url, cause: PrivateAddress) -> Error {
    let message =
        format!("{cause}, and only the data names it; if that is meant, add it to `http.allow_hosts`");
    Error::new(ErrorKind::Denied, "fetch", message).with("url", masked_url(url)).with_source(cause)
}

/// Checks the host of a URL when it is an address, in whatever spelling: the URL's parser has already read
/// decimal, octal and hexadecimal forms.
pub(crate) fn check_literal(url: &Url) -> Result<(), PrivateAddress> {
    match url.host() {
        Some(Host::Ipv4(address)) => check(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => check(IpAddr::V6(address)),
        Some(Host::Domain(_)) | None => Ok(()),
    }
}

/// Checks every address that a name stands for: one private address among public ones is enough to refuse.
pub(crate) fn check_all(
    found: impl IntoIterator<Item = SocketAddr>,
) -> Result<Vec<SocketAddr>, PrivateAddress> {
    let found: Vec<SocketAddr> = found.into_iter().take(MAX_ADDRESSES).collect();
    found.iter().try_for_each(|address| check(address.ip()))?;
    Ok(found)
}

fn check(address: IpAddr) -> Result<(), PrivateAddress> {
    let kind = match address {
        IpAddr::V4(address) => private_v4(address),
        IpAddr::V6(address) => private_v6(address),
    };
    kind.map_or(Ok(()), |kind| Err(PrivateAddress { address, kind }))
}

/// The special-purpose blocks of IPv4 (IANA registry, RFC 6890), and the addresses of clouds' own services.
fn private_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Some("unspecified"),
        (127, ..) => Some("loopback"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some("private"),
        (100, 64..=127, _) => Some("shared (carrier-grade NAT)"),
        (169, 254, _) => Some("link-local"),
        (168, 63, 129) if address.octets()[3] == 16 => Some("cloud metadata"),
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 51, 100) | (203, 0, 113) => Some("reserved"),
        (198, 18..=19, _) => Some("benchmarking"),
        (224..=239, ..) => Some("multicast"),
        (240.., ..) => Some("reserved"),
        _ => None,
    }
}

/// Only global unicast (2000::/3) is public, less its special-purpose blocks (IANA registry). Forms that
/// carry an IPv4 address are judged by it.
fn private_v6(address: Ipv6Addr) -> Option<&'static str> {
    if let Some(inner) = carried_v4(address) {
        return private_v4(inner);
    }
    let [a, b, ..] = address.segments();
    match (a, b) {
        _ if address.is_loopback() => Some("loopback"),
        _ if address.is_unspecified() => Some("unspecified"),
        (0xfc00..=0xfdff, _) => Some("private"),
        (0xfe80..=0xfebf, _) => Some("link-local"),
        (0xff00..=0xffff, _) => Some("multicast"),
        (0x2001, 0x0000) | (0x2002, _) => Some("tunnel"),
        (0x2001, 0x0db8) | (0x3fff, 0x0000..=0x0fff) => Some("documentation"),
        (0x2001, 0x0001..=0x01ff) => Some("reserved"),
        (0x2000..=0x3fff, _) => None,
        _ => Some("reserved"),
    }
}

/// The IPv4 address within a mapped (`::ffff:a.b.c.d`) or NAT64 (`64:ff9b::a.b.c.d`, RFC 6052) address.
fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, high, low] = address.segments();
    let is_nat64 = (a, b, c, d, e, f) == (0x64, 0xff9b, 0, 0, 0, 0);
    let inner = (u32::from(high) << 16) | u32::from(low);
    address.to_ipv4_mapped().or_else(|| is_nat64.then(|| Ipv4Addr::from(inner)))
}

/// Whether two URLs have one origin: scheme, host and port (RFC 6454).
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin().is_tuple() && a.origin() == b.origin()
}

/// Whether an entry such as `host`, `host:port` or `[::1]` names the URL's host.
pub(crate) fn names_host(entry: &str, url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_matches(['[', ']']);
    if entry.trim_matches(['[', ']']).eq_ignore_ascii_case(bare) {
        return true;
    }
    let port = url.port_or_known_default().map_or_else(String::new, |port| format!(":{port}"));
    entry.eq_ignore_ascii_case(&format!("{host}{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_denied(url: &str) -> bool {
        check_literal(&Url::parse(url).unwrap()).is_err()
    }

    // T1
    #[test]
    fn private_addresses_are_seen_in_every_spelling() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "017700000001",
            "127.0.0.1.",
            "①②⑦.0.0.1",
            "0",
            "0.0.0.0",
            "10.0.0.1",
            "10.255.255.255",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.100.100.200",
            "169.254.169.254",
            "168.63.129.16",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a00:1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b::169.254.169.254]",
            "[64:ff9b:1::1]",
            "[2002:7f00:1::]",
            "[2001::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[::127.0.0.1]",
            "[2001:db8::1]",
        ] {
            assert!(is_denied(&format!("http://{host}/")), "{host}");
        }
    }

    #[test]
    fn public_addresses_pass() {
        for host in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "[2606:4700::1111]", "[64:ff9b::1.1.1.1]"] {
            assert!(!is_denied(&format!("http://{host}/")), "{host}");
        }
    }

    // T1: a name with a public and a private address
    #[test]
    fn one_private_address_among_public_ones_is_enough() {
        let addresses = ["1.1.1.1:0", "10.0.0.1:0"].map(|text| text.parse().unwrap());
        assert!(check_all(addresses).is_err());
        assert_eq!(check_all(addresses.into_iter().take(1)).unwrap().len(), 1);
    }

    #[test]
    fn hosts_are_named_with_or_without_port_and_brackets() {
        let url = Url::parse("http://Host.example:8080/").unwrap();
        assert!(names_host("host.EXAMPLE", &url) && names_host("host.example:8080", &url));
        assert!(!names_host("host.example:80", &url) && !names_host("example", &url));
        assert!(names_host("::1", &Url::parse("http://[::1]:9/").unwrap()));
    }
}
