//! Many jobs called off at once.

use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::jobs::status;
use super::page::Page;
use super::problem::{Code, Problem};
use super::query::{Query, invalid};
use super::represent::json;
use super::resource::Call;
use crate::domain::id::JobId;
use crate::service::read::JobQuery;
use crate::service::view::{JobView, LinkBuilder, Links};

const PATH: &str = "/v1/jobs/cancel";
/// One of them is needed, so that nobody calls everything off by leaving something out.
const FILTERS: [&str; 5] = ["client", "status", "tag", "created_after", "created_before"];

/// How many jobs were called off, or would be.
#[derive(Serialize, ToSchema)]
#[schema(as = BulkCancel)]
pub(super) struct Answer {
    dry_run: bool,
    matched: usize,
    /// Of a dry run: the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    sample: Option<Vec<JobView>>,
    #[serde(flatten)]
    done: Option<Done>,
    page: PageInfo,
    #[serde(rename = "_links")]
    links: Links,
}

#[derive(Serialize, ToSchema)]
#[schema(as = BulkDone)]
struct Done {
    cancelled: usize,
    /// They are being worked on, and stop at their next step.
    stopping: usize,
    /// They ended by themselves meanwhile.
    skipped: usize,
}

#[derive(Serialize, ToSchema)]
#[schema(as = BulkPage)]
struct PageInfo {
    next_cursor: Option<String>,
    has_more: bool,
}

/// `POST /v1/jobs/cancel?status=&tag=&created_after=&created_before=&client=&dry_run=`: those that fit, newest first, a
/// bounded number of them; `_links.next` goes on with the rest.
pub(super) async fn cancel(call: Call) -> Result<Response, Problem> {
    let query = Query::parse(&call.query, &[&["cursor", "dry_run"], &FILTERS[..]].concat())?;
    if FILTERS.iter().all(|name| query.get(name).is_none()) {
        let detail = format!("at least one of {}", FILTERS.join(", "));
        return Err(Problem::of(Code::MissingFilter).with_detail(detail));
    }
    let dry_run = query.flag("dry_run")?;
    let page = Page::of(PATH, &query, &FILTERS)?;
    let status = query.get("status").map(status).transpose()?;
    if status.is_some_and(|status| status.is_terminal()) {
        return Err(invalid("status", "over", "queued or processing: others have ended"));
    }
    let wanted = JobQuery {
        client: call.only(query.get("client"))?,
        status,
        tag: query.get("tag").map(str::to_owned),
        created_after: query.time("created_after")?,
        created_before: query.time("created_before")?,
        before: page.id()?.map(JobId::from_bytes),
        ..JobQuery::default()
    };
    let done = call.service.cancel_jobs(call.caller()?, wanted, dry_run).await?;
    let next_cursor = done.next.map(|id| page.cursor(id.as_bytes()));
    let at = |dry_run: bool, cursor: Option<&str>| {
        let mut pairs = url::form_urlencoded::Serializer::new(String::new());
        pairs.extend_pairs(FILTERS.iter().filter_map(|name| Some((name, query.get(name)?))));
        pairs.extend_pairs(dry_run.then_some(("dry_run", "true")));
        pairs.extend_pairs(cursor.map(|cursor| ("cursor", cursor)));
        format!("{PATH}?{}", pairs.finish())
    };
    let mut links = LinkBuilder::new(call.reader()).get("jobs", "/v1/jobs");
    if let Some(cursor) = &next_cursor {
        links = links.post("next", &at(dry_run, Some(cursor)));
    }
    if dry_run {
        links = links.post("cancel", &at(false, None));
    }
    let sample = || done.sample.iter().map(|job| call.service.view_job(job, call.reader())).collect();
    Ok(json(&Answer {
        dry_run,
        matched: done.matched,
        sample: dry_run.then(sample),
        done: (!dry_run).then_some(Done {
            cancelled: done.cancelled,
            stopping: done.stopping,
            skipped: done.skipped,
        }),
        page: PageInfo { has_more: next_cursor.is_some(), next_cursor },
        links: links.build(),
    }))
}
