//! One resource: a path, and a handler for each method it has.
//!
//! The path is matched before the method, so that an unknown URL is a 404 and a wrong method a 405
//! with `Allow`. HEAD is answered as GET (hyper leaves the body out), OPTIONS with `Allow`. Who may call is declared
//! beside each handler, and settled before anything of the body is read.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{ALLOW, AUTHORIZATION, LOCATION, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::body::Body;
use super::document;
use super::envelope::{CallerName, REQUEST_ID};
use super::log::Findings;
use super::problem::{Code, Problem};
use super::query::invalid;
use super::rate_limit;
use crate::domain::client::{Caller, ClientId, Role};
use crate::service::Service;
use crate::service::clients::InvalidKey;
use crate::service::view::{Access, Reader, Rules, parameters};

/// A request for a resource.
pub(super) struct Call {
    pub(super) service: Arc<Service>,
    pub(super) headers: HeaderMap,
    pub(super) query: String,
    pub(super) body: Body,
    params: Vec<String>,
    caller: Option<Caller>,
    rules: Arc<Rules>,
}

impl Call {
    /// The path's parameters, decoded, in order.
    pub(super) fn param(&self, index: usize) -> &str {
        self.params.get(index).map_or("", String::as_str)
    }

    /// Who asks. Only open routes are reached by nobody.
    pub(super) fn caller(&self) -> Result<&Caller, Problem> {
        self.caller.as_ref().ok_or_else(|| Problem::unauthenticated(false))
    }

    /// For whom answers are represented.
    pub(super) fn reader(&self) -> Reader<'_> {
        let role = self.caller.as_ref().map(|caller| caller.role);
        Reader::caller(role, &self.rules, &self.service.settings().base_url)
    }

    /// Whose things are listed: `?client=` is for those who see more than their own.
    pub(super) fn only(&self, client: Option<&str>) -> Result<Option<ClientId>, Problem> {
        let caller = self.caller()?;
        let wrong = |_| invalid("client", "not_a_client", "the name of a client");
        let wanted: Option<ClientId> = client.map(str::parse).transpose().map_err(wrong)?;
        match wanted {
            Some(wanted) if !caller.sees(&wanted) => Err(Problem::of(Code::Forbidden)
                .with_detail("only operators may ask for what is another client's")),
            wanted => Ok(caller.only().cloned().or(wanted)),
        }
    }
}

type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Response, Problem>> + Send + Sync>;

/// What is declared of a method.
pub(super) struct Route<'a> {
    pub(super) path: &'static str,
    pub(super) method: &'a Method,
    pub(super) access: Access,
    /// Whether a ticket will do for a key.
    pub(super) takes_tickets: bool,
}

/// A resource in the making.
pub(super) struct Resource {
    path: &'static str,
    methods: Vec<(Method, Access, Handler)>,
    /// Whether operators' GETs are noted, too.
    notes_reading: bool,
    /// Whether what operators do here is noted whatever else is declared.
    is_noted: bool,
    /// Whether a ticket in the query will do for GET.
    takes_tickets: bool,
    /// Who may call the methods that follow.
    access: Access,
}

impl Resource {
    /// `{name}` in the path stands for a parameter.
    pub(super) fn new(path: &'static str) -> Self {
        Self {
            path,
            methods: Vec::new(),
            notes_reading: false,
            is_noted: false,
            takes_tickets: false,
            access: Access::Clients,
        }
    }

    /// The methods that follow are for everybody, without a key.
    pub(super) fn open(self) -> Self {
        Self { access: Access::Open, ..self }
    }

    /// The methods that follow are for operators.
    pub(super) fn operators(self) -> Self {
        Self { access: Access::Operators, ..self }
    }

    /// What operators do here is noted: it is done to what is others'.
    pub(super) fn noted(self) -> Self {
        Self { is_noted: true, ..self }
    }

    /// What is declared of each method.
    pub(super) fn routes(&self) -> impl Iterator<Item = Route<'_>> {
        let is_ticketed = |method: &Method| self.takes_tickets && method == Method::GET;
        self.methods.iter().map(move |(method, access, _)| Route {
            path: self.path,
            method,
            access: *access,
            takes_tickets: is_ticketed(method),
        })
    }

    pub(super) fn get<F, R>(self, handler: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        self.on(Method::GET, handler)
    }

    /// A GET that takes a ticket (`?ticket=`) instead of a key.
    pub(super) fn ticketed<F, R>(self, handler: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        Self { takes_tickets: true, ..self }.get(handler)
    }

    /// A GET that is noted as what changes something is: it tells everything.
    pub(super) fn noted_get<F, R>(self, handler: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        Self { notes_reading: true, ..self }.get(handler)
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
        self.methods.push((method, self.access, Arc::new(move |call| handler(call).boxed())));
        self
    }

    /// The filter that matches the path and answers.
    pub(super) fn into_filter(self, service: &Arc<Service>, rules: &Arc<Rules>) -> BoxedFilter<(Response,)> {
        let path = self.path;
        let (this, service, rules) = (Arc::new(self), Arc::clone(service), Arc::clone(rules));
        warp::path::full()
            .and(warp::ext::optional::<Findings>())
            .and_then(move |full: FullPath, found: Option<Findings>| async move {
                let params = parameters(path, full.as_str()).ok_or_else(warp::reject::not_found)?;
                // The first that matches is the one.
                let _ = found.map(|found| found.route.set(path));
                Ok::<_, Rejection>(params)
            })
            .and(parts())
            .then(move |params, (method, headers, query, body)| {
                let (this, service, rules) = (Arc::clone(&this), Arc::clone(&service), Arc::clone(&rules));
                async move {
                    let call = Call { service, headers, query, body, params, caller: None, rules };
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
        if let Some((wanted, access, handler)) = self.methods.iter().find(|(method, ..)| method == wanted) {
            let service = Arc::clone(&call.service);
            let (caller, answer) = match self.identify(method, &mut call) {
                Err(problem) => (None, Err(problem)),
                Ok(caller) => {
                    call.caller.clone_from(&caller);
                    let answer = match admit(&service, *access, caller.as_ref()) {
                        Ok(()) => {
                            match caller.clone().filter(|caller| self.is_noted(caller, *access, method)) {
                                Some(caller) => {
                                    noted(Note::of(self.path, method, caller, &call), handler(call)).await
                                }
                                None => handler(call).await,
                            }
                        }
                        Err(problem) => Err(problem),
                    };
                    (caller, answer)
                }
            };
            let (status, code) = match &answer {
                // What is noted has its problem in the answer.
                Ok(response) => (response.status(), response.extensions().get().map(Problem::code)),
                Err(problem) => (problem.status(), Some(problem.code())),
            };
            // Every test that asks for something tests the document, too.
            debug_assert!(
                document::tells(wanted, self.path, status, code),
                "{status} {code:?} is not documented"
            );
            let mut response = answer.unwrap_or_else(Response::from);
            if let Some(caller) = caller {
                rate_limit::tell(response.headers_mut(), &service.allowances(&caller));
                response.extensions_mut().insert(CallerName(caller.client.as_str().to_owned()));
            }
            return Ok(response);
        }
        if method == Method::OPTIONS {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().insert(ALLOW, self.allowed());
            return Ok(response);
        }
        Err(Problem::method_not_allowed(self.allowed()))
    }

    /// Who asks, by a ticket or by a key.
    fn identify(&self, method: &Method, call: &mut Call) -> Result<Option<Caller>, Problem> {
        let takes_ticket = self.takes_tickets && method == Method::GET;
        match takes_ticket.then(|| take_ticket(&call.headers, &mut call.query)).flatten() {
            Some(ticket) => redeem(&call.service, &ticket).map(Some),
            None => authenticate(&call.service, &call.headers),
        }
    }

    /// Whether an audit would ask for it: what operators do to the service, or to something that is there.
    fn is_noted(&self, caller: &Caller, access: Access, method: &Method) -> bool {
        let is_reading = [Method::GET, Method::HEAD].contains(method);
        let is_of_operators = self.is_noted || access == Access::Operators || self.path.contains('{');
        caller.role == Role::Operator && is_of_operators && (!is_reading || self.notes_reading)
    }

    fn allowed(&self) -> HeaderValue {
        let has_get = self.methods.iter().any(|(method, ..)| method == Method::GET);
        let names = self.methods.iter().map(|(method, ..)| method.as_str());
        let all: Vec<_> = names.chain(has_get.then_some("HEAD")).chain(["OPTIONS"]).collect();
        HeaderValue::try_from(all.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"))
    }
}

/// What is noted of a call.
struct Note {
    service: Arc<Service>,
    caller: Caller,
    action: String,
    target: String,
    request_id: String,
}

impl Note {
    fn of(path: &str, method: &Method, caller: Caller, call: &Call) -> Self {
        let mut params = call.params.iter();
        let filled = |segment: &str| {
            let param = segment.starts_with('{').then(|| params.next()).flatten();
            param.cloned().unwrap_or_else(|| segment.to_owned())
        };
        let segments: Vec<_> = path.split('/').map(filled).collect();
        let mut target = segments.join("/");
        // What is done to many is told by its filter; nothing that is noted has secrets in it.
        if !call.query.is_empty() {
            target = format!("{target}?{}", call.query);
        }
        let request_id = call.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
        Self {
            service: Arc::clone(&call.service),
            caller,
            action: format!("{method} {path}"),
            target,
            request_id: request_id.to_owned(),
        }
    }
}

/// Does what is noted first; what came of it is noted also when the client has hung up.
async fn noted(
    note: Note,
    answer: BoxFuture<'static, Result<Response, Problem>>,
) -> Result<Response, Problem> {
    let Note { service, caller, action, target, request_id } = note;
    let tasks = service.tasks().clone();
    let work = async move {
        let mut entry = service.note(&caller, action, target, request_id).await?;
        let answer = answer.await;
        // What was made is known by now.
        if let Some(made) = answer.as_ref().ok().and_then(|response| response.headers().get(LOCATION)) {
            let made = made.to_str().unwrap_or_default();
            entry.target = made.strip_prefix(&service.settings().base_url).unwrap_or(made).to_owned();
        }
        let status = answer.as_ref().map_or_else(Problem::status, Response::status);
        service.note_outcome(entry, status.as_u16()).await;
        answer
    };
    whole(tasks, work).await
}

/// Who asks. A key that is given must be good, also where none is needed.
fn authenticate(service: &Service, headers: &HeaderMap) -> Result<Option<Caller>, Problem> {
    service.authenticate(bearer(headers)).map_err(|InvalidKey| match service.count_bad_key() {
        Ok(()) => Problem::unauthenticated(true),
        Err(error) => error.into(),
    })
}

/// The ticket in the query of a request without a key; the handler sees none of it.
fn take_ticket(headers: &HeaderMap, query: &mut String) -> Option<String> {
    if headers.contains_key(AUTHORIZATION) {
        return None;
    }
    let ticket = query.split('&').find_map(|pair| pair.strip_prefix("ticket="))?.to_owned();
    let rest: Vec<_> = query.split('&').filter(|pair| !pair.starts_with("ticket=")).collect();
    *query = rest.join("&");
    Some(ticket)
}

fn redeem(service: &Service, ticket: &str) -> Result<Caller, Problem> {
    service.redeem(ticket).ok_or_else(|| match service.count_bad_key() {
        Ok(()) => {
            Problem::unauthenticated(true).with_detail("the ticket is unknown, was used, or has expired")
        }
        Err(error) => error.into(),
    })
}

/// The token of the scheme Bearer (RFC 6750, section 2.1); other schemes are none.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    // What is no text is no key either, and is to be refused as such.
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| std::str::from_utf8(token).unwrap_or_default().trim())
}

/// Whether who asks may, and has not asked too often.
fn admit(service: &Service, access: Access, caller: Option<&Caller>) -> Result<(), Problem> {
    caller.map_or(Ok(()), |caller| service.count_request(caller))?;
    match caller {
        _ if access.admits(caller.map(|caller| caller.role)) => Ok(()),
        None => Err(Problem::unauthenticated(false)),
        Some(_) => Err(Problem::of(Code::Forbidden)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_taken_out_of_the_query() {
        let take = |query: &str, headers: &HeaderMap| {
            let mut query = query.to_owned();
            (take_ticket(headers, &mut query), query)
        };
        let none = HeaderMap::new();
        assert_eq!(
            take("after=1&ticket=t&types=a", &none),
            (Some("t".to_owned()), "after=1&types=a".to_owned())
        );
        assert_eq!(take("ticket=t", &none), (Some("t".to_owned()), String::new()));
        assert_eq!(take("tickets=t", &none), (None, "tickets=t".to_owned()));
        let keyed = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer dk_1"))]);
        assert_eq!(take("ticket=t", &keyed), (None, "ticket=t".to_owned()));
    }

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
}
