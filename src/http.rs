//! The HTTP room: one table of routes; per resource a thin file that extracts, calls the service, represents.
//!
//! warp matches and extracts; the accept loop is our own (`server`), and around every response lie
//! the layers of `envelope`. A handler never rejects: warp would take that for "try another route".

use std::sync::Arc;

use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use self::problem::Code;
use self::resource::Resource;
use crate::service::Service;
use crate::service::view::Rules;

mod audit;
mod backup;
mod batch;
mod body;
mod books;
mod bulk;
mod callbacks;
mod clients;
mod conditional;
mod connection;
mod cors;
mod deliveries;
mod destinations;
pub mod document;
mod envelope;
mod events;
mod head;
mod jobs;
mod lifecycle;
mod links;
mod local;
mod log;
mod page;
mod prefer;
mod problem;
mod query;
mod queue;
mod rate_limit;
mod replays;
mod represent;
mod resource;
mod room;
mod root;
mod secrets;
pub mod server;
mod source;
mod tickets;
pub mod tls;
mod upload;

/// The table of routes: for every client, unless it says that they are open to all, or for operators.
fn table() -> Vec<Resource> {
    let at = Resource::new;
    vec![
        at("/v1/jobs").get(jobs::list).upload(jobs::submit),
        // Before the jobs themselves, whose ids are other words.
        at("/v1/jobs/batch").post(batch::submit),
        at("/v1/jobs/cancel").noted().post(bulk::cancel),
        at("/v1/jobs/{id}").ticketed(jobs::show).delete(lifecycle::delete),
        at("/v1/jobs/{id}/cancel").post(lifecycle::cancel),
        at("/v1/jobs/{id}/restore").post(lifecycle::restore),
        at("/v1/jobs/{id}/retry").post(lifecycle::retry),
        at("/v1/jobs/{id}/events").ticketed(events::of_job),
        // Open to whoever has a signed link.
        at("/v1/jobs/{id}/artifacts/{name}").open().ticketed(jobs::artifact),
        at("/v1/jobs/{id}/links").post(links::create),
        at("/v1/jobs/{id}/deliveries").get(deliveries::of_job),
        at("/v1/deliveries").get(deliveries::list),
        at("/v1/deliveries/{id}").get(deliveries::show),
        at("/v1/deliveries/{id}/cancel").post(deliveries::cancel),
        at("/v1/deliveries/{id}/replay").operators().post(deliveries::replay),
        at("/v1/replays").operators().get(replays::list).post(replays::start),
        at("/v1/replays/{id}").operators().get(replays::show),
        at("/v1/replays/{id}/items").operators().get(replays::items),
        at("/v1/replays/{id}/pause").operators().post(replays::pause),
        at("/v1/replays/{id}/resume").operators().post(replays::resume),
        at("/v1/replays/{id}/cancel").operators().post(replays::cancel),
        at("/v1/destinations").get(destinations::list),
        at("/v1/destinations/{id}").get(destinations::show),
        at("/v1/destinations/{id}/pause").operators().post(destinations::pause),
        at("/v1/destinations/{id}/resume").operators().post(destinations::resume),
        at("/v1/deliveries/{id}/attempts").get(deliveries::attempts),
        at("/v1/events").ticketed(events::feed),
        at("/v1/callbacks/test").post(callbacks::test),
        at("/v1/ledger").operators().get(books::ledger),
        at("/v1/queue").get(queue::show),
        at("/v1/queue/pause").operators().post(queue::pause),
        at("/v1/queue/resume").operators().post(queue::resume),
        at("/v1/backup").operators().noted_get(backup::download),
        at("/v1/tickets").post(tickets::create),
        at("/v1/audit").operators().get(audit::list),
        at("/v1/clients").operators().get(clients::list).post(clients::create),
        at("/v1/clients/{name}").operators().get(clients::show),
        at("/v1/clients/{name}/revoke").operators().post(clients::revoke),
        at("/v1/clients/{name}/keys").operators().post(clients::add_key),
        at("/v1/clients/{name}/keys/{id}").operators().delete(clients::revoke_key),
        at("/v1/secrets").get(secrets::list),
        at("/v1/secrets/rotate").post(secrets::rotate),
        at("/.well-known/webhook-keys").open().get(secrets::public_keys),
        at("/").open().get(root::links),
        at("/openapi.json").open().get(document::show_openapi),
        at("/asyncapi.json").open().get(document::show_asyncapi),
        at("/docs").open().get(document::show_docs),
        at("/problems/{code}").open().get(root::problem),
        at("/metrics").operators().get(books::metrics),
        at("/health/live").open().get(root::live),
        at("/health/ready").open().get(root::ready),
    ]
}

/// All routes as one filter; what none of them matches is a 404.
fn routes(service: &Arc<Service>) -> BoxedFilter<(Response,)> {
    let table = table();
    let rules = Arc::new(Rules::new(
        table.iter().flat_map(Resource::routes).map(|it| (it.path, it.method.as_str(), it.access)),
    ));
    let elsewhere = resource::any(|_| problem::Problem::of(Code::RouteNotFound).into());
    // Each leaf is boxed and folded one by one: a chain of unboxed `or`s takes the compiler minutes.
    table
        .into_iter()
        .rev()
        .fold(elsewhere, |rest, resource| resource.into_filter(service, &rules).or(rest).unify().boxed())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_documented_and_nothing_else() {
        let order = |(path, method): (&'static str, http::Method)| (path, method.to_string());
        let table = table();
        let routes = table.iter().flat_map(Resource::routes).map(|route| (route.path, route.method.clone()));
        let routes: BTreeSet<_> = routes.map(order).collect();
        let documented: BTreeSet<_> = document::routes().map(order).collect();
        assert_eq!(routes, documented);
    }
}
