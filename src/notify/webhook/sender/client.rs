//! The HTTP clients beneath the sender.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use rustls::client::{Resumption, danger::ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use tower::util::MapFutureLayer;

use super::egress::EgressProxy;
use super::keep_alive::{IDLE_PER_ORIGIN, IDLE_TIMEOUT};
use super::phases::{self, Sessions};
use super::{SenderConfig, SenderError};
use crate::notify::webhook::guard::Guard;

/// How many headers a response may have over HTTP/1; there they also share a buffer of about 400 KiB.
pub(super) const MAX_HEADERS: usize = 100;
/// How large a response's headers may be over HTTP/2.
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// How much a receiver may send ahead over HTTP/2: the window that the protocol begins with.
pub(super) const H2_WINDOW: u32 = 65_535;
/// How long a receiver may be silent over HTTP/2 before it is asked whether it is there, and then to answer. Its
/// requests share a connection, which would otherwise outlive a receiver that went without a word.
const H2_PING: Duration = Duration::from_secs(5);

/// Who vouches for receivers.
pub(super) enum Trust {
    /// A verifier, the system's as a rule.
    Anchors(Arc<dyn ServerCertVerifier>),
    /// Nobody: there are no CA certificates here.
    Nobody,
}

impl Trust {
    /// What the system trusts, or nobody where it trusts nobody and that is `bearable`.
    pub(super) fn of_the_system(bearable: bool) -> Result<Self, SenderError> {
        match Verifier::new(provider()) {
            Ok(verifier) => Ok(Self::Anchors(Arc::new(verifier))),
            Err(error) if bearable => {
                tracing::warn!(
                    error = &error as &dyn Error,
                    "no CA certificates: callbacks over HTTPS will fail"
                );
                Ok(Self::Nobody)
            }
            Err(error) => Err(SenderError::NoTrustAnchors(error)),
        }
    }
}

/// Two clients that differ in what becomes of a connection after its request.
#[derive(Clone)]
pub(super) struct Clients {
    /// Keeps it for the next one.
    pub(super) keeping: Client,
    /// Closes it, and so makes a new one for each request.
    pub(super) closing: Client,
}

impl Clients {
    pub(super) fn new(
        guard: &Guard,
        config: &SenderConfig,
        trust: &Trust,
        h2_window: u32,
    ) -> Result<Self, SenderError> {
        let tls = tls(trust, config.egress_proxy.as_ref())?;
        let client = |idle| {
            let client = builder(guard, config, tls.clone())?
                .http2_initial_stream_window_size(h2_window)
                .http2_initial_connection_window_size(h2_window)
                .pool_max_idle_per_host(idle)
                .build();
            client.map_err(SenderError::Client)
        };
        Ok(Self { keeping: client(IDLE_PER_ORIGIN)?, closing: client(0)? })
    }
}

/// No proxy from the environment, which would connect without asking the guard; no redirects, for the same reason; no
/// silent repetition, which no record would show.
fn builder(guard: &Guard, config: &SenderConfig, tls: ClientConfig) -> Result<ClientBuilder, SenderError> {
    let builder = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .connect_timeout(config.connect_timeout)
        .connector_layer(MapFutureLayer::new(phases::connect))
        .tls_backend_preconfigured(tls)
        .user_agent(&config.user_agent)
        .http1_max_headers(MAX_HEADERS)
        .http2_max_header_list_size(MAX_HEADER_LIST)
        .http2_keep_alive_interval(H2_PING)
        .http2_keep_alive_timeout(H2_PING);
    Ok(match &config.egress_proxy {
        None => builder.dns_resolver(GuardedResolver(guard.clone())),
        Some(proxy) => builder.proxy(proxy.for_all().map_err(SenderError::Client)?),
    })
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()))
}

/// As the client would set it up by itself, with sessions that tell when a handshake begins.
fn tls(trust: &Trust, proxy: Option<&EgressProxy>) -> Result<ClientConfig, SenderError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(SenderError::Tls)?;
    let mut tls = match trust {
        Trust::Anchors(verifier) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::clone(verifier)).with_no_client_auth()
        }
        Trust::Nobody => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tls.resumption = Resumption::store(Arc::new(Sessions::new(proxy.and_then(EgressProxy::server_name))));
    Ok(tls)
}

/// The client's resolver: what the guard refuses is never connected to.
struct GuardedResolver(Guard);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            // The client puts the URL's port in place of 0.
            let addresses = phases::look_up(guard.resolve(name.as_str(), 0)).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
