//! Where a job stands in the queue.

use super::engine::Engine;
use super::{jobs, keys};
use crate::domain::id::JobId;
use crate::domain::job::Priority;
use crate::store::StoreError;

/// How many jobs are taken up before one that is ready, counted up to `limit`: of the same client those that go first,
/// and of each other one as many as it has turns until then.
pub(super) fn ahead_of(engine: &Engine, id: JobId, limit: usize) -> Result<Option<usize>, StoreError> {
    let Some(job) = jobs::get(engine, id)? else { return Ok(None) };
    let place = keys::job_ready(&job.client, job.priority, id);
    if engine.get_raw(&place)?.is_none() {
        return Ok(None);
    }
    let own = keys::job_ready_prefix(&job.client, Priority::High);
    let count = |range, most: usize| {
        engine.scan(range).take(most).try_fold(0, |count, entry| entry.map(|_| count + 1))
    };
    let first = count(own..place.clone(), limit)?;
    let all = keys::all(keys::JOB_READY);
    let (mut ahead, mut from) = (first, all.start);
    while ahead < limit
        && let Some(next) = engine.first_key(from..all.end.clone())?
    {
        let end = keys::end_of_turn(&next);
        if !(&next[..]..&end[..]).contains(&&place[..]) {
            ahead += count(next.to_vec()..end.clone(), (first + 1).min(limit - ahead))?;
        }
        from = end;
    }
    Ok(Some(ahead))
}
