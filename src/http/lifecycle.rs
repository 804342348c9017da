//! What is done to a job that is there: cancel, retry, delete, restore.

use http::StatusCode;
use warp::reply::Response;

use super::jobs::{job_id, represent};
use super::problem::Problem;
use super::query::Query;
use super::resource::Call;

/// `POST /v1/jobs/{id}/cancel`: a running job stops at its next step, so this is accepted rather than done.
pub(super) async fn cancel(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let job = call.service.cancel_job(call.caller()?, job_id(&call)?).await?;
    Ok(represent(&call, &job, StatusCode::ACCEPTED))
}

/// `POST /v1/jobs/{id}/retry`
pub(super) async fn retry(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let job = call.service.retry_job(call.caller()?, job_id(&call)?).await?;
    Ok(represent(&call, &job, StatusCode::ACCEPTED))
}

/// `POST /v1/jobs/{id}/restore`
pub(super) async fn restore(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let job = call.service.restore_job(call.caller()?, job_id(&call)?).await?;
    Ok(represent(&call, &job, StatusCode::OK))
}

/// `DELETE /v1/jobs/{id}`: soft, and the same answer however often it is asked for.
pub(super) async fn delete(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    call.service.delete_job(call.caller()?, job_id(&call)?).await?;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
