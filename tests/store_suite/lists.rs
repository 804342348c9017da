//! Lists of jobs.

use std::cell::Cell;

use darkroom::domain::id::JobId;
use darkroom::domain::job::{Job, JobStatus, NewJob};
use darkroom::store::{Ending, JobQuery};

use crate::rig::{Rig, at, client, error, ids, job, job_id};

fn everything() -> JobQuery {
    JobQuery { include_deleted: true, limit: 100, ..JobQuery::default() }
}

pub async fn pages_hold_each_job_once_newest_first(rig: &Rig) {
    let jobs = rig.accept_all((0..10).map(|n| job(n, at(i64::from(n / 3)))), at(5)).await;
    let mut newest_first = ids(&jobs);
    newest_first.reverse();
    for limit in [1, 3, 5, 10, 11] {
        for of in [None, Some(client("a"))] {
            let query = JobQuery { client: of, limit, ..JobQuery::default() };
            assert_eq!(ids(&rig.list(query).await), newest_first, "pages of {limit}");
        }
    }
    let page = rig.jobs(JobQuery { limit: 3, ..JobQuery::default() }).await.unwrap();
    assert_eq!(ids(&page.jobs), newest_first[..3]);
    assert_eq!(page.next, Some(newest_first[2]));
    // The cursor need not be a job that is there.
    let from = JobQuery { before: Some(job_id(99, at(2))), ..everything() };
    assert_eq!(ids(&rig.list(from).await), newest_first[1..]);
    assert_eq!(rig.jobs(JobQuery { client: Some(client("b")), ..everything() }).await.unwrap().next, None);
}

/// Jobs of three clients in every state, with every number of tags, deleted and not.
async fn assortment(rig: &Rig) -> Vec<Job> {
    let endings =
        [Ending::Completed, Ending::Failed(error()), Ending::Cancelled, Ending::GivenBack(Some(at(999)))];
    let tags = [&[][..], &["x"], &["x", "y"]];
    let mut jobs = Vec::new();
    for n in 0..24_u32 {
        let accepted_at = at(i64::from(n / 4));
        let new = NewJob {
            client: client(["a", "ab", "b"][n as usize % 3]),
            tags: tags[n as usize / 2 % 3].iter().map(|tag| (*tag).to_owned()).collect(),
            ..job(n, accepted_at)
        };
        jobs.push(rig.ended(new, endings[n as usize % 4].clone(), accepted_at).await.id);
    }
    for id in jobs.iter().step_by(5) {
        rig.delete_job(*id, at(90)).await.unwrap();
    }
    let last = [24, 25].map(|n| job(n, at(7)));
    jobs.extend(ids(&rig.accept_all(last, at(7)).await));
    assert_eq!(rig.claim(1, at(7)).await.len(), 1);
    jobs.sort();
    let mut all = Vec::new();
    for id in jobs.iter().rev() {
        all.push(rig.stored(*id).await);
    }
    all
}

pub async fn every_filter_and_combination(rig: &Rig) {
    let all = assortment(rig).await;
    for status in JobStatus::ALL {
        assert!(all.iter().any(|job| job.status == status), "the assortment has one that is {status:?}");
    }
    let clients = [None, Some("a"), Some("ab"), Some("b"), Some("c")];
    let statuses = [None].into_iter().chain(JobStatus::ALL.map(Some));
    let spans = [(None, None), (Some(at(2)), None), (None, Some(at(4))), (Some(at(1)), Some(at(4)))];
    for status in statuses {
        for of in clients {
            for tag in [None, Some("x"), Some("y"), Some("xy")] {
                for (created_after, created_before) in spans {
                    for include_deleted in [false, true] {
                        let query = JobQuery {
                            client: of.map(client),
                            status,
                            tag: tag.map(str::to_owned),
                            created_after,
                            created_before,
                            include_deleted,
                            before: None,
                            limit: 4,
                        };
                        let wanted: Vec<_> = all.iter().filter(|job| query.matches(job)).cloned().collect();
                        assert_eq!(rig.list(query.clone()).await, wanted, "{query:?}");
                    }
                }
            }
        }
    }
}

pub async fn pages_are_stable_while_jobs_come_in(rig: &Rig) {
    let first = rig.accept_all((0..6).map(|n| job(n, at(1))), at(1)).await;
    for of in [None, Some(client("a"))] {
        let mut query = JobQuery { client: of, limit: 2, ..JobQuery::default() };
        let mut seen: Vec<JobId> = Vec::new();
        for n in 0..4 {
            let page = rig.jobs(query.clone()).await.unwrap();
            seen.extend(ids(&page.jobs));
            let Some(next) = page.next else { break };
            query.before = Some(next);
            // Newer ones, and one that moves from one state to another, shift nothing.
            rig.accept(job(100 + n, at(2)), at(2)).await;
            let moved = rig.claim(1, at(2)).await.remove(0);
            rig.finish(&moved, Ending::GivenBack(None), at(2)).await;
        }
        let old: Vec<_> = seen.iter().filter(|id| first.iter().any(|job| job.id == **id)).copied().collect();
        let mut expected = ids(&first);
        expected.reverse();
        assert_eq!(old, expected);
        let mut once = seen.clone();
        once.dedup();
        assert_eq!(once, seen);
        // For the second round, they are behind the cursor again.
        for job in rig.list(everything()).await.iter().filter(|job| job.id > expected[0]) {
            rig.delete_job(job.id, at(3)).await.unwrap();
        }
        rig.purge(100, at(9_999)).await.unwrap();
    }
}

pub async fn deleted_jobs_are_left_out_unless_asked_for(rig: &Rig) {
    let jobs = rig.accept_all((0..3).map(|n| job(n, at(1))), at(1)).await;
    let visible =
        |of: Option<&str>| JobQuery { client: of.map(client), include_deleted: false, ..everything() };
    rig.delete_job(jobs[1].id, at(2)).await.unwrap();
    for of in [None, Some("a")] {
        assert_eq!(ids(&rig.list(visible(of)).await), [jobs[2].id, jobs[0].id]);
        let query = JobQuery { client: of.map(client), ..everything() };
        assert_eq!(ids(&rig.list(query).await), [jobs[2].id, jobs[1].id, jobs[0].id]);
    }
    rig.restore_job(jobs[1].id, at(3)).await.unwrap();
    for of in [None, Some("a")] {
        assert_eq!(rig.list(visible(of)).await.len(), 3);
    }
    rig.delete_job(jobs[0].id, at(4)).await.unwrap();
    rig.purge(9, at(999)).await.unwrap();
    assert_eq!(
        ids(&rig.list(everything()).await),
        [jobs[2].id, jobs[1].id],
        "purged is gone from every list"
    );
}

pub async fn a_job_that_moves_on_is_in_every_list_once(rig: &Rig) {
    let jobs = rig.accept_all((0..20).map(|n| job(n, at(1))), at(1)).await;
    let mut expected = ids(&jobs);
    expected.reverse();
    let are_moving = Cell::new(true);
    let move_on = async {
        for _ in 0..rig.many(100) / 3 {
            let claimed = rig.claim(10, at(2)).await;
            let given_back = claimed.iter().map(|job| rig.finish(job, Ending::GivenBack(None), at(2)));
            futures_util::future::join_all(given_back).await;
        }
        are_moving.set(false);
    };
    let read = async {
        for of in [None, Some(client("a"))].into_iter().cycle() {
            let query = JobQuery { client: of, limit: 100, ..JobQuery::default() };
            assert_eq!(ids(&rig.jobs(query).await.unwrap().jobs), expected);
            if !are_moving.get() {
                break;
            }
        }
    };
    tokio::join!(move_on, read);
}
