//! Names and their addresses, checked where they are resolved.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{Guard, Refused};

/// Look-ups that may run at once. The system's resolver blocks a thread for as long as it likes, also after
/// the attempt's deadline; name servers that never answer must not take every thread the process has for
/// blocking work.
const MAX_LOOKUPS: usize = 64;

/// A host's name did not lead to addresses that may be called.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It leads to an address that is not allowed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The look-up failed.
    #[error("the host's name could not be looked up")]
    Lookup(#[source] io::Error),
    /// The look-up succeeded and found nothing.
    #[error("the host's name has no address")]
    Empty,
}

impl ResolveError {
    /// Whether the name may have addresses all the same: no name server answered.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        // The code, `EAI_AGAIN`, does not come through; its text does, in C's own locale as nobody sets another.
        matches!(self, Self::Lookup(error) if error.to_string().contains("emporary failure"))
    }
}

/// Looks names up. Clones share the limit.
#[derive(Clone)]
pub(super) struct Resolver {
    permits: Arc<Semaphore>,
    /// Answers in place of the system.
    #[cfg(test)]
    scripted: Option<Arc<Script>>,
}

#[cfg(test)]
type Script = dyn Fn(&str) -> Vec<std::net::IpAddr> + Send + Sync;

impl Resolver {
    pub(super) fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            #[cfg(test)]
            scripted: None,
        }
    }

    /// The permit goes with the thread, not with the caller, who may have given up waiting long before.
    async fn look_up(&self, host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
        #[cfg(test)]
        if let Some(answer) = &self.scripted {
            return Ok(answer(&host).into_iter().map(|address| SocketAddr::new(address, port)).collect());
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(io::Error::other)?;
        let lookup = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
        });
        lookup.await.map_err(io::Error::other)?
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("permits", &self.permits.available_permits()).finish_non_exhaustive()
    }
}

impl Guard {
    /// A guard to which `answer` is the name server.
    #[cfg(test)]
    pub(crate) fn with_names(
        policy: super::GuardPolicy,
        answer: impl Fn(&str) -> Vec<std::net::IpAddr> + Send + Sync + 'static,
    ) -> Self {
        let mut guard = Self::new(policy);
        guard.resolver.scripted = Some(Arc::new(answer));
        guard
    }

    /// Resolves a name. If one of its addresses is forbidden, none is used: an answer that mixes public and
    /// private addresses is an attempt at something.
    ///
    /// # Errors
    ///
    /// The look-up failed, found nothing, or found what is forbidden.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        let addresses = self.resolver.look_up(host.to_owned(), port).await.map_err(ResolveError::Lookup)?;
        self.vet(host, addresses)
    }

    pub(super) fn vet(
        &self,
        host: &str,
        addresses: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        if addresses.is_empty() {
            return Err(ResolveError::Empty);
        }
        for address in &addresses {
            self.check_peer(host, address.ip())?;
        }
        Ok(addresses)
    }
}
