//! TLS: one certificate and its key, read from two files, and read again when they change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::parse_x509_certificate;

use crate::clock::Clock;
use crate::config::Server;
use crate::telemetry;

/// The pair of files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} does not hold {what}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why it does not.
        source: pem::Error,
    },
    /// The first certificate is none.
    #[error("the first certificate in {} cannot be read", .0.display())]
    Certificate(PathBuf),
    /// Every client would refuse it.
    #[error("the certificate in {} expired at {at}", path.display())]
    Expired {
        /// In which file it is.
        path: PathBuf,
        /// When.
        at: Timestamp,
    },
    /// Every client would refuse it, for now.
    #[error("the certificate in {} is not valid before {at}", path.display())]
    NotYetValid {
        /// In which file it is.
        path: PathBuf,
        /// When it will be.
        at: Timestamp,
    },
    /// The key is of another certificate, or of a kind that cannot sign.
    #[error("the key in {} does not go with the certificate in {}", key.display(), cert.display())]
    Key {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The library refuses to be set up.
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

/// Answers handshakes with the certificate as it is in its files.
pub struct Tls {
    acceptor: TlsAcceptor,
    handshake_timeout: Duration,
    files: Files,
    every: Duration,
    asked: Notify,
    served: Arc<Served>,
    clock: Clock,
}

impl Tls {
    /// Reads the files that the configuration names; `None` if it names none.
    pub fn of(config: &Server, clock: &Clock) -> Result<Option<Self>, TlsError> {
        let Some((cert, key)) = config.tls() else { return Ok(None) };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let files = Files { cert: cert.to_owned(), key: key.to_owned(), provider };
        let pems = files.read()?;
        let pair = files.check(&pems, clock.now())?;
        let served = Arc::new(Served(RwLock::new((pems.digest(), Arc::new(pair)))));
        let mut tls = ServerConfig::builder_with_provider(Arc::clone(&files.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&served) as Arc<dyn ResolvesServerCert>);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(Self {
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            handshake_timeout: Duration::from_millis(config.tls_handshake_timeout_ms),
            files,
            every: Duration::from_millis(config.tls_reload_ms),
            asked: Notify::new(),
            served,
            clock: clock.clone(),
        }))
    }

    /// Looks at the files soon.
    pub fn reload(&self) {
        self.asked.notify_one();
    }

    /// The connection as the client and this server alone can read it.
    pub(super) async fn accept<IO>(&self, stream: IO) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        timeout(self.handshake_timeout, self.acceptor.accept(stream)).await?
    }

    /// Serves what is in the files from now on, whenever they change. Never ends.
    pub(super) async fn follow_files(&self) {
        let mut told = None;
        loop {
            // Either way it is time to look.
            let _ = timeout(self.every, self.asked.notified()).await;
            match self.look().await {
                Ok(changed) => {
                    told = None;
                    if changed {
                        tracing::info!(cert = %self.files.cert.display(), "a new certificate is served");
                    }
                }
                Err(error) => {
                    // Once, and not at each look.
                    let text = Some(error.to_string());
                    if told != text {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, "the certificate cannot be reloaded; the one before it stays");
                        told = text;
                    }
                }
            }
        }
    }

    /// Whether there was something new, which then is served.
    async fn look(&self) -> Result<bool, TlsError> {
        let files = self.files.clone();
        let reading = tokio::task::spawn_blocking(move || files.read());
        // Only the end of the runtime keeps it from being read.
        let Ok(read) = reading.await else { return Ok(false) };
        let pems = read?;
        let is_new = self.served.read().0 != pems.digest();
        if is_new {
            let pair = self.files.check(&pems, self.clock.now())?;
            *self.served.0.write().unwrap_or_else(PoisonError::into_inner) = (pems.digest(), Arc::new(pair));
        }
        Ok(is_new)
    }
}

/// The certificate that handshakes are answered with, and by what its files are known.
#[derive(Debug)]
struct Served(RwLock<(Digest, Arc<CertifiedKey>)>);

impl Served {
    fn read(&self) -> (Digest, Arc<CertifiedKey>) {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.read().1)
    }
}

type Digest = [u8; 32];

/// What the two files hold.
struct Pems {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Pems {
    fn digest(&self) -> Digest {
        let length = (self.cert.len() as u64).to_be_bytes();
        Sha256::new().chain_update(length).chain_update(&self.cert).chain_update(&self.key).finalize().into()
    }
}

/// Where the pair lies.
#[derive(Clone)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
}

impl Files {
    fn read(&self) -> Result<Pems, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
        };
        Ok(Pems { cert: read(&self.cert)?, key: read(&self.key)? })
    }

    /// The pair, if clients will take it.
    fn check(&self, pems: &Pems, now: Timestamp) -> Result<CertifiedKey, TlsError> {
        let no_chain = |source| TlsError::Pem { path: self.cert.clone(), what: "a certificate", source };
        let chain = CertificateDer::pem_slice_iter(&pems.cert).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(no_chain)?;
        let own = chain.first().ok_or_else(|| no_chain(pem::Error::NoItemsFound))?;
        let expiry = self.check_validity(own, now)?;
        let key = PrivateKeyDer::from_pem_slice(&pems.key).map_err(|source| TlsError::Pem {
            path: self.key.clone(),
            what: "a private key",
            source,
        })?;
        let pair = CertifiedKey::from_der(chain, key, &self.provider).map_err(|source| TlsError::Key {
            key: self.key.clone(),
            cert: self.cert.clone(),
            source,
        })?;
        #[expect(clippy::cast_precision_loss, reason = "times stay far below 2^53 seconds")]
        metrics::gauge!(telemetry::CERTIFICATE_EXPIRY).set(expiry.as_second() as f64);
        Ok(pair)
    }

    /// Until when it is valid.
    fn check_validity(&self, own: &CertificateDer<'_>, now: Timestamp) -> Result<Timestamp, TlsError> {
        let unreadable = || TlsError::Certificate(self.cert.clone());
        let (_, certificate) = parse_x509_certificate(own).map_err(|_| unreadable())?;
        let validity = certificate.validity();
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| unreadable());
        let not_before = time(validity.not_before.timestamp())?;
        let not_after = time(validity.not_after.timestamp())?;
        if now < not_before {
            return Err(TlsError::NotYetValid { path: self.cert.clone(), at: not_before });
        }
        if now > not_after {
            return Err(TlsError::Expired { path: self.cert.clone(), at: not_after });
        }
        Ok(not_after)
    }
}
