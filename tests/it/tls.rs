//! TLS as clients meet it: served, renewed without a restart, and no way to hold the server up.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use darkroom::clock::Clock;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use reqwest::{Certificate, Client, Version};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::process::Server;
use crate::support::{App, BOUND, bounded, eventually};

/// A certificate for this machine, and its key.
struct Pair {
    cert: rcgen::Certificate,
    key: KeyPair,
}

impl Pair {
    fn new() -> Self {
        Self::valid_until(2100)
    }

    fn valid_until(year: i32) -> Self {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        Self { cert: params.self_signed(&key).unwrap(), key }
    }

    fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key.serialize_der())
    }

    fn write_to(&self, folder: &Path) {
        std::fs::write(folder.join("key.pem"), self.key_pem()).unwrap();
        std::fs::write(folder.join("cert.pem"), pem("CERTIFICATE", self.cert.der())).unwrap();
    }

    /// A client that trusts it, and nothing else.
    fn client(&self) -> Client {
        let root = Certificate::from_der(self.cert.der()).unwrap();
        let client = Client::builder().no_proxy().timeout(BOUND).pool_max_idle_per_host(0);
        client.tls_certs_only([root]).build().unwrap()
    }

    /// A connection of HTTP/1.1.
    async fn connect(&self, address: &str) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.cert.der().to_vec())).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        bounded(TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A folder with a pair in it.
fn folder_with(pair: &Pair) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    pair.write_to(folder.path());
    folder
}

async fn app(files: &Path, more: &[(&'static str, &str)]) -> App {
    let (cert, key) = (files.join("cert.pem"), files.join("key.pem"));
    let mut flags =
        vec![("server.tls_cert", cert.to_str().unwrap()), ("server.tls_key", key.to_str().unwrap())];
    flags.extend(more);
    App::with(&flags, Clock::system()).await
}

fn address(app: &App) -> String {
    app.running.local_url().trim_start_matches("https://").to_owned()
}

async fn is_served(client: &Client, url: &str) -> bool {
    client.get(url).send().await.is_ok_and(|response| response.status() == 200)
}

/// A request on a connection that stays open.
async fn asks(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        assert_ne!(bounded(stream.read_buf(&mut answer)).await.unwrap(), 0, "the connection was closed");
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn https_is_served_over_both_versions_and_links_say_so() {
    let pair = Pair::new();
    let files = folder_with(&pair);
    let app = app(files.path(), &[]).await;
    assert!(app.running.local_url().starts_with("https://127.0.0.1:"), "{}", app.running.local_url());
    let response = pair.client().get(app.url("/")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
    let root: serde_json::Value = response.json().await.unwrap();
    assert_eq!(root["_links"]["self"]["href"], app.url("/"));
    assert!(asks(&mut pair.connect(&address(&app)).await).await.starts_with("HTTP/1.1 200"));
    let metrics = pair.client().get(app.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("darkroom_tls_certificate_not_after_seconds 4102444800"), "{metrics}");

    assert!(!is_served(&Pair::new().client(), &app.url("/")).await, "by a client that trusts another");
    let plain = app.url("/").replace("https://", "http://");
    assert!(app.http.get(plain).send().await.is_err(), "without TLS");
    app.stop().await;
}

#[tokio::test]
async fn changed_files_are_found_and_old_connections_go_on() {
    let (old, new) = (Pair::new(), Pair::new());
    let files = folder_with(&old);
    let app = app(files.path(), &[("server.tls_reload_ms", "10")]).await;
    let mut kept = old.connect(&address(&app)).await;
    assert!(asks(&mut kept).await.starts_with("HTTP/1.1 200"));
    new.write_to(files.path());
    let (client, url) = (new.client(), app.url("/health/live"));
    eventually(async || is_served(&client, &url).await.then_some(())).await;
    assert!(!is_served(&old.client(), &url).await);
    assert!(asks(&mut kept).await.starts_with("HTTP/1.1 200"));
    app.stop().await;
}

#[cfg(unix)]
#[test]
fn a_hangup_reloads_at_once_and_a_pair_that_does_not_fit_is_kept_out() {
    let (old, new) = (Pair::new(), Pair::new());
    let files = folder_with(&old);
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
    command
        .env("DARKROOM_SERVER__TLS_CERT", files.path().join("cert.pem"))
        .env("DARKROOM_SERVER__TLS_KEY", files.path().join("key.pem"))
        .env("DARKROOM_SERVER__TLS_RELOAD_MS", "86400000")
        .stderr(Stdio::piped());
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::from(command, data.path());
    let log = BufReader::new(server.stderr());
    let hang_up =
        || assert!(Command::new("kill").args(["-HUP", &server.id().to_string()]).status().unwrap().success());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = format!("{}/health/live", server.url);
    assert!(url.starts_with("https://"), "{url}");

    std::fs::write(files.path().join("key.pem"), new.key_pem()).unwrap();
    hang_up();
    let told = log.lines().map(Result::unwrap).find(|line| line.contains("cannot be reloaded"));
    let told = told.expect("the log goes on");
    assert!(told.contains("ERROR") && told.contains("does not go with the certificate"), "{told}");
    assert!(runtime.block_on(is_served(&old.client(), &url)));

    new.write_to(files.path());
    hang_up();
    let client = new.client();
    runtime.block_on(eventually(async || is_served(&client, &url).await.then_some(())));
    assert!(server.stop().success());
}

#[test]
fn what_no_client_would_take_is_refused_at_the_start() {
    let serve = |files: &Path, cert: &str, key: &str| -> Output {
        Command::new(env!("CARGO_BIN_EXE_darkroom"))
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(files.join("data"))
            .arg("--tls-cert")
            .arg(files.join(cert))
            .arg("--tls-key")
            .arg(files.join(key))
            .output()
            .unwrap()
    };
    let refused = |pair: &Pair, cert: &str, key: &str, told: &str| {
        let files = folder_with(pair);
        std::fs::write(files.path().join("other.pem"), Pair::new().key_pem()).unwrap();
        std::fs::write(files.path().join("empty.pem"), "").unwrap();
        let output = serve(files.path(), cert, key);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(told), "{text}");
        assert!(!files.path().join("data").exists(), "something was begun");
    };
    let pair = Pair::new();
    refused(&Pair::valid_until(2021), "cert.pem", "key.pem", "expired at 2021-01-01");
    refused(&pair, "cert.pem", "other.pem", "does not go with the certificate");
    refused(&pair, "missing.pem", "key.pem", "cannot read");
    refused(&pair, "empty.pem", "key.pem", "does not hold a certificate");
    refused(&pair, "cert.pem", "cert.pem", "does not hold a private key");
    let alone = Command::new(env!("CARGO_BIN_EXE_darkroom"))
        .args(["serve", "--dev", "--tls-cert", "cert.pem"])
        .output()
        .unwrap();
    assert_eq!(alone.status.code(), Some(2));
}

#[tokio::test]
async fn a_handshake_that_does_not_end_holds_up_nobody_and_is_cut_off() {
    let pair = Pair::new();
    let files = folder_with(&pair);
    let app_of = async |limit| app(files.path(), &[("server.tls_handshake_timeout_ms", limit)]).await;

    let patient = app_of("86400000").await;
    let mut hanging = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address(&patient)).await.unwrap();
        // The beginning of a hello.
        stream.write_all(&[22, 3, 1]).await.unwrap();
        hanging.push(stream);
    }
    assert!(is_served(&pair.client(), &patient.url("/health/live")).await);
    // And the stop does not wait for them.
    patient.stop().await;
    for mut stream in hanging {
        let _ = bounded(stream.read_to_end(&mut Vec::new())).await;
    }

    let strict = app_of("200").await;
    for begin in [&[][..], &[22, 3, 1]] {
        let mut stream = TcpStream::connect(address(&strict)).await.unwrap();
        stream.write_all(begin).await.unwrap();
        let _ = bounded(stream.read_to_end(&mut Vec::new())).await;
    }
    strict.stop().await;
}
