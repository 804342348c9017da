//! Fetching pictures: from a claim to the picture's place in the queue.
//!
//! The bytes are durable before the store is told of them, and what the store was told is not fetched again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::process::Stop;
use super::submit::{Received, check_sizes, input};
use super::vault::{Context, VaultError};
use super::{Service, ServiceError, view};
use crate::blobs::ORIGINAL;
use crate::domain::id::DestinationId;
use crate::domain::job::{Input, Job, Source};
use crate::domain::retry::RetryPolicy;
use crate::notify::webhook::guard::Guard;
use crate::notify::webhook::sender::Sender;
use crate::store::{Ending, FetchRoom, StoreError};

/// Sources that are remembered for having asked to be left alone; further ones are asked by each of their jobs.
const MAX_RESTING: usize = 256;

/// What clients see of a job meanwhile.
const STAGE: &str = "fetch";

/// How pictures are fetched.
pub struct Fetching {
    /// What asks for them.
    pub sender: Sender,
    /// Whether new jobs may have a source. Those that were accepted are fetched all the same.
    pub enabled: bool,
    /// How long the head of an answer may take.
    pub first_byte: Duration,
    /// Pictures on their way at once.
    pub concurrency: usize,
    /// Of one source: a client's origin.
    pub per_source: usize,
    /// When a fetch that failed for now is repeated.
    pub retry: RetryPolicy,
}

/// What of it goes on.
pub(super) struct Fetches {
    config: Option<Fetching>,
    taken: Arc<Mutex<BTreeMap<DestinationId, usize>>>,
    /// Sources that want to be left alone, and until when.
    resting: Mutex<BTreeMap<DestinationId, Timestamp>>,
}

/// One of the places of a source; free for its next when dropped.
struct Place {
    taken: Arc<Mutex<BTreeMap<DestinationId, usize>>>,
    source: DestinationId,
}

/// A job whose picture is to be fetched, and its place among those of its source.
pub struct Claim {
    job: Job,
    _place: Option<Place>,
}

impl Fetches {
    pub(super) fn new(config: Option<Fetching>) -> Self {
        Self { config, taken: Arc::default(), resting: Mutex::default() }
    }

    /// Where new jobs may have their source; `None`: nowhere.
    pub(super) fn guard(&self) -> Option<&Guard> {
        self.config.as_ref().filter(|config| config.enabled).map(|config| config.sender.guard())
    }

    pub(super) fn retry_policy(&self) -> Option<&RetryPolicy> {
        self.config.as_ref().map(|config| &config.retry)
    }

    fn resting(&self) -> MutexGuard<'_, BTreeMap<DestinationId, Timestamp>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rest(&self, source: DestinationId, until: Timestamp) {
        let mut resting = self.resting();
        if resting.len() < MAX_RESTING || resting.contains_key(&source) {
            resting.insert(source, until);
        }
    }

    /// What there is room for: a source that rests is one that has no place.
    fn room(&self, places: usize, now: Timestamp) -> FetchRoom {
        let per_source = self.config.as_ref().map_or(0, |config| config.per_source);
        let mut taken = self.taken().clone();
        let mut resting = self.resting();
        resting.retain(|_, until| *until > now);
        taken.extend(resting.keys().map(|source| (*source, per_source)));
        FetchRoom { places, per_source, taken }
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<DestinationId, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, source: DestinationId) -> Place {
        *self.taken().entry(source).or_default() += 1;
        Place { taken: Arc::clone(&self.taken), source }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left = taken.get(&self.source).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            taken.remove(&self.source);
        } else {
            taken.insert(self.source, left);
        }
    }
}

/// How a fetch ended that was not cut off.
type Fetched = (Received, Input);

impl Service {
    /// With the means to fetch pictures; without them a job brings its picture with it.
    #[must_use]
    pub fn with_fetching(self, fetching: Fetching) -> Self {
        Self { fetching: Fetches::new(Some(fetching)), ..self }
    }

    /// Pictures that may be on their way at once.
    #[must_use]
    pub fn fetches_at_once(&self) -> usize {
        self.fetching.config.as_ref().map_or(0, |config| config.concurrency)
    }

    /// Takes up to `places` jobs whose picture is to be fetched.
    pub async fn claim_fetches(&self, places: usize) -> Result<Vec<Claim>, ServiceError> {
        self.blobs.check_room()?;
        let now = self.clock.now();
        let room = self.fetching.room(places, now);
        let jobs = self.store.claim_fetches(self.worker, room, self.settings.lease, now).await?;
        let claim = |job: Job| Claim { _place: job.awaits().map(|source| self.fetching.place(source)), job };
        Ok(jobs.into_iter().map(claim).collect())
    }

    /// When there is next something to fetch, without a wake-up.
    pub async fn next_fetch_due(&self) -> Result<Option<Timestamp>, ServiceError> {
        let sweep = self.next_due().await?.sweep;
        let rested = self.fetching.resting().values().min().copied();
        Ok(sweep.into_iter().chain(rested).min())
    }

    /// Fetches a claimed job's picture, until that is done, is given back because `shutdown` was asked for, or is
    /// another worker's.
    pub async fn fetch(&self, claim: Claim, shutdown: &CancellationToken) {
        let job = &claim.job;
        let token = job.lease_token;
        let ending = match self.after_too_many(job) {
            Some(ending) => Some(ending),
            None => self.attempt_fetch(job, token, shutdown).await,
        };
        if let Some(ending) = ending {
            self.conclude(job.id, token, &ending).await;
        }
        drop(claim);
        // A source that had no place left may have another picture.
        self.signals().fetches.notify_one();
    }

    /// `None` when there is nothing to record: it is fetched, or another's by now.
    async fn attempt_fetch(&self, job: &Job, token: u64, shutdown: &CancellationToken) -> Option<Ending> {
        let called_off = self.begin(job.id);
        self.set_progress(job.id, view::Progress::running(0, job.variants.len(), Some(STAGE)));
        let deadline = job.deadline_at.unwrap_or(Timestamp::MAX);
        let fetched = tokio::select! {
            fetched = self.download(job) => fetched.map(Ok),
            stop = self.watch(job, token, shutdown, &called_off) => stop.map(Err),
            () = self.clock.sleep_until(deadline) => {
                self.end(job.id);
                // It fails in the store, which tells of it; the loop of deadlines does the same when this fails.
                return self.sweep_jobs().await.err().and(None);
            }
        };
        // Before others can take it up.
        self.end(job.id);
        let fetched = match fetched {
            Ok(Ok(fetched)) => self.keep_picture(job, token, fetched).await,
            Ok(Err(Stop::Shutdown)) => return Some(Ending::GivenBack(None)),
            Ok(Err(Stop::Cancelled)) => return Some(Ending::Cancelled),
            Ok(Err(Stop::LeaseLost | Stop::OutOfTime)) => return lost(job),
            Err(error) => Err(error),
        };
        match fetched {
            Ok(()) => None,
            Err(ServiceError::Store(StoreError::Transition(_))) => lost(job),
            Err(error) => {
                let until = self.clock.now().checked_add(error.retry_after()).unwrap_or(Timestamp::MAX);
                if let Some(source) = job.awaits().filter(|_| !error.retry_after().is_zero()) {
                    self.fetching.rest(source, until);
                }
                Some(self.after_failure(job, &error))
            }
        }
    }

    /// Receives the picture, and looks whether it is one.
    async fn download(&self, job: &Job) -> Result<Fetched, ServiceError> {
        let config = self.fetching.config.as_ref().ok_or(ServiceError::Stopping)?;
        let url = self.source_url(job)?;
        let limit = self.settings.max_upload_bytes;
        let mut download = config.sender.fetch(&url, limit, config.first_byte).await?;
        // Else each try would bring as much of it as there is room for.
        self.blobs.check_room_for(download.content_length().unwrap_or(limit))?;
        let mut upload = self.receive().await?;
        while let Some(chunk) = download.next().await? {
            upload.write(&chunk).await?;
        }
        drop(download);
        let (picture, probe) = self.probe(upload.finish().await?, job.handling).await?;
        check_sizes(&job.variants, job.preset.as_deref(), &probe)?;
        let watermarks = &self.settings.presets.watermarks;
        self.imaging.admit(&probe, picture.stored().bytes, &job.variants, watermarks)?;
        let input = input(job.source.as_ref().and_then(Source::filename), picture.stored(), &probe);
        Ok((picture, input))
    }

    fn source_url(&self, job: &Job) -> Result<Url, ServiceError> {
        let sealed =
            job.source.as_ref().and_then(|source| source.sealed.as_ref()).ok_or(VaultError::Damaged)?;
        let url = String::from_utf8(self.vault.open(sealed, Context::Source(job.id))?);
        Ok(url.ok().and_then(|url| Url::parse(&url).ok()).ok_or(VaultError::Damaged)?)
    }

    /// The picture is durable before the job says that it is there. It takes no longer than the lease, so that nobody
    /// else's picture is replaced.
    async fn keep_picture(&self, job: &Job, token: u64, fetched: Fetched) -> Result<(), ServiceError> {
        let (picture, input) = fetched;
        let until = self.clock.now().checked_add(self.settings.lease).unwrap_or(Timestamp::MAX);
        self.store.extend_job(job.id, token, until).await?;
        picture.store(&self.blobs, job.id, ORIGINAL).await?;
        let noted = self
            .when_there_is_room(|| self.store.picture_fetched(job.id, token, input.clone(), self.clock.now()))
            .await?;
        tracing::info!(job = %noted.id, status = noted.status.as_str(), bytes = input.bytes, "fetched");
        Ok(())
    }
}

fn lost(job: &Job) -> Option<Ending> {
    tracing::warn!(job = %job.id, "the lease was lost; another worker has the job");
    None
}
