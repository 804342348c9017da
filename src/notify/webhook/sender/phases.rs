//! How long the parts of an attempt take.
//!
//! The client makes a connection within the future of the request that needs it, so what happens on the way finds the
//! attempt it belongs to in a task-local. A connection that is still under way when another one becomes free goes on
//! in a task of its own; what it meets there is no part of the attempt.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;

use crate::clock::Stopwatch;
use crate::domain::attempt::Timings;

/// Servers whose TLS sessions are remembered; the library's own default.
const TLS_SESSIONS: usize = 256;

tokio::task_local! {
    static CURRENT: Arc<Phases>;
}

/// When the parts of one exchange began and ended.
pub(super) struct Phases {
    watch: Stopwatch,
    look_up: Mark,
    resolved: Mark,
    request: Mark,
    connect: Mark,
    tls: Mark,
    connected: Mark,
    failed: Mark,
    head: Mark,
    /// The connection that was being made was not needed in the end.
    left_alone: AtomicBool,
}

impl Phases {
    pub(super) fn new() -> Self {
        let mark = Mark::default;
        Self {
            watch: Stopwatch::start(),
            look_up: mark(),
            resolved: mark(),
            request: mark(),
            connect: mark(),
            tls: mark(),
            connected: mark(),
            failed: mark(),
            head: mark(),
            left_alone: AtomicBool::new(false),
        }
    }

    /// Runs the request of these phases.
    pub(super) async fn of_request<F: Future>(self: &Arc<Self>, request: F) -> F::Output {
        self.request.set(&self.watch);
        let result = CURRENT.scope(Arc::clone(self), request).await;
        self.head.set(&self.watch);
        result
    }

    /// Looks a name up, as a part of these phases.
    pub(super) async fn of_look_up<T, E>(&self, look_up: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.look_up.set(&self.watch);
        let result = look_up.await;
        if result.is_ok() {
            self.resolved.set(&self.watch);
        }
        result
    }

    /// Whether the client was given the request.
    pub(super) fn requested(&self) -> bool {
        self.request.get().is_some()
    }

    /// Whether the request went out on a connection that was there before.
    pub(super) fn reused(&self) -> bool {
        self.requested()
            && self.connected.get().is_none()
            && self.failed.get().is_none()
            && (self.connect.get().is_none() || self.left_alone.load(Relaxed))
    }

    /// Whether a connection was made, or one that was there before was used.
    pub(super) fn connected(&self) -> bool {
        self.connected.get().is_some() || self.reused()
    }

    /// Whether the receiver's TLS handshake began; through a proxy, the tunnel stood by then.
    pub(super) fn tls_began(&self) -> bool {
        self.tls.get().is_some()
    }

    /// The durations up to now, where the attempt has ended. A part that was cut off counts as far as it went.
    pub(super) fn timings(&self, answered: bool) -> Timings {
        let now = self.watch.micros();
        let cut = self.failed.get().unwrap_or(now);
        let since = |begin: Option<u32>, end: Option<u32>| {
            begin.map(|begin| end.unwrap_or(cut).saturating_sub(begin))
        };
        let head = self.head.get().filter(|_| answered);
        let mut timings =
            Timings { body_us: head.map(|head| now.saturating_sub(head)), ..Timings::default() };
        let sent = if self.reused() {
            self.request.get()
        } else {
            let resolved = self.resolved.get();
            timings.dns_us = since(self.look_up.get(), resolved);
            let is_resolved = self.look_up.get().is_none() || resolved.is_some();
            let connect = self.connect.get().filter(|_| is_resolved).map(|at| at.max(resolved.unwrap_or(0)));
            timings.connect_us = since(connect, self.tls.get().or(self.connected.get()));
            timings.tls_us = since(self.tls.get(), self.connected.get());
            self.connected.get()
        };
        timings.ttfb_us = sent.map(|sent| head.unwrap_or(now).saturating_sub(sent));
        timings
    }
}

/// Looks a name up for the current attempt.
pub(super) async fn look_up<T, E>(look_up: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match CURRENT.try_with(Arc::clone) {
        Ok(phases) => phases.of_look_up(look_up).await,
        Err(_) => look_up.await,
    }
}

/// Makes a connection for the current attempt.
pub(super) async fn connect<C, E>(connect: impl Future<Output = Result<C, E>>) -> Result<C, E> {
    let Ok(phases) = CURRENT.try_with(Arc::clone) else { return connect.await };
    phases.connect.set(&phases.watch);
    let mut connect = pin!(connect);
    let result = poll_fn(|context| {
        if CURRENT.try_with(|current| Arc::ptr_eq(current, &phases)) != Ok(true) {
            phases.left_alone.store(true, Relaxed);
        }
        connect.as_mut().poll(context)
    })
    .await;
    if !phases.left_alone.load(Relaxed) {
        let end = if result.is_ok() { &phases.connected } else { &phases.failed };
        end.set(&phases.watch);
    }
    result
}

/// A moment, in microseconds since the exchange began.
#[derive(Default)]
struct Mark(AtomicU32);

impl Mark {
    /// 0 stands for a moment that has not come.
    fn set(&self, watch: &Stopwatch) {
        self.0.store(watch.micros().max(1), Relaxed);
    }

    fn get(&self) -> Option<u32> {
        Some(self.0.load(Relaxed)).filter(|at| *at > 0)
    }
}

trait Micros {
    fn micros(&self) -> u32;
}

impl Micros for Stopwatch {
    fn micros(&self) -> u32 {
        u32::try_from(self.elapsed().as_micros()).unwrap_or(u32::MAX)
    }
}

/// The TLS library's own memory of sessions. It is asked for its hint when a handshake begins, and by nothing else, so
/// that is where the connection ends and the handshake starts.
pub(super) struct Sessions {
    cache: ClientSessionMemoryCache,
    /// Whose handshake is a part of connecting.
    proxy: Option<ServerName<'static>>,
}

impl Sessions {
    pub(super) fn new(proxy: Option<ServerName<'static>>) -> Self {
        Self { cache: ClientSessionMemoryCache::new(TLS_SESSIONS), proxy }
    }
}

/// What is remembered are keys.
impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions(…)")
    }
}

impl ClientSessionStore for Sessions {
    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        if self.proxy.as_ref() != Some(server) {
            // Without a current attempt nobody measures.
            let _ = CURRENT.try_with(|phases| phases.tls.set(&phases.watch));
        }
        self.cache.kx_hint(server)
    }

    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.cache.set_kx_hint(server, group);
    }

    fn set_tls12_session(&self, server: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.cache.set_tls12_session(server, value);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.cache.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.cache.remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.cache.insert_tls13_ticket(server, value);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.cache.take_tls13_ticket(server)
    }
}
