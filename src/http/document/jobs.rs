//! Jobs and their pictures.

use serde_json::{Value, json};

use super::form;
use super::operation::{Operation, refer};
use super::webhooks;
use crate::domain::id::{EventId, JobId};
use crate::domain::image::Format;
use crate::domain::job::JobStatus;
use crate::http::problem::Code;
use crate::http::{batch, bulk, deliveries, events, links, page};
use crate::service::view::{DeliveryView, JobView};

pub(super) fn operations() -> Vec<Operation> {
    let id = || form::string("^[a-z0-9][a-z0-9_-]{0,39}$");
    vec![
        submit(),
        batch(),
        cancel(),
        filters(Operation::get("/v1/jobs", "listJobs", "List jobs, the newest first").paged())
            .lists::<page::List<JobView>, JobView>("JobList", "A page of jobs."),
        job(Operation::get("/v1/jobs/{id}", "getJob", "Get a job").id::<JobId>(), 200, "The job.")
            .header("Cache-Control")
            .header("Preference-Applied")
            .header("Vary")
            .about("Deleted jobs are shown too, until they are purged.")
            .prefer()
            .header_param("If-None-Match", json!({"type": "string"}), "The `ETag` of what the client has.")
            .answer(304, "The client has it.", None)
            .header("ETag")
            .header("Cache-Control")
            .header("Preference-Applied")
            .header("Vary"),
        Operation::delete("/v1/jobs/{id}", "deleteJob", "Delete a job")
            .about("It is hidden from lists, and purged later. One that is not finished is cancelled.")
            .id::<JobId>()
            .if_match()
            .answer(204, "It is deleted, now or before.", None),
        changed("/v1/jobs/{id}/cancel", "cancelJob", "Cancel a job", 202)
            .about("One that is waiting is cancelled at once; one in work stops at its next step."),
        changed("/v1/jobs/{id}/restore", "restoreJob", "Take a deletion back", 200),
        changed("/v1/jobs/{id}/retry", "retryJob", "Work on a job again that failed or was cancelled", 202)
            .problems(&[Code::QueueFull, Code::Stopping, Code::Paused]),
        feed(Operation::get("/v1/jobs/{id}/events", "listJobEvents", "The events of a job").id::<JobId>()),
        feed(
            Operation::get("/v1/events", "listEvents", "The event log")
                .query_of::<JobId>("job_id", "Of this job.")
                .of_client()
                .problems(&[Code::NotFound]),
        ),
        Operation::get("/v1/jobs/{id}/deliveries", "listJobDeliveries", "The deliveries of a job")
            .id::<JobId>()
            .lists::<deliveries::List<DeliveryView>, DeliveryView>(
                "JobDeliveries",
                "All of them, the oldest first.",
            ),
        artifact(id()),
        Operation::post("/v1/jobs/{id}/links", "signLinks", "Make links to pictures that need no API key")
            .about("They are good for a time, or until the job is deleted. Nothing is kept of them.")
            .id::<JobId>()
            .takes::<links::Request>(false)
            .problems(&[Code::StateConflict, Code::Validation])
            .answers::<links::SignedView>(200, "The links."),
    ]
}

fn filters(operation: Operation) -> Operation {
    let flag = json!({"type": "boolean", "default": false});
    of_many(operation).query_of::<JobStatus>("status", "With this status.").query(
        "include_deleted",
        flag,
        "Also those that are deleted.",
    )
}

/// The filters of lists, and of what is done to many.
fn of_many(operation: Operation) -> Operation {
    operation
        .of_client()
        .query("tag", json!({"type": "string"}), "With this tag.")
        .query("created_after", form::time(), "Made after this time.")
        .query("created_before", form::time(), "Made before this time.")
}

/// An answer that is a job.
fn job(operation: Operation, status: u16, about: &str) -> Operation {
    operation.answers::<JobView>(status, about).header("ETag").header("Retry-After")
}

fn changed(path: &'static str, id: &'static str, summary: &str, status: u16) -> Operation {
    let operation =
        Operation::post(path, id, summary).id::<JobId>().if_match().problems(&[Code::StateConflict]);
    let operation = job(operation, status, "The job as it is now.").header("Cache-Control");
    if status == 202 { operation.header("Location") } else { operation }
}

fn feed(operation: Operation) -> Operation {
    operation
        .about("In the order of `seq`; `_links.next` is there even when nothing follows yet.")
        .query(
            "after",
            json!({"type": "integer", "minimum": 0, "maximum": u64::MAX, "default": 0}),
            "The `seq` of the last event you have.",
        )
        .limit()
        .query("types", form::event_types(), "Only these types, separated by commas.")
        .answers::<events::Feed>(200, "Events.")
}

fn submit() -> Operation {
    let mut operation = job(
        Operation::post("/v1/jobs", "submitJob", "Submit a picture"),
        202,
        "The job is durable. It is worked on from now on, or has ended if the client preferred to wait.",
    )
    .header("Location")
    .header("Cache-Control")
    .header("Idempotency-Replayed")
    .header("Preference-Applied")
    .header("Vary")
    .about(
        "A picture comes as the part `image` of a form, as the whole body with the fields in the query, or is \
         fetched from `source_url`. Query parameters go with a picture as the whole body alone.",
    )
    .idempotency_key()
    .prefer()
    .problems(&[
        Code::IdempotencyKeyInFlight,
        Code::MalformedMultipart,
        Code::MalformedJson,
        Code::RequestTimeout,
        Code::PayloadTooLarge,
        Code::UnsupportedMediaType,
        Code::MediaTypeMismatch,
        Code::Validation,
        Code::CallbackUrlRejected,
        Code::SourceUrlRejected,
        Code::ImageUndecodable,
        Code::ImageTooLarge,
        Code::QueueFull,
        Code::TooManyUploads,
        Code::Stopping,
        Code::Paused,
    ]);
    let schemas = &mut operation.schemas;
    let event_id = refer::<EventId>(schemas);
    let callbacks = webhooks::callbacks(&event_id);
    for (name, schema) in form::schemas() {
        schemas.insert(name.to_owned(), schema);
    }
    for (name, schema, about) in form::query() {
        operation = operation.query(name, schema, about);
    }
    operation.with("requestBody", form::body()).with("callbacks", callbacks)
}

fn batch() -> Operation {
    let mut operation = Operation::post("/v1/jobs/batch", "submitJobs", "Submit many pictures by their URLs")
        .about(
            "Each is accepted or refused for itself, and `items` has what became of it, in their order. As \
             NDJSON, each line is a `BatchJob`.",
        )
        .problems(&[
            Code::MalformedJson,
            Code::RequestTimeout,
            Code::PayloadTooLarge,
            Code::UnsupportedMediaType,
            Code::Validation,
            Code::QueueFull,
            Code::TooManyUploads,
            Code::Stopping,
            Code::Paused,
        ])
        .answers::<batch::Answer>(200, "None was accepted.")
        .answers::<batch::Answer>(202, "At least one was accepted, and is durable.");
    for (name, schema) in form::batch_schemas() {
        operation.schemas.insert(name.to_owned(), schema);
    }
    operation.with("requestBody", form::batch())
}

fn cancel() -> Operation {
    let flag = json!({"type": "boolean", "default": false});
    let status = json!({"type": "string", "enum": ["queued", "processing"]});
    of_many(Operation::post("/v1/jobs/cancel", "cancelJobs", "Cancel many jobs"))
        .about(
            "Those that fit all filters, of which there has to be one, the newest first. A call does a bounded \
             number of them; `_links.next` goes on with the rest.",
        )
        .query("status", status, "With this status.")
        .query("dry_run", flag, "Only count them, and show some.")
        .cursor()
        .problems(&[Code::MissingFilter])
        .answers::<bulk::Answer>(200, "What was done.")
}

fn artifact(name: Value) -> Operation {
    let mut operation =
        Operation::get("/v1/jobs/{id}/artifacts/{name}", "getArtifact", "Get a picture of a job")
            .id::<JobId>()
            .path_param("name", name, "`original`, or the name of a variant.")
            .header_param("If-None-Match", json!({"type": "string"}), "The `ETag` of what the client has.")
            .header_param(
                "Range",
                json!({"type": "string"}),
                "One range of bytes; several are answered with the whole.",
            )
            .header_param(
                "If-Range",
                json!({"type": "string"}),
                "The `ETag` of what the client has a part of.",
            )
            .query("expires", json!({"type": "string"}), "Of a signed link, as it has it.")
            .query("signature", json!({"type": "string"}), "Of a signed link, as it has it.")
            .about("Who has a signed link to it needs no API key.")
            .problems(&[Code::RangeNotSatisfiable, Code::LinkInvalid, Code::LinkExpired]);
    for (status, about) in [(200, "The picture."), (206, "The part that was asked for.")] {
        for format in [Format::Jpeg, Format::Png, Format::WebP, Format::Gif, Format::Avif] {
            operation = operation.answer(status, about, Some((format.media_type(), form::binary())));
        }
        for name in ["ETag", "Cache-Control", "Accept-Ranges", "Content-Disposition"] {
            operation = operation.header(name);
        }
    }
    let operation = operation.header("Content-Range");
    operation.answer(304, "The client has it.", None).header("ETag").header("Cache-Control")
}
