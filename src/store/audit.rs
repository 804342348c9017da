//! Whether the parts of a job's story fit together, whatever engine keeps them.

use super::{Audit, Ledger};
use crate::domain::delivery::Delivery;
use crate::domain::event::{Event, EventKind};
use crate::domain::job::{Job, JobStatus};

/// Faults that are listed; where there are more, the store needs a restore and not a longer list.
const LISTED: usize = 100;

impl Audit {
    /// Notes a fault.
    pub fn fault(&mut self, fault: impl Into<String>) {
        if self.faults.len() < LISTED {
            self.faults.push(fault.into());
        }
    }

    /// Counts a job and checks its story: all of its events in order, and its deliveries, each with the number of
    /// attempts that are recorded.
    pub fn story(&mut self, job: &Job, events: &[Event], deliveries: &[(Delivery, usize)]) {
        *self.jobs.entry(job.status).or_default() += 1;
        let id = job.id;
        if job.status.is_terminal() != job.finished_at.is_some() {
            self.fault(format!("{id} is {} and does not say so by its end", job.status.as_str()));
        }
        if (job.status == JobStatus::Processing) != job.lease.is_some() {
            self.fault(format!("{id} is {} and its lease says otherwise", job.status.as_str()));
        }
        let told = events.iter().map(|event| event.kind).rfind(|kind| {
            !matches!(kind, EventKind::JobDeleted | EventKind::JobRestored | EventKind::DeliveryExhausted)
        });
        let fits = match job.status.ending() {
            Some(ending) => told == Some(ending),
            None => matches!(told, Some(EventKind::JobQueued | EventKind::JobStarted)),
        };
        if !fits {
            self.fault(format!("{id} is {}, and its last event is {told:?}", job.status.as_str()));
        }
        let gos = 1 + events.iter().skip(1).filter(|event| event.kind == EventKind::JobQueued).count();
        let endings = events.iter().filter(|event| EventKind::TERMINAL.contains(&event.kind)).count();
        if endings > gos {
            self.fault(format!("{id} ended {endings} times in {gos} goes"));
        }
        let wanted = job.callback.as_ref().map_or(&[][..], |callback| &callback.events);
        for event in events {
            let made = deliveries.iter().filter(|(delivery, _)| delivery.event_seq == event.seq).count();
            if made != usize::from(wanted.contains(&event.kind)) {
                self.fault(format!("{} of {id} has {made} deliveries", event.id));
            }
        }
        for (delivery, attempts) in deliveries {
            *self.deliveries.entry(delivery.state).or_default() += 1;
            if !events.iter().any(|event| event.seq == delivery.event_seq && event.id == delivery.event_id) {
                self.fault(format!("{} of {id} has no event", delivery.id));
            }
            if u32::try_from(*attempts) != Ok(delivery.attempt_count) {
                self.fault(format!(
                    "{} counts {} attempts, and {attempts} are recorded",
                    delivery.id, delivery.attempt_count
                ));
            }
            if delivery.state.is_terminal() != delivery.finished_at.is_some() {
                self.fault(format!(
                    "{} is {} and does not say so by its end",
                    delivery.id,
                    delivery.state.as_str()
                ));
            }
        }
        let shown = job.callback.as_ref().and_then(|callback| callback.latest).map(|latest| latest.delivery);
        let latest = deliveries.iter().max_by_key(|(delivery, _)| delivery.event_seq);
        let latest = latest.map(|(delivery, _)| delivery.id);
        if shown != latest {
            self.fault(format!("{id} shows {shown:?} as its latest delivery, and that is {latest:?}"));
        }
    }

    /// Checks that every delivery is accounted for: the ledger balances, and says what the records say.
    pub fn ledger(&mut self, ledger: Ledger) {
        let mut counted = Ledger::default();
        for (state, count) in &self.deliveries {
            for _ in 0..*count {
                counted.came(*state);
            }
        }
        if !ledger.is_balanced() || ledger != counted {
            self.fault(format!("the ledger has {ledger:?}, and there are {counted:?}"));
        }
    }
}
