//! What is done to a job that is there: cancel, retry, delete, restore.

use http::StatusCode;
use warp::reply::Response;

use super::conditional::expected_revisions;
use super::jobs::{job_id, represent};
use super::problem::Problem;
use super::query::Query;
use super::resource::Call;
use crate::domain::job::Job;
use crate::service::lifecycle::JobAction;

/// `POST /v1/jobs/{id}/cancel`: a running job stops at its next step, so this is accepted rather than done.
pub(super) async fn cancel(call: Call) -> Result<Response, Problem> {
    let job = change(&call, JobAction::Cancel).await?;
    Ok(represent(&call, &job, StatusCode::ACCEPTED).await)
}

/// `POST /v1/jobs/{id}/retry`
pub(super) async fn retry(call: Call) -> Result<Response, Problem> {
    // It waits again, as a new one does.
    let place = call.service.place(call.caller()?).await?;
    let job = change(&call, JobAction::Retry).await?;
    drop(place);
    Ok(represent(&call, &job, StatusCode::ACCEPTED).await)
}

/// `POST /v1/jobs/{id}/restore`
pub(super) async fn restore(call: Call) -> Result<Response, Problem> {
    let job = change(&call, JobAction::Restore).await?;
    Ok(represent(&call, &job, StatusCode::OK).await)
}

/// `DELETE /v1/jobs/{id}`: soft, and the same answer however often it is asked for.
pub(super) async fn delete(call: Call) -> Result<Response, Problem> {
    change(&call, JobAction::Delete).await?;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Does it, unless the job is another than the client knows (`If-Match`).
async fn change(call: &Call, action: JobAction) -> Result<Job, Problem> {
    Query::parse(&call.query, &[])?;
    let id = job_id(call)?;
    let at = expected_revisions(&call.headers, id);
    Ok(call.service.change_job(call.caller()?, id, action, at).await?)
}
