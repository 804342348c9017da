//! The use-cases. Everything that starts work (a request, an operator, time) drives these, and only these.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::blobs::Blobs;
use crate::clock::Clock;
use crate::domain::id::{JobId, WorkerId};
use crate::domain::image::Limits;
use crate::domain::retry::RetryPolicy;
use crate::domain::secret::SigningSecret;
use crate::imaging::Pool;
use crate::notify::webhook::guard::Guard;
use crate::notify::webhook::sender::Sender;
use crate::store::{Signals, Store};

pub mod backup;
pub mod deliver;
pub mod error;
pub mod intake;
pub mod process;
pub mod read;
pub mod submit;
pub mod view;

pub use error::ServiceError;

/// The rooms below, as the use-cases need them.
pub struct Parts {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The pictures.
    pub blobs: Blobs,
    /// The threads that decode and encode.
    pub imaging: Pool,
    /// Where callbacks may go.
    pub guard: Guard,
    /// What makes one attempt.
    pub sender: Sender,
    /// The time.
    pub clock: Clock,
    /// Signs callbacks whose job brought no secret.
    pub signing_secret: SigningSecret,
}

/// The numbers that the use-cases keep to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What every link begins with, without a slash at the end.
    pub base_url: String,
    /// Where a signing secret that was made here is kept, for backups.
    pub signing_secret_file: PathBuf,
    /// What a picture may cost.
    pub limits: Limits,
    /// The largest picture, in bytes.
    pub max_upload_bytes: u64,
    /// How long an upload may stand still.
    pub body_idle: Duration,
    /// How long an upload may take in all.
    pub body_whole: Duration,
    /// Jobs that may wait.
    pub queue_capacity: u64,
    /// How long a claim lasts without a heartbeat.
    pub lease: Duration,
    /// How often a running job's lease is extended.
    pub heartbeat: Duration,
    /// How long one attempt of a delivery may take, its record included.
    pub attempt_lease: Duration,
    /// When a failed try of a job is repeated.
    pub job_retry: RetryPolicy,
    /// When a failed attempt of a delivery is repeated.
    pub delivery_retry: RetryPolicy,
}

/// The use-cases over their parts.
pub struct Service {
    store: Arc<dyn Store>,
    blobs: Blobs,
    imaging: Pool,
    guard: Guard,
    sender: Sender,
    clock: Clock,
    signing_secret: SigningSecret,
    settings: Settings,
    worker: WorkerId,
    intake: intake::Intake,
    progress: Mutex<HashMap<JobId, view::Progress>>,
    ready: AtomicBool,
}

impl Service {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts, settings: Settings) -> Self {
        let Parts { store, blobs, imaging, guard, sender, clock, signing_secret } = parts;
        let worker = WorkerId::new(clock.now(), &crate::clock::entropy());
        Self {
            intake: intake::Intake::new(settings.queue_capacity),
            progress: Mutex::default(),
            ready: AtomicBool::new(true),
            store,
            blobs,
            imaging,
            guard,
            sender,
            clock,
            signing_secret,
            settings,
            worker,
        }
    }

    /// What wakes the loops.
    #[must_use]
    pub fn signals(&self) -> &Signals {
        self.store.signals()
    }

    /// The time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What everyone keeps to.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many jobs can run at once.
    #[must_use]
    pub fn job_threads(&self) -> usize {
        self.imaging.threads()
    }

    /// Takes no more jobs in; what was accepted goes on.
    pub fn stop_intake(&self) {
        self.ready.store(false, std::sync::atomic::Ordering::Release);
    }

    /// Whether jobs are taken in.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(std::sync::atomic::Ordering::Acquire)
    }

    /// How far a running job is; `None` when it does not run here.
    fn progress_of(&self, job: JobId) -> Option<view::Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).get(&job).copied()
    }

    fn set_progress(&self, job: JobId, progress: Option<view::Progress>) {
        let mut all = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Some(progress) => all.insert(job, progress),
            None => all.remove(&job),
        };
    }
}
