//! How fast the queue drains, so that clients are told when it is worth to ask again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::Service;
use crate::domain::job::{Job, JobStatus};

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// While an operator holds the work up.
const WHEN_PAUSED: Duration = Duration::from_secs(30);
/// What one more measurement counts for: an eighth, as in TCP's estimate of a round trip (RFC 6298).
const WEIGHT: u32 = 8;
/// Jobs that are counted in front of one; behind more of them, all that wait are.
const MOST_COUNTED: usize = 200;

/// The time between the ends of two jobs while others wait: what each place in the queue costs.
#[derive(Debug, Default)]
pub(super) struct Drain(Mutex<Measured>);

#[derive(Debug, Default)]
struct Measured {
    /// Exponentially weighted.
    mean: Option<Duration>,
    /// When the last job ended, if others waited then: the time that nothing waits is no measure.
    last: Option<Timestamp>,
}

impl Drain {
    /// A job has ended, and others wait or not.
    pub(super) fn ended(&self, now: Timestamp, others_wait: bool) {
        let mut measured = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = measured.last {
            let sample = since(last, now).min(LONGEST);
            measured.mean = Some(measured.mean.map_or(sample, |mean| mean - mean / WEIGHT + sample / WEIGHT));
        }
        measured.last = others_wait.then_some(now);
    }

    /// How long until so many jobs are taken up: whole seconds, from 1 to 60. `None` before anything was measured.
    pub(super) fn wait_for(&self, places: u64, now: Timestamp) -> Option<Duration> {
        let measured = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A queue that stands still is not as fast as it was.
        let each = measured.mean?.max(measured.last.map_or(Duration::ZERO, |last| since(last, now)));
        let all = each.saturating_mul(u32::try_from(places).unwrap_or(u32::MAX));
        Some(whole_seconds(all))
    }
}

impl Service {
    /// When it is worth to look at a job again; `None` once its story is over. One that was accepted just now is the last
    /// of the queue.
    pub async fn poll_after(&self, job: &Job, just_accepted: bool) -> Option<Duration> {
        if job.status.is_terminal() {
            return None;
        }
        let now = self.clock.now();
        if let Some(due) = job.due_at {
            return Some(whole_seconds(since(now, due)));
        }
        if job.status == JobStatus::Processing || job.awaits().is_some() {
            return Some(SHORTEST);
        }
        if self.paused().work {
            return Some(WHEN_PAUSED);
        }
        let waiting = self.waiting().work;
        let place = if just_accepted {
            waiting
        } else {
            // A place that cannot be told is no reason to refuse the job itself.
            let ahead = self.store.ahead_of(job.id, MOST_COUNTED).await.ok().flatten();
            let ahead = ahead.map_or(0, |ahead| u64::try_from(ahead).unwrap_or(u64::MAX));
            if ahead < MOST_COUNTED as u64 { ahead + 1 } else { waiting }
        };
        Some(self.drain.wait_for(place, now).unwrap_or(SHORTEST))
    }
}

fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

fn whole_seconds(time: Duration) -> Duration {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    Duration::from_secs(seconds).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::tests::at;

    fn wait(drain: &Drain, places: u64, now: i64) -> Option<u64> {
        drain.wait_for(places, at(now)).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_place_costs_what_the_places_before_it_took() {
        let drain = Drain::default();
        drain.ended(at(100), true);
        assert_eq!(wait(&drain, 1, 100), None, "one end is no interval");
        for end in 1..=20 {
            drain.ended(at(100 + 2 * end), true);
        }
        assert_eq!(wait(&drain, 1, 140), Some(2));
        assert_eq!(wait(&drain, 7, 140), Some(14));
        assert_eq!(wait(&drain, 1000, 140), Some(60));
        assert_eq!(wait(&drain, u64::MAX, 140), Some(60));
    }

    #[test]
    fn it_follows_the_rate_and_notices_a_standstill() {
        let drain = Drain::default();
        (0..10).for_each(|end| drain.ended(at(end), true));
        assert_eq!(wait(&drain, 3, 9), Some(3));
        assert_eq!(wait(&drain, 3, 14), Some(15), "five seconds without an end");
        for end in 1..=40 {
            drain.ended(at(9 + 4 * end), true);
        }
        assert_eq!(wait(&drain, 3, 169), Some(12));
    }

    #[test]
    fn time_in_which_nothing_waits_is_no_measure() {
        let drain = Drain::default();
        drain.ended(at(0), true);
        drain.ended(at(2), false);
        drain.ended(at(10_000), true);
        assert_eq!(wait(&drain, 1, 10_000), Some(2));
        assert_eq!(wait(&drain, 0, 10_000), Some(1));
    }
}
