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

mod backup;
mod body;
mod books;
mod callbacks;
mod conditional;
mod connection;
mod deliveries;
mod destinations;
pub mod document;
mod envelope;
mod events;
mod jobs;
mod lifecycle;
mod local;
mod page;
mod prefer;
mod problem;
mod query;
mod queue;
mod replays;
mod represent;
mod resource;
mod root;
mod secrets;
pub mod server;
mod source;
mod upload;

/// The table of routes.
fn table() -> Vec<Resource> {
    let at = Resource::new;
    vec![
        at("/v1/jobs").get(jobs::list).upload(jobs::submit),
        at("/v1/jobs/{id}").get(jobs::show).delete(lifecycle::delete),
        at("/v1/jobs/{id}/cancel").post(lifecycle::cancel),
        at("/v1/jobs/{id}/restore").post(lifecycle::restore),
        at("/v1/jobs/{id}/retry").post(lifecycle::retry),
        at("/v1/jobs/{id}/events").get(events::of_job),
        at("/v1/jobs/{id}/artifacts/{name}").get(jobs::artifact),
        at("/v1/jobs/{id}/deliveries").get(deliveries::of_job),
        at("/v1/deliveries").get(deliveries::list),
        at("/v1/deliveries/{id}").get(deliveries::show),
        at("/v1/deliveries/{id}/cancel").post(deliveries::cancel),
        at("/v1/deliveries/{id}/replay").post(deliveries::replay),
        at("/v1/replays").get(replays::list).post(replays::start),
        at("/v1/replays/{id}").get(replays::show),
        at("/v1/replays/{id}/items").get(replays::items),
        at("/v1/replays/{id}/pause").post(replays::pause),
        at("/v1/replays/{id}/resume").post(replays::resume),
        at("/v1/replays/{id}/cancel").post(replays::cancel),
        at("/v1/destinations").get(destinations::list),
        at("/v1/destinations/{id}").get(destinations::show),
        at("/v1/destinations/{id}/pause").post(destinations::pause),
        at("/v1/destinations/{id}/resume").post(destinations::resume),
        at("/v1/deliveries/{id}/attempts").get(deliveries::attempts),
        at("/v1/events").get(events::feed),
        at("/v1/callbacks/test").post(callbacks::test),
        at("/v1/ledger").get(books::ledger),
        at("/v1/queue").get(queue::show),
        at("/v1/queue/pause").post(queue::pause),
        at("/v1/queue/resume").post(queue::resume),
        at("/v1/backup").get(backup::download),
        at("/v1/secrets").get(secrets::list),
        at("/v1/secrets/rotate").post(secrets::rotate),
        at("/.well-known/webhook-keys").get(secrets::public_keys),
        at("/").get(root::links),
        at("/openapi.json").get(document::show_openapi),
        at("/asyncapi.json").get(document::show_asyncapi),
        at("/docs").get(document::show_docs),
        at("/problems/{code}").get(root::problem),
        at("/metrics").get(books::metrics),
        at("/health/live").get(root::live),
        at("/health/ready").get(root::ready),
    ]
}

/// All routes as one filter; what none of them matches is a 404.
fn routes(service: &Arc<Service>) -> BoxedFilter<(Response,)> {
    let elsewhere = resource::any(|_| problem::Problem::of(Code::RouteNotFound).into());
    // Each leaf is boxed and folded one by one: a chain of unboxed `or`s takes the compiler minutes.
    table()
        .into_iter()
        .rev()
        .fold(elsewhere, |rest, resource| resource.into_filter(service).or(rest).unify().boxed())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_documented_and_nothing_else() {
        let order = |(path, method): (&'static str, http::Method)| (path, method.to_string());
        let routes: BTreeSet<_> = table().iter().flat_map(Resource::methods).map(order).collect();
        let documented: BTreeSet<_> = document::routes().map(order).collect();
        assert_eq!(routes, documented);
    }
}
