//! Accepting jobs.

use darkroom::domain::event::EventKind;
use darkroom::domain::job::{JobStatus, NewJob, Priority};
use darkroom::store::{Ending, Idempotency, StoreError, Submission, Submitted};

use crate::engines::Engine;
use crate::rig::{KEEP_DELETED, Rig, at, client, job, job_id, job_of, telling};

pub async fn a_job_reads_back_with_its_event(rig: &Rig) {
    let new = NewJob {
        callback: telling(&EventKind::TERMINAL),
        priority: Priority::Low,
        deadline_ms: Some(60_000),
        tags: vec!["x".to_owned(), "y".to_owned(), "x".to_owned()],
        metadata: Some(r#"{"order":1}"#.to_owned()),
        ..job(1, at(5))
    };
    let accepted = rig.accept(new.clone(), at(5)).await;
    assert_eq!(rig.stored(new.id).await, accepted);
    assert_eq!((accepted.status, accepted.revision, accepted.attempt), (JobStatus::Queued, 1, 0));
    assert_eq!((accepted.created_at, accepted.deadline_at), (at(5), Some(at(65))));
    assert_eq!((&accepted.tags, &accepted.metadata), (&new.tags, &new.metadata));
    assert_eq!(rig.job(job_id(2, at(5))).await.unwrap(), None);

    let story = rig.story(new.id).await;
    assert_eq!(story.len(), 1);
    assert_eq!((story[0].kind, story[0].at, story[0].job_id()), (EventKind::JobQueued, at(5), Some(new.id)));
    assert_eq!(*job_of(&story[0]), accepted.snapshot(), "as it was, without its secret");
    assert_eq!(story[0].source, "http://127.0.0.1:8080");
    assert_eq!(rig.deliveries_of(new.id).await.unwrap(), [], "nobody asked to be told of this kind");
    assert_eq!(rig.waiting_jobs(), 1);
}

pub async fn a_repeated_key_finds_the_first_job(rig: &Rig) {
    let Submitted::Created(first) = rig.accept_keyed(job(1, at(1)), "k", 1, at(1)).await else {
        panic!("a new job")
    };
    assert_eq!(first.idempotency_key.as_deref(), Some("k"));
    assert_eq!(rig.accept_keyed(job(2, at(2)), "k", 1, at(2)).await, Submitted::Repeated(first.clone()));
    assert_eq!(rig.accept_keyed(job(3, at(2)), "k", 2, at(2)).await, Submitted::KeyReused);
    // The answer is the job as it is, not as it was.
    let running = rig.claim_one(at(3)).await;
    assert_eq!(rig.accept_keyed(job(4, at(3)), "k", 1, at(3)).await, Submitted::Repeated(running.clone()));
    let done = rig.finish(&running, Ending::Completed, at(4)).await;
    assert_eq!(rig.accept_keyed(job(5, at(4)), "k", 1, at(4)).await, Submitted::Repeated(done));
    let deleted = rig.delete_job(first.id, at(5)).await.unwrap();
    assert_eq!(rig.accept_keyed(job(6, at(5)), "k", 1, at(5)).await, Submitted::Repeated(deleted));
    assert_eq!(rig.accept_keyed(job(7, at(5)), "k", 2, at(5)).await, Submitted::KeyReused);

    for n in 2..=7 {
        for second in 2..=5 {
            assert_eq!(rig.job(job_id(n, at(second))).await.unwrap(), None);
        }
    }
    assert_eq!((rig.waiting_jobs(), rig.events_after(0, 100).await.unwrap().len()), (0, 4));
}

pub async fn a_key_is_the_clients_own(rig: &Rig) {
    let of = |name, n| NewJob { client: client(name), ..job(n, at(1)) };
    // One's name and key written behind one another are the other's.
    for (n, (name, key)) in (0..).zip([("a", "bc"), ("ab", "c"), ("a", "b"), ("a", "c"), ("ab", "bc")]) {
        let submitted = rig.accept_keyed(of(name, n), key, 1, at(1)).await;
        assert!(matches!(submitted, Submitted::Created(_)), "{name} {key}: {submitted:?}");
    }
    assert_eq!(rig.waiting_jobs(), 5);
}

pub async fn a_key_is_free_again_when_its_job_is_purged(rig: &Rig) {
    rig.accept_keyed(job(1, at(1)), "k", 1, at(1)).await;
    rig.accept_keyed(job(2, at(1)), "other", 1, at(1)).await;
    rig.delete_job(job_id(1, at(1)), at(2)).await.unwrap();
    assert_eq!(rig.purge(10, at(2 + KEEP_DELETED)).await.unwrap().jobs, 1);
    let now = at(3 + KEEP_DELETED);
    assert!(matches!(rig.accept_keyed(job(3, now), "k", 2, now).await, Submitted::Created(_)));
    assert!(matches!(rig.accept_keyed(job(4, now), "other", 1, now).await, Submitted::Repeated(_)));
}

/// Where an engine has a limit, it refuses before anything has changed.
pub async fn a_job_that_is_too_large_leaves_nothing(rig: &Rig) {
    if rig.engine == Engine::Memory {
        return;
    }
    rig.accept(job(1, at(1)), at(1)).await;
    let large = NewJob { metadata: Some("a".repeat(70 * 1024)), ..job(2, at(1)) };
    let idempotency = Idempotency { key: "k".to_owned(), fingerprint: [1; 32] };
    let refused = rig.submit(Submission { job: large, idempotency: Some(idempotency) }, at(1)).await;
    assert!(matches!(refused, Err(StoreError::RecordTooLarge { .. })), "{refused:?}");
    assert_eq!(rig.job(job_id(2, at(1))).await.unwrap(), None);
    assert_eq!(rig.waiting_jobs(), 1);
    assert!(matches!(rig.accept_keyed(job(3, at(2)), "k", 2, at(2)).await, Submitted::Created(_)));
    let seqs: Vec<_> = rig.events_after(0, 10).await.unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2]);
}
