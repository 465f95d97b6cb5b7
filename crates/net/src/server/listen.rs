//! Where a server listens.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aqueduct_core::{Error, ErrorKind, Result};

const UNIX: &str = "unix:";

/// `HOST:PORT`, or `unix:PATH`. Port 0 is any free one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A name or an address of this machine, with its port.
    Tcp(String),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// An address that is neither `HOST:PORT` nor `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address to listen at; expected HOST:PORT, such as 127.0.0.1:8787, or unix:PATH")]
pub struct ParseListenError(String);

impl Listen {
    /// The address that a server has unless told otherwise.
    pub const DEFAULT: &str = "127.0.0.1:8787";

    /// Whether only this machine can come.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(text) => {
                let host = text.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }

    pub(super) fn bind(&self) -> Result<Bound> {
        let bound = match self {
            Self::Tcp(text) => bind_tcp(text).map(Bound::Tcp),
            Self::Unix(path) => bind_unix(path).map(|listener| Bound::Unix(listener, path.clone())),
        };
        bound.map_err(|error| {
            let message = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "the address is in use; stop who listens there, or give another with `--listen`"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "the address is not of this machine; give another with `--listen`"
                }
                io::ErrorKind::PermissionDenied => {
                    "this address may not be listened at; give another with `--listen`"
                }
                _ => "cannot listen there; give another address with `--listen`",
            };
            Error::new(ErrorKind::Config, "listen", message).with("address", self).with_source(error)
        })
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self::Tcp(Self::DEFAULT.to_owned())
    }
}

impl FromStr for Listen {
    type Err = ParseListenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseListenError(text.to_owned());
        if let Some(path) = text.strip_prefix(UNIX) {
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(path.into())) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        port.parse::<u16>().map_err(|_| wrong())?;
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || (host.contains(':') && !is_bracketed) {
            return Err(wrong());
        }
        Ok(Self::Tcp(text.to_owned()))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(text) => f.write_str(text),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// A listener that has its address.
pub(super) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Bound {
    /// As bound: with the port that 0 became.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| String::new(), |at| at.to_string()),
            Self::Unix(_, path) => format!("{UNIX}{}", path.display()),
        }
    }
}

fn bind_tcp(text: &str) -> io::Result<TcpListener> {
    let addresses: Vec<SocketAddr> = text.to_socket_addrs()?.collect();
    let listener = TcpListener::bind(addresses.as_slice())?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A socket that nobody listens at any more was left by a process that died, and is replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn is_left_behind(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    is_socket
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["127.0.0.1:8787", "localhost:0", "[::1]:80", "0.0.0.0:1", "unix:run/live.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for wrong in ["", "8787", "localhost", ":80", "::1:80", "host:port", "host:70000", "unix:"] {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_addresses_of_this_machine_are_loopback() {
        let is_loopback = |text: &str| text.parse::<Listen>().unwrap().is_loopback();
        assert!(["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:a"].into_iter().all(is_loopback));
        assert!(!["0.0.0.0:1", "[::]:1", "192.168.0.1:1", "example.org:1"].into_iter().any(is_loopback));
    }
}
