//! Certificates. Those in `tls/` were made for these tests: `good` is for 127.0.0.1, `other` for another host, `expired`
//! for 127.0.0.1 in 2020; all are signed by `ca`, which nobody else trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use aqueduct_core::ErrorKind;
use aqueduct_primitives::{Task, Tasks};
use aqueduct_testkit::http::Server;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};

use crate::{client, says};

fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls").join(name)
}

/// A server with one of the certificates, which answers every request alike; its port, and how often it was asked, and the task that is it.
async fn serve(name: &str, answer: String) -> (u16, Arc<AtomicUsize>, Task<()>) {
    let chain =
        CertificateDer::pem_file_iter(pem(&format!("{name}.pem"))).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(pem(&format!("{name}.key"))).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (acceptor, n_asked) = (TlsAcceptor::from(Arc::new(config)), Arc::new(AtomicUsize::new(0)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, counted) = (listener.local_addr().unwrap().port(), Arc::clone(&n_asked));
    let serving = Tasks::default().spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust it goes away.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            if stream.read(&mut request).await.is_ok_and(|n_bytes| n_bytes > 0) {
                counted.fetch_add(1, SeqCst);
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    (port, n_asked, serving)
}

fn data() -> String {
    "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndata".to_owned()
}

// reliability 13
#[tokio::test]
async fn a_certificate_is_taken_when_the_flow_trusts_who_signed_it_and_nothing_is_wrong_with_it() {
    let (port, n_asked, _serving) = serve("good", data()).await;
    let url = format!("https://127.0.0.1:{port}/a");
    assert_eq!(client(json!({"ca_file": pem("ca.pem")})).read(&url).await.unwrap(), b"data");
    assert_eq!(n_asked.load(SeqCst), 1);
}

// reliability 13: unknown authority, wrong host, expired: refused at once, by name, and nothing is asked
#[tokio::test]
async fn certificates_that_are_unknown_of_another_host_or_expired_are_refused() {
    for (name, options, told) in [
        ("good", json!({"retries": 3}), "UnknownIssuer"),
        ("other", json!({"retries": 3, "ca_file": pem("ca.pem")}), "not valid for name"),
        ("expired", json!({"retries": 3, "ca_file": pem("ca.pem")}), "certificate expired"),
    ] {
        let (port, n_asked, _serving) = serve(name, data()).await;
        let client = client(options);
        let error = client.fails(&format!("https://127.0.0.1:{port}/a")).await;
        assert_eq!(error.kind(), ErrorKind::Denied, "{name}: {}", error.chain());
        says(&error, &["https://127.0.0.1", "/a", "certificate is not trusted", told, "ca_file", "insecure"]);
        assert_eq!((client.n_retries(), n_asked.load(SeqCst)), (0, 0), "{name}");
    }
}

// reliability 10: from https to http
#[tokio::test]
async fn a_redirect_from_https_to_http_is_refused() {
    let plain = Server::start().await;
    let target = plain.file("/a", "plain");
    let redirect =
        format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let (port, _, _serving) = serve("good", redirect).await;
    let client = client(json!({"ca_file": pem("ca.pem"), "allow_hosts": ["127.0.0.1"]}));
    let error = client.fails(&format!("https://127.0.0.1:{port}/a")).await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    says(&error, &["from https to http", &target]);
    assert_eq!((plain.n_requests(), client.n_retries()), (0, 0));
}
