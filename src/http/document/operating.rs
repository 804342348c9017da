//! Running the service, and finding one's way.

use serde_json::{Value, json};

use super::operation::Operation;
use crate::http::problem::{CATALOGUE, Code};
use crate::http::{books, queue, root};

pub(super) fn operating() -> Vec<Operation> {
    let recount = json!({"type": "boolean", "default": false});
    let what = || json!({"type": "string", "enum": ["intake", "work"]});
    vec![
        Operation::get("/v1/ledger", "getLedger", "Whether every delivery is accounted for")
            .query(
                "recount",
                recount,
                "Also count every record anew; it takes time in proportion to the store.",
            )
            .answers::<books::Ledger>(200, "The ledger."),
        Operation::get("/v1/queue", "getQueue", "How much waits").answers::<queue::Queue>(200, "The queue."),
        Operation::post("/v1/queue/pause", "pauseQueue", "Take in no jobs, or begin none")
            .query("what", what(), "Both, unless one is named.")
            .answers::<queue::Queue>(200, "The queue as it is now."),
        Operation::post("/v1/queue/resume", "resumeQueue", "Take in and work on jobs again")
            .query("what", what(), "Both, unless one is named.")
            .answers::<queue::Queue>(200, "The queue as it is now."),
        Operation::get("/v1/backup", "getBackup", "The whole store as a file")
            .problems(&[Code::BackupRunning, Code::StorageFull])
            .answer(200, "The export.", Some(("application/x-tar", super::form::binary())))
            .header("Content-Disposition")
            .header("Cache-Control"),
        text(
            Operation::get("/metrics", "getMetrics", "Metrics for Prometheus").without_query(),
            "In its text format.",
        ),
    ]
}

pub(super) fn service() -> Vec<Operation> {
    let open = |path, id, summary| Operation::get(path, id, summary).without_query();
    let document = || json!({"type": "object"});
    let slugs: Vec<_> = CATALOGUE.iter().map(|row| row.slug).collect();
    vec![
        open("/", "getRoot", "Where to start: links, and what there is")
            .answers::<root::Root<'static>>(200, "The service."),
        open("/health/live", "getLiveness", "Whether the process answers")
            .answers::<root::Health>(200, "It does."),
        open("/health/ready", "getReadiness", "Whether requests are served")
            .problems(&[Code::Stopping])
            .answers::<root::Health>(200, "They are."),
        open("/openapi.json", "getOpenApi", "This document").answer(
            200,
            "OpenAPI 3.1.",
            Some(("application/json", document())),
        ),
        open("/asyncapi.json", "getAsyncApi", "What is sent and fed, as AsyncAPI describes it").answer(
            200,
            "AsyncAPI 3.0.",
            Some(("application/json", document())),
        ),
        html(open("/docs", "getDocs", "This document as a page"), "The page."),
        html(
            text(
                open("/problems/{code}", "getProblem", "What a problem means"),
                "What it means, and what to do.",
            ),
            "",
        )
        .path_param(
            "code",
            json!({"type": "string", "enum": slugs}),
            "The `code` of a problem document.",
        ),
    ]
}

fn text(operation: Operation, about: &str) -> Operation {
    operation.answer(200, about, Some(("text/plain", string())))
}

fn html(operation: Operation, about: &str) -> Operation {
    operation.answer(200, about, Some(("text/html", string())))
}

fn string() -> Value {
    json!({"type": "string"})
}
