//! Who may call: clients, their keys and tickets; and what operators did.

use super::operation::{Operation, refer};
use crate::domain::client::ClientId;
use crate::domain::id::ApiKeyId;
use crate::http::problem::Code;
use crate::http::{audit, clients, page, tickets};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::post("/v1/tickets", "createTicket", "Get a ticket, which stands for the key once")
            .about("For pages in browsers: what opens an event stream or a picture there sends no headers.")
            .answers::<tickets::TicketView>(201, "The ticket."),
        Operation::get("/v1/clients", "listClients", "List clients by their names")
            .paged()
            .lists::<page::List<clients::ClientView>, clients::ClientView>(
            "ClientList",
            "A page of clients; those that were revoked are among them.",
        ),
        Operation::post("/v1/clients", "createClient", "Create a client, with its first key")
            .takes::<clients::Request>(true)
            .problems(&[Code::Validation, Code::StateConflict])
            .answers::<clients::NewKeyView>(
                201,
                "The client, and its key, which is shown here and nowhere else.",
            )
            .header("Location"),
        named(Operation::get("/v1/clients/{name}", "getClient", "Get a client"))
            .answers::<clients::ClientView>(200, "The client."),
        named(Operation::post("/v1/clients/{name}/revoke", "revokeClient", "Revoke a client for good"))
            .problems(&[Code::StateConflict])
            .answers::<clients::ClientView>(200, "The client as it is now."),
        named(Operation::post("/v1/clients/{name}/keys", "addKey", "Give a client another key"))
            .problems(&[Code::StateConflict])
            .answers::<clients::NewKeyView>(201, "The key, which is shown here and nowhere else."),
        revoke_key(),
        Operation::get("/v1/audit", "listAudit", "What operators did, the newest first")
            .paged()
            .lists::<page::List<audit::EntryView>, audit::EntryView>("AuditLog", "A page of it."),
    ]
}

fn named(mut operation: Operation) -> Operation {
    let schema = refer::<ClientId>(&mut operation.schemas);
    operation.path_param("name", schema, "The client's name.")
}

fn revoke_key() -> Operation {
    named(Operation::delete("/v1/clients/{name}/keys/{id}", "revokeKey", "Revoke a key"))
        .id::<ApiKeyId>()
        .problems(&[Code::StateConflict])
        .answer(204, "It is good for nothing any more.", None)
}
