//! The event log, and the deliveries that follow from it.

use darkroom::domain::event::{Event, EventKind};
use darkroom::domain::id::JobId;
use darkroom::domain::job::NewJob;
use darkroom::store::Ending;

use crate::rig::{KEEP_DELETED, Rig, at, error, job, job_of, secs, telling, worker};

fn seqs(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

/// A job that goes through everything that is told of.
async fn whole_life(rig: &Rig, new: NewJob) -> JobId {
    let id = rig.ended(new, Ending::Failed(error()), at(1)).await.id;
    rig.retry_job(id, at(2)).await.unwrap();
    let claimed = rig.claim_one(at(3)).await;
    rig.finish(&claimed, Ending::Completed, at(4)).await;
    rig.delete_job(id, at(5)).await.unwrap();
    rig.restore_job(id, at(6)).await.unwrap();
    id
}

pub async fn the_log_tells_everything_in_order(rig: &Rig) {
    let one = whole_life(rig, job(1, at(1))).await;
    let other = rig.accept(job(2, at(7)), at(7)).await.id;
    rig.cancel_job(other, at(8)).await.unwrap();
    let log = rig.events_after(0, 100).await.unwrap();
    let told: Vec<_> =
        log.iter().map(|event| (event.job_id() == Some(one), event.kind.short_name())).collect();
    let life = ["queued", "started", "failed", "queued", "completed", "deleted", "restored"];
    let expected: Vec<_> =
        life.map(|kind| (true, kind)).into_iter().chain([(false, "queued"), (false, "cancelled")]).collect();
    assert_eq!(told, expected);
    assert!(log.is_sorted_by(|one, next| one.seq < next.seq && one.at <= next.at));
    assert_eq!(*rig.signals().events.borrow(), log.last().unwrap().seq);
    let mut ids: Vec<_> = log.iter().map(|event| event.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), log.len());
    let of_one: Vec<_> = log.iter().filter(|event| event.job_id() == Some(one)).cloned().collect();
    assert_eq!(rig.story(one).await, of_one);
}

pub async fn the_log_is_read_in_pages(rig: &Rig) {
    let one = whole_life(rig, job(1, at(1))).await;
    let other = rig.accept(job(2, at(7)), at(7)).await.id;
    rig.delete_job(one, at(8)).await.unwrap();
    let log = seqs(&rig.events_after(0, usize::MAX).await.unwrap());
    assert_eq!(log.len(), 9);
    assert_eq!(seqs(&rig.events_after(0, 4).await.unwrap()), log[..4]);
    assert_eq!(seqs(&rig.events_after(log[3], 4).await.unwrap()), log[4..8]);
    assert_eq!(seqs(&rig.events_after(log[7], 4).await.unwrap()), log[8..]);
    assert_eq!(rig.events_after(log[8], 4).await.unwrap(), []);
    assert_eq!(rig.events_after(u64::MAX, 4).await.unwrap(), []);
    // The other's event lies between this one's.
    assert_eq!(seqs(&rig.events_of(one, log[5], 9).await.unwrap()), [log[6], log[8]]);
    assert_eq!(seqs(&rig.events_of(one, 0, 2).await.unwrap()), log[..2]);
    assert_eq!(seqs(&rig.story(other).await), [log[7]]);
    assert_eq!(rig.events_of(one, u64::MAX, 9).await.unwrap(), []);
}

pub async fn a_place_in_the_log_is_never_given_twice(rig: &Rig) {
    let mut last = 0;
    for n in 0..3 {
        let now = at(1000 * i64::from(n));
        let id = rig.accept(job(n, now), now).await.id;
        rig.delete_job(id, now).await.unwrap();
        let log = rig.events_after(0, 100).await.unwrap();
        assert!(log[0].seq > last, "{} follows {last}", log[0].seq);
        last = log.last().unwrap().seq;
        // Everything goes, and the log is empty.
        assert_eq!(rig.purge(10, at(1000 * i64::from(n) + KEEP_DELETED)).await.unwrap().jobs, 1);
        assert_eq!(rig.events_after(0, 100).await.unwrap(), []);
        rig.reopen(at(1000 * i64::from(n) + KEEP_DELETED)).await;
        assert_eq!(*rig.signals().events.borrow(), last);
        // A step that is refused takes no place.
        assert!(rig.cancel_job(id, at(0)).await.is_err());
    }
    assert_eq!(last, 9);
}

pub async fn an_event_stays_as_it_was(rig: &Rig) {
    let new = NewJob { callback: telling(&[EventKind::JobQueued]), ..job(1, at(1)) };
    let id = rig.accept(new, at(1)).await.id;
    let before = rig.story(id).await;
    let shown = job_of(&before[0]).callback.as_ref().unwrap();
    assert_eq!(shown.secret, None, "no event has the secret");
    let attempt = rig.claim_attempt(at(2)).await;
    assert_eq!(shown.latest.unwrap().delivery, attempt.id, "it knows its own delivery");
    rig.delete_job(id, at(3)).await.unwrap();
    assert_eq!(rig.story(id).await[..1], before);
    let (_, event) = rig.claim_deliveries(worker(1), 1, secs(9), at(999)).await.unwrap().remove(0);
    assert_eq!(event, before[0]);
}

pub async fn each_wanted_kind_has_a_delivery_and_the_job_shows_the_latest(rig: &Rig) {
    let wanted = NewJob { callback: telling(&EventKind::OF_JOBS), ..job(1, at(1)) };
    let id = whole_life(rig, wanted).await;
    let story = rig.story(id).await;
    let deliveries = rig.deliveries_of(id).await.unwrap();
    assert_eq!(deliveries.iter().map(|d| d.event_seq).collect::<Vec<_>>(), seqs(&story), "oldest first");
    for (delivery, event) in deliveries.iter().zip(&story) {
        assert_eq!((delivery.event_id, delivery.event_kind), (event.id, event.kind));
        assert_eq!((delivery.job_id, delivery.next_attempt_at), (id, Some(event.at)));
        assert_eq!(delivery.secret, telling(&[]).unwrap().secret);
        assert_eq!(rig.delivery(delivery.id).await.unwrap().as_ref(), Some(delivery));
        let shown = job_of(event).callback.as_ref().unwrap().latest;
        assert_eq!(shown, Some(delivery.progress()), "each event shows its own delivery as the latest");
    }
    let shown = rig.stored(id).await.callback.unwrap().latest;
    assert_eq!(shown, Some(deliveries.last().unwrap().progress()));

    // Several in the same millisecond are in order too.
    let wanted = NewJob { callback: telling(&EventKind::OF_JOBS), ..job(2, at(9)) };
    let id = rig.accept(wanted, at(9)).await.id;
    for _ in 0..5 {
        rig.delete_job(id, at(9)).await.unwrap();
        rig.restore_job(id, at(9)).await.unwrap();
    }
    let deliveries = rig.deliveries_of(id).await.unwrap();
    let of_deliveries: Vec<_> = deliveries.iter().map(|delivery| delivery.event_seq).collect();
    assert_eq!(of_deliveries, seqs(&rig.story(id).await));
    assert_eq!(of_deliveries.len(), 12);
    let shown = rig.stored(id).await.callback.unwrap().latest;
    assert_eq!(shown, Some(deliveries.last().unwrap().progress()));

    // Only what was asked for.
    let wanted = NewJob { callback: telling(&[EventKind::JobCompleted]), ..job(3, at(10)) };
    let failed = rig.ended(wanted, Ending::Failed(error()), at(10)).await;
    assert_eq!(rig.deliveries_of(failed.id).await.unwrap(), []);
    assert_eq!(failed.callback.unwrap().latest, None);
}
