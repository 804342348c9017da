//! What becomes of callbacks: deliveries, destinations, replays; secrets, and trying a URL.

use serde_json::{Value, json};

use super::form;
use super::operation::Operation;
use crate::domain::delivery::ErrorClass;
use crate::domain::id::{DeliveryId, DestinationId, JobId, ReplayId};
use crate::http::problem::Code;
use crate::http::{callbacks, deliveries, page, replays, secrets};
use crate::service::view::{AttemptView, DeliveryView, DestinationView, ReplayItemView, ReplayView};

pub(super) fn deliveries() -> Vec<Operation> {
    let force = json!({"type": "boolean", "default": false});
    vec![
        filters(
            Operation::get("/v1/deliveries", "listDeliveries", "List deliveries, the newest first").paged(),
        )
        .lists::<page::List<DeliveryView>, DeliveryView>("DeliveryList", "A page of deliveries."),
        Operation::get("/v1/deliveries/{id}", "getDelivery", "Get a delivery")
            .id::<DeliveryId>()
            .answers::<DeliveryView>(200, "The delivery."),
        Operation::get("/v1/deliveries/{id}/attempts", "listAttempts", "The attempts of a delivery")
            .id::<DeliveryId>()
            .lists::<deliveries::List<AttemptView>, AttemptView>(
                "AttemptList",
                "All that are kept, in their order.",
            ),
        Operation::post("/v1/deliveries/{id}/cancel", "cancelDelivery", "Call a delivery off")
            .id::<DeliveryId>()
            .problems(&[Code::StateConflict])
            .answers::<DeliveryView>(200, "The delivery as it is now."),
        Operation::post("/v1/deliveries/{id}/replay", "replayDelivery", "Send a delivery again, now")
            .id::<DeliveryId>()
            .query("force", force, "Also if it has arrived.")
            .problems(&[Code::StateConflict])
            .answers::<DeliveryView>(202, "The delivery as it is now; it is sent in a moment."),
    ]
}

fn filters(operation: Operation) -> Operation {
    operation
        .query(
            "state",
            inline_of(super::delivery_state()),
            "In this state; `undelivered` is `pending`, `sending` and `exhausted`.",
        )
        .query("destination", json!({"type": "string"}), "To this destination: its id, or its origin.")
        .query("event_type", inline_of(super::job_event()), "Of this event.")
        .query_of::<JobId>("job_id", "Of this job.")
        .of_client()
        .query_of::<ReplayId>("replay_id", "Taken up by this replay.")
        .query_of::<ErrorClass>("error_class", "Whose last error is of this class.")
        .query(
            "status_code",
            json!({"type": "integer", "minimum": 100, "maximum": 999}),
            "Last answered with this status.",
        )
        .query("since", form::time(), "Made at this time or after it.")
        .query("until", form::time(), "Made before this time.")
}

fn inline_of(schema: utoipa::openapi::schema::Object) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

pub(super) fn replays() -> Vec<Operation> {
    let change = |path, id, summary| {
        Operation::post(path, id, summary)
            .id::<ReplayId>()
            .problems(&[Code::StateConflict])
            .answers::<ReplayView>(200, "The replay as it is now.")
    };
    vec![
        Operation::get("/v1/replays", "listReplays", "List replays, the newest first")
            .paged()
            .lists::<page::List<ReplayView>, ReplayView>("ReplayList", "A page of replays."),
        Operation::post("/v1/replays", "startReplay", "Send many deliveries again")
            .about(
                "With `dry_run`, nothing is sent: the answer says how many deliveries match, and shows some.",
            )
            .takes::<replays::Request>(true)
            .idempotency_key()
            .answers::<replays::DryRun>(200, "What a replay would send again.")
            .answers::<ReplayView>(202, "The replay, which runs.")
            .header("Location")
            .header("Idempotency-Replayed"),
        Operation::get("/v1/replays/{id}", "getReplay", "Get a replay")
            .id::<ReplayId>()
            .answers::<ReplayView>(200, "The replay."),
        Operation::get("/v1/replays/{id}/items", "listReplayItems", "What a replay has done")
            .id::<ReplayId>()
            .paged()
            .lists::<page::List<ReplayItemView>, ReplayItemView>(
                "ReplayItemList",
                "A page of deliveries that it took up.",
            ),
        change("/v1/replays/{id}/pause", "pauseReplay", "Pause a replay"),
        change("/v1/replays/{id}/resume", "resumeReplay", "Resume a replay"),
        change("/v1/replays/{id}/cancel", "cancelReplay", "Cancel a replay; what it has sent again goes on"),
    ]
}

pub(super) fn destinations() -> Vec<Operation> {
    let one = |operation: Operation| {
        operation.id::<DestinationId>().answers::<DestinationView>(200, "The destination as it is now.")
    };
    vec![
        Operation::get("/v1/destinations", "listDestinations", "List where callbacks go")
            .paged()
            .of_client()
            .lists::<page::List<DestinationView>, DestinationView>(
                "DestinationList",
                "A page of destinations.",
            ),
        one(Operation::get("/v1/destinations/{id}", "getDestination", "Get a destination")),
        one(Operation::post("/v1/destinations/{id}/pause", "pauseDestination", "Send nothing there for now")),
        one(Operation::post("/v1/destinations/{id}/resume", "resumeDestination", "Send there again")),
    ]
}

pub(super) fn secrets() -> Vec<Operation> {
    let overlap = json!({"type": "integer", "minimum": 0, "maximum": 604_800, "default": 86_400});
    vec![
        Operation::post("/v1/callbacks/test", "testCallback", "Try a callback URL")
            .about("Sends one signed event of the type `callback.test`, and tells what became of it. Nothing is kept.")
            .takes::<callbacks::Request>(true)
            .problems(&[Code::Validation, Code::TooManyTrials])
            .answers::<callbacks::Answer>(200, "What the guard says of the URL, what was sent, and how that went."),
        Operation::get("/v1/secrets", "listSecrets", "The secrets that sign your callbacks")
            .answers::<secrets::List>(200, "Those that sign at the moment, the newest first; never the secret itself."),
        Operation::post("/v1/secrets/rotate", "rotateSecret", "Make a new signing secret")
            .query("overlap_seconds", overlap, "For how long the old one signs as well.")
            .problems(&[Code::StateConflict])
            .answers::<secrets::New>(201, "The new secret, which is shown here and nowhere else."),
        Operation::get("/.well-known/webhook-keys", "getWebhookKeys", "The public keys of callbacks' signatures")
            .answers::<secrets::Keys>(200, "JSON Web Keys; none where callbacks are signed with secrets alone.")
            .header("Cache-Control"),
    ]
}
