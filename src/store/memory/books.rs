//! The records, and every step over them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::entropy;
use crate::domain::audit::AuditEntry;
use crate::domain::client::{Client, ClientId};
use crate::domain::delivery::{Attempt, Delivery, DeliveryState};
use crate::domain::destination::Destination;
use crate::domain::dispatch::Dispatch;
use crate::domain::event::{Event, EventKind, Subject};
use crate::domain::id::{AuditId, DeliveryId, DestinationId, EventId, JobId, ReplayId, WorkerId};
use crate::domain::job::{Input, Job, JobError, JobStatus, Origin, TransitionError};
use crate::domain::replay::{Replay, ReplayItem};
use crate::domain::rotation::ClientSecrets;
use crate::domain::secret::Keyring;
use crate::store::{
    Audit, Ending, FetchRoom, Garbage, JobAction, JobPage, JobQuery, NextDue, Paused, Policy, Purged,
    StoreError, Submission, Submitted, Waiting,
};

/// How long a job is kept on whose callback is still on its way when its time has come.
const POSTPONED_BY: Duration = Duration::from_secs(3600);

mod deliveries;

/// All there is. Each step checks before it changes anything.
pub(super) struct Books {
    policy: Policy,
    pub(super) jobs: BTreeMap<JobId, Job>,
    /// By `seq`.
    pub(super) events: BTreeMap<u64, Event>,
    /// By the `seq` of the event: each has one at most.
    pub(super) deliveries: BTreeMap<u64, Delivery>,
    pub(super) destinations: BTreeMap<DestinationId, Destination>,
    dispatch: Dispatch,
    pub(super) replays: BTreeMap<ReplayId, Replay>,
    pub(super) replay_items: BTreeMap<(ReplayId, u64), ReplayItem>,
    replay_keys: BTreeMap<(ClientId, String), (ReplayId, [u8; 32])>,
    /// Events that belong to no job, by when they are removed.
    purge_events: BTreeSet<(Timestamp, u64)>,
    pub(super) attempts: BTreeMap<(DeliveryId, u32), Attempt>,
    pub(super) idempotency: BTreeMap<(ClientId, String), (JobId, [u8; 32])>,
    pub(super) garbage: BTreeMap<JobId, Garbage>,
    pub(super) secrets: BTreeMap<ClientId, ClientSecrets>,
    pub(super) clients: BTreeMap<ClientId, Client>,
    pub(super) actions: BTreeMap<AuditId, AuditEntry>,
    pub(super) keyring: Keyring,
    pub(super) paused: Paused,
    pub(super) last_seq: u64,
    /// Whose turn was the last.
    pub(super) turn: Option<ClientId>,
    /// Which source's was.
    pub(super) fetch_turn: Option<DestinationId>,
    pub(super) closed: bool,
}

impl Books {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            dispatch: Dispatch::new(policy.dispatch.clone(), 0),
            destinations: BTreeMap::new(),
            replays: BTreeMap::new(),
            replay_items: BTreeMap::new(),
            replay_keys: BTreeMap::new(),
            purge_events: BTreeSet::new(),
            policy,
            jobs: BTreeMap::new(),
            events: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            attempts: BTreeMap::new(),
            idempotency: BTreeMap::new(),
            garbage: BTreeMap::new(),
            secrets: BTreeMap::new(),
            clients: BTreeMap::new(),
            actions: BTreeMap::new(),
            keyring: Keyring::default(),
            paused: Paused::default(),
            last_seq: 0,
            turn: None,
            fetch_turn: None,
            closed: false,
        }
    }

    fn job(&self, id: JobId) -> Result<Job, StoreError> {
        self.jobs.get(&id).cloned().ok_or(StoreError::NotFound)
    }

    fn keep(&mut self, job: Job) -> Job {
        self.jobs.insert(job.id, job.clone());
        job
    }

    pub(super) fn change_job(
        &mut self,
        id: JobId,
        change: impl FnOnce(&mut Job) -> Result<(), TransitionError>,
    ) -> Result<Job, StoreError> {
        let mut job = self.job(id)?;
        change(&mut job)?;
        Ok(self.keep(job))
    }

    fn append(&mut self, kind: EventKind, subject: Subject, now: Timestamp) -> u64 {
        self.last_seq += 1;
        let (id, source) = (EventId::new(now, &entropy()), self.policy.source.clone());
        self.events.insert(self.last_seq, Event { id, seq: self.last_seq, kind, at: now, source, subject });
        self.last_seq
    }

    pub(super) fn submit<P: Into<Origin>>(
        &mut self,
        submission: Submission<P>,
        now: Timestamp,
    ) -> Result<Submitted, StoreError> {
        let mut job = Job::accepted(submission.job, now);
        if let Some(idempotency) = submission.idempotency {
            let key = (job.client.clone(), idempotency.key.clone());
            match self.idempotency.get(&key) {
                Some((_, fingerprint)) if *fingerprint != idempotency.fingerprint => {
                    return Ok(Submitted::KeyReused);
                }
                Some((known, _)) => return Ok(Submitted::Repeated(self.shown(&self.job(*known)?))),
                None => self.idempotency.insert(key, (job.id, idempotency.fingerprint)),
            };
            job.idempotency_key = Some(idempotency.key);
        }
        self.tell(&mut job, EventKind::JobQueued, now);
        Ok(Submitted::Created(self.keep(job)))
    }

    pub(super) fn claim_jobs(
        &mut self,
        worker: WorkerId,
        limit: usize,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        self.sweep(now)?;
        let mut claimed = Vec::new();
        while !self.paused.work
            && claimed.len() < limit
            && let Some(job) = self.next_ready()
        {
            self.turn = Some(job.client.clone());
            claimed.push(self.claim(job, worker, lease, now)?);
        }
        Ok(claimed)
    }

    pub(super) fn claim_fetches(
        &mut self,
        worker: WorkerId,
        mut room: FetchRoom,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        self.sweep(now)?;
        let mut claimed = Vec::new();
        while !self.paused.work
            && claimed.len() < room.places
            && let Some((source, job)) = self.next_to_fetch(&room)
        {
            self.fetch_turn = Some(source);
            room.take(source);
            claimed.push(self.claim(job, worker, lease, now)?);
        }
        Ok(claimed)
    }

    fn claim(
        &mut self,
        mut job: Job,
        worker: WorkerId,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Job, StoreError> {
        let is_first = job.started_at.is_none();
        job.claim(worker, later(now, lease), now)?;
        if is_first {
            self.tell(&mut job, EventKind::JobStarted, now);
        }
        Ok(self.keep(job))
    }

    /// The first job of the source, of those with room, that follows that of the last turn, or else of the first.
    fn next_to_fetch(&self, room: &FetchRoom) -> Option<(DestinationId, Job)> {
        let waiting = || self.jobs.values().filter_map(|job| Some((awaited(job)?, job)));
        let sources: BTreeSet<_> =
            waiting().map(|(source, _)| source).filter(|id| !room.is_full(*id)).collect();
        let next = sources.iter().find(|source| self.fetch_turn.is_none_or(|turn| turn < **source));
        let source = *next.or_else(|| sources.first())?;
        let of_it = waiting().filter(|(of, _)| *of == source).map(|(_, job)| job);
        of_it.min_by_key(|job| (job.priority, job.id)).map(|job| (source, job.clone()))
    }

    /// The first ready job of the client whose name follows that of the last turn, or else of the first client.
    fn next_ready(&self) -> Option<Job> {
        let ready = || self.jobs.values().filter(|job| is_ready(job));
        let clients: BTreeSet<_> = ready().map(|job| &job.client).collect();
        let next = clients.iter().find(|client| self.turn.as_ref().is_none_or(|turn| turn < client));
        let client = next.or_else(|| clients.first())?;
        ready().filter(|job| job.client == **client).min_by_key(|job| (job.priority, job.id)).cloned()
    }

    pub(super) fn finish(
        &mut self,
        id: JobId,
        token: u64,
        ending: Ending,
        now: Timestamp,
    ) -> Result<Job, StoreError> {
        let mut job = self.job(id)?;
        match ending {
            Ending::Completed => job.complete(token, now)?,
            Ending::Failed(error) => job.fail(token, error, now)?,
            Ending::RetryAt(error, due) => job.retry_later(token, error, due, now)?,
            Ending::Cancelled => job.stop_cancelled(token, now)?,
            Ending::GivenBack(due) => job.give_back(token, due, now)?,
        }
        self.conclude(&mut job, now);
        Ok(self.keep(job))
    }

    pub(super) fn fetched(
        &mut self,
        id: JobId,
        token: u64,
        input: Input,
        now: Timestamp,
    ) -> Result<Job, StoreError> {
        let mut job = self.job(id)?;
        job.fetched(token, input, now)?;
        self.conclude(&mut job, now);
        Ok(self.keep(job))
    }

    pub(super) fn change(
        &mut self,
        id: JobId,
        action: JobAction,
        expected: Option<&[u64]>,
        now: Timestamp,
    ) -> Result<Job, StoreError> {
        let mut job = self.job(id)?;
        if expected.is_some_and(|expected| !expected.contains(&self.shown(&job).revision)) {
            return Err(StoreError::Outdated);
        }
        match action {
            JobAction::Cancel => {
                job.cancel(now)?;
                self.conclude(&mut job, now);
            }
            JobAction::Retry => {
                job.retry(now)?;
                self.tell(&mut job, EventKind::JobQueued, now);
            }
            JobAction::Delete => {
                let had_ended = job.status.is_terminal();
                if job.delete(now, later(now, self.policy.keep_deleted)) {
                    if !had_ended {
                        self.conclude(&mut job, now);
                    }
                    self.tell(&mut job, EventKind::JobDeleted, now);
                }
            }
            JobAction::Restore => {
                job.restore(later(now, self.policy.keep_finished))?;
                self.tell(&mut job, EventKind::JobRestored, now);
            }
        }
        Ok(self.keep(job))
    }

    /// Of the same client those that go first, and of each other one as many as it has turns until then.
    pub(super) fn ahead_of(&self, id: JobId) -> Option<usize> {
        let job = self.jobs.get(&id).filter(|job| is_ready(job))?;
        let mut turns: BTreeMap<_, usize> = BTreeMap::new();
        for other in self.jobs.values().filter(|other| is_ready(other)) {
            if other.client != job.client || (other.priority, other.id) < (job.priority, job.id) {
                *turns.entry(&other.client).or_default() += 1;
            }
        }
        let own = turns.remove(&job.client).unwrap_or(0);
        Some(own + turns.into_values().map(|waiting| waiting.min(own + 1)).sum::<usize>())
    }

    pub(super) fn sweep(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.free_jobs(now, now)?;
        for job in self.jobs.values_mut() {
            if job.status == JobStatus::Queued && job.due_at.is_some_and(|due| due <= now) {
                job.become_ready()?;
            }
        }
        let deadline = |job: &Job| job.deadline_at.filter(|_| !job.status.is_terminal());
        for mut job in due(&self.jobs, deadline, now) {
            job.expire(JobError::deadline_exceeded(job.deadline_ms.unwrap_or(0)), now)?;
            self.conclude(&mut job, now);
            self.keep(job);
        }
        Ok(())
    }

    /// Takes the jobs from their workers whose leases run until `until` at most.
    pub(super) fn free_jobs(&mut self, until: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        for mut job in due(&self.jobs, |job| job.lease.map(|lease| lease.until), until) {
            job.lose_worker(now)?;
            self.conclude(&mut job, now);
            self.keep(job);
        }
        Ok(())
    }

    fn conclude(&mut self, job: &mut Job, now: Timestamp) {
        if let Some(kind) = job.status.ending() {
            job.keep_until(later(now, self.policy.keep_finished));
            self.tell(job, kind, now);
        }
    }

    fn tell(&mut self, job: &mut Job, kind: EventKind, now: Timestamp) {
        let subject = |job: &Job| Subject::Job(Box::new(job.snapshot()));
        let seq = self.append(kind, subject(job), now);
        if !job.callback.as_ref().is_some_and(|callback| callback.events.contains(&kind)) {
            return;
        }
        // What the job showed of the one before goes on counting.
        let before = job.callback.as_ref().and_then(|callback| callback.latest);
        let before = before.and_then(|latest| self.delivery(latest.delivery).ok());
        job.revision += before.map_or(0, |delivery| delivery.shown_revision());
        let (client, id) = (job.client.clone(), job.id);
        if let (Some(callback), Some(event)) = (job.callback.as_mut(), self.events.get(&seq).cloned()) {
            let delivery = Delivery::of(&event, &client, id, callback, DeliveryId::new(now, &entropy()));
            callback.latest = Some(delivery.progress());
            self.keep_delivery(delivery);
            self.events.insert(seq, Event { subject: subject(job), ..event });
        }
    }

    pub(super) fn list(&self, query: &JobQuery) -> JobPage {
        let older = |job: &&Job| query.before.is_none_or(|before| job.id < before);
        let mut found = self.jobs.values().rev().filter(older).filter(|job| query.matches(job));
        let jobs: Vec<_> = found.by_ref().take(query.limit).map(|job| self.shown(job)).collect();
        let next = found.next().and_then(|_| jobs.last()).map(|job| job.id);
        JobPage { jobs, next }
    }

    pub(super) fn purge(&mut self, limit: usize, now: Timestamp) -> Purged {
        let purge_at = |job: &Job| job.purge_at.filter(|_| job.status.is_terminal());
        let mut purged = Purged::default();
        for mut job in due(&self.jobs, purge_at, now).into_iter().take(limit) {
            let deliveries = self.deliveries_of(job.id);
            let waiting: Vec<_> = deliveries.iter().filter(|one| !one.state.is_terminal()).collect();
            if !waiting.is_empty() {
                let keep = self.policy.keep_undelivered;
                let is_held = |one: &Delivery| {
                    self.dispatch.destination(one.destination_id()).is_some_and(Destination::is_held)
                };
                let overdue = waiting.iter().filter(|one| one.is_overdue(keep, now) && is_held(one));
                let overdue: Vec<_> = overdue.collect();
                let is_last = overdue.len() == waiting.len();
                job.purge_at = Some(later(now, if is_last { keep.max(POSTPONED_BY) } else { POSTPONED_BY }));
                self.keep(job);
                overdue.into_iter().for_each(|delivery| self.give_up(delivery.id, now));
                continue;
            }
            self.events.retain(|_, event| event.job_id() != Some(job.id));
            self.deliveries.retain(|_, delivery| delivery.job_id != job.id);
            self.attempts.retain(|(id, _), _| deliveries.iter().all(|delivery| delivery.id != *id));
            self.idempotency.retain(|_, (id, _)| *id != job.id);
            self.jobs.remove(&job.id);
            let wanted = job.variants.into_iter().map(|variant| variant.name);
            let made = job.artifacts.into_iter().map(|artifact| artifact.name);
            let names: BTreeSet<_> = wanted.chain(made).chain(["original".to_owned()]).collect();
            self.garbage.insert(job.id, Garbage { job: job.id, names: names.into_iter().collect() });
            purged.jobs += 1;
        }
        while let Some((at, seq)) = self.purge_events.first().copied().filter(|(at, _)| *at <= now) {
            self.purge_events.remove(&(at, seq));
            self.events.remove(&seq);
        }
        let kept =
            |replay: &Replay| replay.finished_at.is_none_or(|at| later(at, self.policy.keep_finished) > now);
        self.replays.retain(|_, replay| kept(replay));
        self.replay_items.retain(|(id, _), _| self.replays.contains_key(id));
        self.replay_keys.retain(|_, (id, _)| self.replays.contains_key(id));
        purged.more = !due(&self.jobs, purge_at, now).is_empty();
        purged
    }

    pub(super) fn next_due(&self) -> NextDue {
        let is_ready = !self.paused.work && self.jobs.values().any(is_ready);
        let times = self.jobs.values().flat_map(|job| {
            let waits = job.due_at.filter(|_| job.status == JobStatus::Queued);
            let deadline = job.deadline_at.filter(|_| !job.status.is_terminal());
            [waits, deadline, job.lease.map(|lease| lease.until)]
        });
        let sweep = times.flatten().min();
        let deadlines = self.jobs.values().filter(|job| !job.status.is_terminal());
        NextDue {
            job: if is_ready { Some(Timestamp::UNIX_EPOCH) } else { sweep },
            sweep,
            delivery: self.dispatch.next_due(),
            deadline: deadlines.filter_map(|job| job.deadline_at).min(),
        }
    }

    pub(super) fn events_of(&self, job: JobId) -> Vec<Event> {
        self.events.values().filter(|event| event.job_id() == Some(job)).cloned().collect()
    }

    /// The jobs that wait for a worker, and until when.
    pub(super) fn waiting(&self) -> BTreeSet<(JobId, Option<Timestamp>)> {
        let queued = self.jobs.values().filter(|job| job.status == JobStatus::Queued);
        queued.map(|job| (job.id, job.due_at)).collect()
    }

    pub(super) fn count_waiting(&self) -> Waiting {
        let queued = || self.jobs.values().filter(|job| job.status == JobStatus::Queued);
        let fetches = queued().filter(|job| job.awaits().is_some()).count() as u64;
        Waiting { work: queued().count() as u64 - fetches, fetches }
    }

    pub(super) fn audit(&self) -> Audit {
        let mut audit = Audit::default();
        for job in self.jobs.values() {
            let with_attempts = |delivery: Delivery| {
                let attempts = self.attempts_of(delivery.id).len();
                (delivery, attempts)
            };
            let own = self.deliveries.values().filter(|delivery| delivery.job_id == job.id);
            let deliveries: Vec<_> = own.cloned().map(with_attempts).collect();
            audit.story(job, &self.events_of(job.id), &deliveries);
            let known = job.idempotency_key.as_ref().and_then(|key| {
                self.idempotency.get(&(job.client.clone(), key.clone())).map(|(known, _)| *known)
            });
            if known != job.idempotency_key.as_ref().map(|_| job.id) {
                audit.fault(format!("the idempotency key of {} is not its own", job.id));
            }
        }
        let of_deliveries = self.attempts.keys().map(|(id, _)| *id);
        let is_of_none = |event: &&Event| event.job_id().is_some_and(|id| !self.jobs.contains_key(&id));
        let orphans = self.events.values().filter(is_of_none).count()
            + self.deliveries.values().filter(|delivery| !self.jobs.contains_key(&delivery.job_id)).count()
            + self.idempotency.values().filter(|(job, _)| !self.jobs.contains_key(job)).count()
            + of_deliveries.filter(|id| self.deliveries.values().all(|delivery| delivery.id != *id)).count();
        if orphans > 0 {
            audit.fault(format!("{orphans} records belong to nothing"));
        }
        audit.ledger(self.ledger());
        audit
    }
}

fn is_ready(job: &Job) -> bool {
    job.status == JobStatus::Queued && job.due_at.is_none() && job.input.is_some()
}

/// The source that a job waits for, and for nothing else.
fn awaited(job: &Job) -> Option<DestinationId> {
    job.awaits().filter(|_| job.status == JobStatus::Queued && job.due_at.is_none())
}

fn pending_until(delivery: &Delivery) -> Option<Timestamp> {
    delivery.next_attempt_at.filter(|_| delivery.state == DeliveryState::Pending)
}

/// The records whose time is `now` or earlier, the earliest first.
fn due<K, R: Clone>(
    records: &BTreeMap<K, R>,
    time: impl Fn(&R) -> Option<Timestamp>,
    now: Timestamp,
) -> Vec<R> {
    let mut due: Vec<_> =
        records.values().filter(|record| time(record).is_some_and(|time| time <= now)).cloned().collect();
    due.sort_by_key(|record| time(record));
    due
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| now.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}
