//! One resource: a path, and a handler for each method it has.
//!
//! The path is matched before the method, so that an unknown URL is a 404 and a wrong method a 405
//! with `Allow`. HEAD is answered as GET (hyper leaves the body out), OPTIONS with `Allow`.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{ALLOW, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::body::Body;
use super::document;
use super::problem::{Code, Problem};
use crate::service::Service;

/// A request for a resource.
pub(super) struct Call {
    pub(super) service: Arc<Service>,
    pub(super) headers: HeaderMap,
    pub(super) query: String,
    pub(super) body: Body,
    params: Vec<String>,
}

impl Call {
    /// The path's parameters, decoded, in order.
    pub(super) fn param(&self, index: usize) -> &str {
        self.params.get(index).map_or("", String::as_str)
    }
}

type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Response, Problem>> + Send + Sync>;

/// A resource in the making.
pub(super) struct Resource {
    path: &'static str,
    methods: Vec<(Method, Handler)>,
}

impl Resource {
    /// `{name}` in the path stands for a parameter.
    pub(super) fn new(path: &'static str) -> Self {
        Self { path, methods: Vec::new() }
    }

    pub(super) fn get<F, R>(self, handler: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        self.on(Method::GET, handler)
    }

    pub(super) fn post<F, R>(self, handler: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        self.on(Method::POST, move |call| whole(call.service.tasks().clone(), handler(call)))
    }

    /// A POST that ends with its connection: an upload, which keeps by itself what has to be kept, and whoever waits.
    pub(super) fn upload<F, R>(self, handler: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        self.on(Method::POST, handler)
    }

    pub(super) fn delete<F, R>(self, handler: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        self.on(Method::DELETE, move |call| whole(call.service.tasks().clone(), handler(call)))
    }

    fn on<F, R>(mut self, method: Method, handler: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        self.methods.push((method, Arc::new(move |call| handler(call).boxed())));
        self
    }

    /// What it has.
    #[cfg(test)]
    pub(super) fn methods(&self) -> impl Iterator<Item = (&'static str, Method)> {
        self.methods.iter().map(|(method, _)| (self.path, method.clone()))
    }

    /// The filter that matches the path and answers.
    pub(super) fn into_filter(self, service: &Arc<Service>) -> BoxedFilter<(Response,)> {
        let path = self.path;
        let (this, service) = (Arc::new(self), Arc::clone(service));
        warp::path::full()
            .and_then(move |full: FullPath| async move {
                matches(path, full.as_str()).ok_or_else(warp::reject::not_found)
            })
            .and(parts())
            .then(move |params, (method, headers, query, body)| {
                let (this, service) = (Arc::clone(&this), Arc::clone(&service));
                async move {
                    let call = Call { service, headers, query, body, params };
                    this.answer(&method, call).await.unwrap_or_else(Response::from)
                }
            })
            .boxed()
    }

    async fn answer(&self, method: &Method, mut call: Call) -> Result<Response, Problem> {
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        if method != Method::GET {
            // RFC 9110, section 14.2: for others a range has no meaning.
            call.headers.remove(RANGE);
        }
        if let Some((method, handler)) = self.methods.iter().find(|(method, _)| method == wanted) {
            let answer = handler(call).await;
            let (status, code) = match &answer {
                Ok(response) => (response.status(), None),
                Err(problem) => (problem.status(), Some(problem.code())),
            };
            // Every test that asks for something tests the document, too.
            debug_assert!(
                document::tells(method, self.path, status, code),
                "{status} {code:?} is not documented"
            );
            return answer;
        }
        if method == Method::OPTIONS {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().insert(ALLOW, self.allowed());
            return Ok(response);
        }
        Err(Problem::method_not_allowed(self.allowed()))
    }

    fn allowed(&self) -> HeaderValue {
        let has_get = self.methods.iter().any(|(method, _)| method == Method::GET);
        let names = self.methods.iter().map(|(method, _)| method.as_str());
        let all: Vec<_> = names.chain(has_get.then_some("HEAD")).chain(["OPTIONS"]).collect();
        HeaderValue::try_from(all.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"))
    }
}

/// On a task of its own: what changes something is done whole once it has begun, also when the client hangs up and
/// nobody waits for the answer. The server's end waits for it.
async fn whole(
    tasks: TaskTracker,
    answer: impl Future<Output = Result<Response, Problem>> + Send + 'static,
) -> Result<Response, Problem> {
    match tasks.spawn(answer).await {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Problem::of(Code::Internal)),
        },
    }
}

/// Answers every request; the body is taken along, so that a client that is sending it can finish.
pub(super) fn any(
    answer: impl Fn(Body) -> Response + Clone + Send + Sync + 'static,
) -> BoxedFilter<(Response,)> {
    parts().map(move |(_, _, _, body)| answer(body)).boxed()
}

type Parts = (Method, HeaderMap, String, Body);

fn parts() -> impl Filter<Extract = (Parts,), Error = Rejection> + Clone {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method().and(warp::header::headers_cloned()).and(query).and(warp::body::stream()).map(
        |method, headers: HeaderMap, query, stream| {
            let body = Body::new(stream, &headers);
            (method, headers, query, body)
        },
    )
}

/// The parameters of `path` if it is of the form `pattern`; a slash at the end makes it another path.
fn matches(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    let mut params = Vec::new();
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some(params),
            (Some(expected), Some(segment)) => {
                let segment = percent_decode_str(segment).decode_utf8().ok()?;
                if expected.starts_with('{') && !segment.is_empty() {
                    params.push(segment.into_owned());
                } else if expected != segment {
                    return None;
                }
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_begun_is_done_when_the_client_hangs_up() {
        let tasks = TaskTracker::new();
        let (release, gate) = tokio::sync::oneshot::channel::<()>();
        let (done, end) = tokio::sync::oneshot::channel();
        let handler = async move {
            gate.await.unwrap();
            done.send(()).unwrap();
            Ok(Response::default())
        };
        let mut answer = Box::pin(whole(tasks.clone(), handler));
        assert!(answer.as_mut().now_or_never().is_none());
        drop(answer);
        release.send(()).unwrap();
        tasks.close();
        tasks.wait().await;
        end.await.unwrap();
    }

    #[test]
    fn paths_match_whole_and_decoded() {
        let job = "/v1/jobs/{id}";
        assert_eq!(matches(job, "/v1/jobs/job_1"), Some(vec!["job_1".to_owned()]));
        assert_eq!(matches(job, "/v1/jobs/job%5F1"), Some(vec!["job_1".to_owned()]));
        assert_eq!(matches("/", "/"), Some(Vec::new()));
        for other in [
            "/v1/jobs",
            "/v1/jobs/",
            "/v1/jobs/a/b",
            "/v1/jobs/a/",
            "/v2/jobs/a",
            "/v1/jobs/%ff",
            "//v1/jobs/a",
        ] {
            assert_eq!(matches(job, other), None, "{other}");
        }
    }
}
