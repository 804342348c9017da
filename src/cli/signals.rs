//! The signals that ask a process to stop, or to look at its files.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT (Ctrl-C) and SIGTERM, from the moment this exists.
pub(super) struct StopSignals {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
}

#[cfg(unix)]
impl StopSignals {
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Returns at the next signal.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl StopSignals {
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Returns at the next Ctrl-C.
    pub(super) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

/// SIGHUP, from the moment this exists. Systems without it have none.
pub(super) struct HangUps(#[cfg(unix)] Signal);

impl HangUps {
    #[cfg(unix)]
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    #[cfg(not(unix))]
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self())
    }

    /// Returns at the next signal; never, where none is waited for.
    pub(super) async fn next(this: Option<&mut Self>) {
        #[cfg(unix)]
        if let Some(Self(signal)) = this {
            signal.recv().await;
            return;
        }
        #[cfg(not(unix))]
        let _ = this;
        std::future::pending::<()>().await;
    }
}
