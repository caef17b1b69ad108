//! The promise "nobody reads along": TLS with a certificate and a key, and what a handshake may cost.

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::{PATIENCE, Process, Server, Setup, run};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rephase::app::{Limits, Tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// A certificate for this machine, and its key.
struct Certificate {
    der: CertificateDer<'static>,
    pem: String,
    key: String,
}

fn certificate() -> Certificate {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    Certificate { der: cert.der().clone(), pem: cert.pem(), key: signing_key.serialize_pem() }
}

impl Certificate {
    fn tls(&self) -> Tls {
        Tls::new(self.pem.as_bytes(), self.key.as_bytes()).expect("they belong together")
    }

    /// A connection of somebody who trusts this certificate.
    async fn connect(
        &self,
        address: &str,
        version: &'static SupportedProtocolVersion,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_protocol_versions(&[version]).expect("a version").with_root_certificates(roots);
        let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
        let stream = TcpStream::connect(address).await?;
        connector.connect("localhost".try_into().expect("a name"), stream).await
    }
}

/// The status and the body of an answer.
async fn get(stream: TlsStream<TcpStream>, path: &str) -> (u16, String) {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new()).expect("a request");
    let answer = timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    drop(sender);
    connection.await.expect("it ends").expect("well");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

#[tokio::test]
async fn it_is_served_over_tls_and_over_nothing_else() {
    let certificate = certificate();
    let server = Server::start(Setup { tls: Some(certificate.tls()), ..Setup::default() }).await;
    let address = server.app.address().to_string();
    assert_eq!(server.app.url(), format!("https://{address}"));
    for version in [&TLS12, &TLS13] {
        let stream = certificate.connect(&address, version).await.expect("a connection");
        let (status, body) = get(stream, "/readyz").await;
        assert_eq!((status, body.as_str()), (200, r#"{"status":"ready"}"#));
    }
    let mut plain = TcpStream::connect(&address).await.expect("it accepts");
    plain.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    // It may be cut off while it is being told.
    let _ = timeout(PATIENCE, plain.read_to_end(&mut answer)).await.expect("it ends");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn a_silent_client_costs_one_place_for_a_time() {
    let certificate = certificate();
    let limits = Limits { connections: 1, handshake: Duration::from_millis(200), ..Limits::default() };
    let server = Server::start(Setup { tls: Some(certificate.tls()), limits, ..Setup::default() }).await;
    let address = server.app.address().to_string();
    let mut silent = TcpStream::connect(&address).await.expect("it accepts");
    let mut rest = Vec::new();
    timeout(PATIENCE, silent.read_to_end(&mut rest)).await.expect("it is cut off").expect("cleanly");
    assert_eq!(rest, b"");
    // Now there is room again, once the server has noticed.
    let answered = async {
        loop {
            let stream = certificate.connect(&address, &TLS13).await.expect("a connection");
            if get(stream, "/v1/batches").await.0 == 401 {
                return;
            }
        }
    };
    timeout(PATIENCE, answered).await.expect("there is a place");
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_silent_client() {
    let certificate = certificate();
    let limits = Limits { handshake: Duration::from_hours(1), ..Limits::default() };
    let server = Server::start(Setup { tls: Some(certificate.tls()), limits, ..Setup::default() }).await;
    let address = server.app.address().to_string();
    let silent = TcpStream::connect(&address).await.expect("it accepts");
    // Connections are accepted one after the other, so that one is there by now.
    get(certificate.connect(&address, &TLS13).await.expect("a connection"), "/livez").await;
    timeout(Duration::from_secs(5), server.app.stop()).await.expect("nobody holds it");
    drop(silent);
}

#[tokio::test]
async fn the_program_reads_certificate_and_key_from_files() {
    let (certificate, other) = (certificate(), certificate());
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (cert, key) = (file("cert.pem", &certificate.pem), file("key.pem", &certificate.key));
    let foreign = file("other.pem", &other.key);
    for (cert, key, said) in [(&cert, &foreign, "cannot be used"), (&key, &key, "CERTIFICATE"), (&cert, &cert, "KEY")] {
        let (code, output, errors) = run(Process::command(&["--ephemeral", "--tls-cert", cert, "--tls-key", key]));
        assert_eq!((code, output.as_str()), (2, ""));
        assert!(errors.contains(said) && !errors.contains(&certificate.key), "{errors}");
        assert!(errors.matches("KeyMismatch").count() <= 1, "it is said once: {errors}");
    }
    let process = Process::serve(&["--ephemeral", "--tls-cert", &cert, "--tls-key", &key]);
    let address = process.url.strip_prefix("https://").expect("it says that it is secure").to_owned();
    let stream = certificate.connect(&address, &TLS13).await.expect("a connection");
    assert_eq!(get(stream, "/livez").await.0, 200);
}
