//! The HTTP clients of a run: one for each way to connect, made when first needed, all closed together.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_primitives::Tasks;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Proxy};
use tokio_util::sync::CancellationToken;

use crate::HttpOptions;
use crate::address::check_all;
use crate::failure::shut_down;

/// Connections kept open to one host while nothing is asked of it. More would only hold sockets.
const MAX_IDLE_PER_HOST: usize = 4;

/// An idle connection is closed after this long; servers close theirs after a minute or so.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Certificate files are small; anything larger is some other file.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// The clients in use. Requests share a client, and with it connections, when they connect in the same way.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    by_way: Mutex<HashMap<Way, Client>>,
    closed: CancellationToken,
}

/// All that decides how a connection is made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Way {
    connect_timeout: Duration,
    proxy: String,
    ca_file: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    insecure: bool,
    guarded: bool,
}

impl Clients {
    /// Cancelled once everything is closed.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// The client for these options. A `guarded` one goes to public addresses only.
    ///
    /// # Errors
    /// A certificate cannot be read; all was closed.
    pub(crate) async fn client(&self, http: &HttpOptions, guarded: bool, tasks: &Tasks) -> Result<Client> {
        let way = Way::new(http, guarded);
        if let Some(client) = self.known(&way)? {
            return Ok(client);
        }
        let making = way.clone();
        let client = tasks.block(move || making.client()).await??;
        if self.closed.is_cancelled() {
            return Err(shut_down());
        }
        // Of two made at the same time, the first stays.
        Ok(self.lock().entry(way).or_insert(client).clone())
    }

    fn known(&self, way: &Way) -> Result<Option<Client>> {
        if self.closed.is_cancelled() {
            return Err(shut_down());
        }
        Ok(self.lock().get(way).cloned())
    }

    /// Lets go of all clients. Idle connections close at once, others when their bodies are dropped, which
    /// [`closed`](Self::closed) asks for.
    pub(crate) fn close(&self) {
        self.closed.cancel();
        let gone = std::mem::take(&mut *self.lock());
        drop(gone);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Way, Client>> {
        self.by_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    fn new(http: &HttpOptions, guarded: bool) -> Self {
        Self {
            connect_timeout: http.connect_timeout(),
            proxy: http.proxy().to_owned(),
            ca_file: http.ca_file.clone(),
            identity: http.client_cert.clone().zip(http.client_key.clone()),
            insecure: http.insecure == Some(true),
            guarded,
        }
    }

    /// Reads certificates, so it blocks.
    fn client(&self) -> Result<Client> {
        let mut builder = Client::builder()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(self.connect_timeout)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .danger_accept_invalid_certs(self.insecure);
        builder = self.proxied(builder)?;
        if let Some(path) = &self.ca_file {
            for certificate in Certificate::from_pem_bundle(&read_pem(path)?).map_err(|e| no_pem(path, e))? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        if let Some((certificate, key)) = &self.identity {
            let mut pem = read_pem(certificate)?;
            pem.push(b'\n');
            pem.extend(read_pem(key)?);
            builder = builder.identity(Identity::from_pem(&pem).map_err(|e| no_pem(key, e))?);
        }
        builder.build().map_err(|error| {
            Error::new(ErrorKind::Config, "set up http", "the client cannot be made").with_source(error)
        })
    }

    /// Behind a proxy it is the proxy that looks names up; who asks checks them before.
    fn proxied(&self, builder: ClientBuilder) -> Result<ClientBuilder> {
        match self.proxy.as_str() {
            "none" if self.guarded => Ok(builder.no_proxy().dns_resolver(Arc::new(PublicOnly(look_up)))),
            "none" => Ok(builder.no_proxy()),
            "env" => Ok(builder),
            url => Proxy::all(url).map(|proxy| builder.no_proxy().proxy(proxy)).map_err(|error| {
                let message = "`proxy` is not the URL of a proxy";
                Error::new(ErrorKind::Config, "set up http", message).with_source(error.without_url())
            }),
        }
    }
}

/// Looks names up and refuses those that have any private address, or none at all. Each connection asks anew, and goes to
/// the addresses that were checked: a name that leads elsewhere the next time is checked the next time.
struct PublicOnly<L>(L);

impl<L, F> Resolve for PublicOnly<L>
where
    L: Fn(Name) -> F + Send + Sync,
    F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
{
    fn resolve(&self, name: Name) -> Resolving {
        let looked_up = (self.0)(name);
        Box::pin(async move {
            let found = check_all(looked_up.await?)?;
            if found.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address").into());
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

async fn look_up(name: Name) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect())
}

fn read_pem(path: &Path) -> Result<Vec<u8>> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_PEM_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| Error::io("read certificate", path.display(), error))
}

fn no_pem(path: &Path, error: reqwest::Error) -> Error {
    Error::new(ErrorKind::Config, "read certificate", "expected a PEM file")
        .with("path", path.display())
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    /// What comes of a name that the system knows by these addresses, one list for each time it is asked.
    async fn resolved(answers: &[&[&str]]) -> Vec<Result<Vec<SocketAddr>, String>> {
        let n_asked = std::sync::atomic::AtomicUsize::new(0);
        let answers: Vec<Vec<SocketAddr>> = answers
            .iter()
            .map(|answer| answer.iter().map(|address| address.parse().unwrap()).collect())
            .collect();
        let n_answers = answers.len();
        let names = PublicOnly(move |_| {
            ready(Ok(answers[n_asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst)].clone()))
        });
        let mut found = Vec::new();
        for _ in 0..n_answers {
            let one = names.resolve("name.example".parse().unwrap()).await;
            found.push(one.map(Iterator::collect).map_err(|error| error.to_string()));
        }
        found
    }

    // reliability 16
    #[tokio::test]
    async fn a_name_without_addresses_or_with_a_private_one_among_public_ones_is_refused() {
        let (public, private) = ("1.1.1.1:0", "10.0.0.1:0");
        for (answer, told) in [
            (vec![], "no address"),
            (vec![public, private], "10.0.0.1 is a private address"),
            (vec![private, public], "10.0.0.1 is a private address"),
            (vec![public, "[::ffff:127.0.0.1]:0"], "loopback"),
        ] {
            let error = resolved(&[&answer]).await.remove(0).unwrap_err();
            assert!(error.contains(told), "{answer:?}: {error}");
        }
    }

    // reliability 16: what was public once is not believed
    #[tokio::test]
    async fn a_name_that_changes_between_public_and_private_is_checked_each_time() {
        let (public, private) = ("1.1.1.1:0", "127.0.0.1:0");
        let found = resolved(&[&[public], &[private], &[public], &[]]).await;
        assert_eq!(found[0].as_deref(), Ok(&[public.parse().unwrap()][..]));
        assert_eq!(found[2], found[0]);
        assert!(found[1].is_err() && found[3].is_err(), "{found:?}");
    }
}
