//! Talking to a service: its URL and token, its answers, its refusals.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::multipart::Form;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use url::Url;

use super::client;
use super::error::CliError;
use super::model::{Links, Root};
use super::problem::Problem;
use super::secret::Hidden;

const DEFAULT_URL: &str = "http://127.0.0.1:8080";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The service itself gives an upload ten minutes; what it says after them should still be heard.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(660);
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// Which service, and who asks.
#[derive(clap::Args)]
#[command(next_help_heading = "Which service (for the commands that ask one)")]
pub(super) struct Target {
    /// The service's URL [default: http://127.0.0.1:8080]
    // Read as text, so that a mistake in the environment does not stop commands that ask no service.
    #[arg(long, global = true, value_name = "URL", env = "DARKROOM_URL", hide_env_values = true)]
    url: Option<String>,
    /// The API key, `dk_…`; other users of this machine can see flags, so prefer the environment
    #[arg(long, global = true, value_name = "KEY", env = "DARKROOM_TOKEN", hide_env_values = true)]
    token: Option<Hidden>,
}

/// A service, as one caller sees it.
pub(super) struct Api {
    client: Client,
    base: Url,
    token: Option<HeaderValue>,
}

/// An answer: to the letter for `--json`, and read.
pub(super) struct Reply<T> {
    pub(super) text: String,
    pub(super) body: T,
    pub(super) retry_after: Option<Duration>,
}

impl Target {
    /// The target at `url`, for a service that asks for no key.
    pub(super) fn open(url: &str) -> Self {
        Self { url: Some(url.to_owned()), token: None }
    }

    /// The service's base URL, with a slash at its end, so that relative links resolve below it.
    pub(super) fn url(&self) -> Result<Url, CliError> {
        let text = self.url.as_deref().filter(|url| !url.is_empty()).unwrap_or(DEFAULT_URL);
        let wrong = |problem| CliError::Usage(format!("--url or DARKROOM_URL {problem}"));
        let mut url = Url::parse(text)
            .map_err(|error| wrong(format!("is no URL: {error}; expected one like {DEFAULT_URL}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("must begin with http:// or https://".to_owned()));
        }
        // Error messages name the URL, and a password is no part of a message.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("must not contain a user or a password; use --token".to_owned()));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(url)
    }

    /// Whether a service is named, by whom or what.
    pub(super) fn is_named(&self) -> bool {
        let token = self.token.as_ref().map(Hidden::expose);
        [self.url.as_deref(), token].into_iter().flatten().any(|text| !text.is_empty())
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, CliError> {
        let Some(token) = self.token.as_ref().map(Hidden::expose).filter(|token| !token.is_empty()) else {
            return Ok(None);
        };
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| CliError::Usage("--token or DARKROOM_TOKEN is no API key".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl Api {
    pub(super) fn new(target: &Target) -> Result<Self, CliError> {
        let base = target.url()?;
        Ok(Self { client: client::for_url(&base)?, token: target.authorization()?, base })
    }

    /// Where everything begins: the links of the service's root.
    pub(super) async fn root(&self) -> Result<Links, CliError> {
        let root: Reply<Root> = self.get(self.base.as_str()).await?;
        let links = root.body.links.of_root();
        // To nobody the service shows what is open to everybody.
        if self.token.is_none() && links.find("jobs").is_none() && links.find("live").is_some() {
            return Err(CliError::NoKey { url: self.base.clone() });
        }
        Ok(links)
    }

    /// The resource of this id, where the root's template `rel` leads.
    pub(super) async fn find<T: DeserializeOwned>(
        &self,
        rel: &'static str,
        id: &str,
    ) -> Result<Reply<T>, CliError> {
        let href = self.root().await?.expand(rel, "id", id)?;
        self.get(&href).await
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, href: &str) -> Result<Reply<T>, CliError> {
        let (request, url) = self.request(Method::GET, href)?;
        self.send(request.timeout(REQUEST_TIMEOUT), &url).await
    }

    /// Asks for something to be done.
    pub(super) async fn post<T: DeserializeOwned>(&self, href: &str) -> Result<Reply<T>, CliError> {
        let (request, url) = self.request(Method::POST, href)?;
        self.send(request.timeout(REQUEST_TIMEOUT), &url).await
    }

    /// Asks for something to be done, and says what in JSON.
    pub(super) async fn post_json<T: DeserializeOwned>(
        &self,
        href: &str,
        body: &serde_json::Value,
    ) -> Result<Reply<T>, CliError> {
        let (request, url) = self.request(Method::POST, href)?;
        self.send(request.timeout(REQUEST_TIMEOUT).json(body), &url).await
    }

    /// The same with headers.
    pub(super) async fn post_json_with<T: DeserializeOwned>(
        &self,
        href: &str,
        body: &serde_json::Value,
        headers: HeaderMap,
    ) -> Result<Reply<T>, CliError> {
        let (request, url) = self.request(Method::POST, href)?;
        self.send(request.timeout(REQUEST_TIMEOUT).headers(headers).json(body), &url).await
    }

    pub(super) async fn delete(&self, href: &str) -> Result<(), CliError> {
        let (request, url) = self.request(Method::DELETE, href)?;
        self.exchange(request.timeout(REQUEST_TIMEOUT), &url, MAX_ANSWER_BYTES).await.map(drop)
    }

    pub(super) async fn post_form<T: DeserializeOwned>(
        &self,
        href: &str,
        form: Form,
        headers: HeaderMap,
    ) -> Result<Reply<T>, CliError> {
        let (request, url) = self.request(Method::POST, href)?;
        // A time-out between two reads would run from the request's start, and cut off long uploads.
        self.send(request.timeout(UPLOAD_TIMEOUT).headers(headers).multipart(form), &url).await
    }

    /// The bytes behind a link, at most `limit` of them.
    pub(super) async fn download(&self, href: &str, limit: u64) -> Result<Vec<u8>, CliError> {
        let (request, url) = self.request(Method::GET, href)?;
        let (bytes, _) = self.exchange(request.timeout(REQUEST_TIMEOUT), &url, limit).await?;
        Ok(bytes)
    }

    /// What is behind a link, to be read by the caller, who bounds its waits.
    pub(super) async fn open(&self, href: &str) -> Result<(Response, Url), CliError> {
        let (request, url) = self.request(Method::GET, href)?;
        let response = tokio::time::timeout(REQUEST_TIMEOUT, request.send())
            .await
            .map_err(|_| CliError::NoAnswer { url: url.clone() })?
            .map_err(|error| CliError::request(&error, &url))?;
        if response.status().is_success() { Ok((response, url)) } else { Err(refusal(response, &url).await) }
    }

    /// Where a link leads; a relative one starts at the service's URL.
    pub(super) fn resolve(&self, href: &str) -> Result<Url, CliError> {
        self.base.join(href).map_err(|error| CliError::BadAnswer {
            url: self.base.clone(),
            problem: format!("the link {href:?} is no URL: {error}"),
        })
    }

    fn request(&self, method: Method, href: &str) -> Result<(RequestBuilder, Url), CliError> {
        let url = self.resolve(href)?;
        let request = self.client.request(method, url.clone());
        match &self.token {
            None => Ok((request, url)),
            Some(token) if url.origin() == self.base.origin() => {
                Ok((request.header(AUTHORIZATION, token.clone()), url))
            }
            Some(_) => Err(CliError::ForeignLink { link: url }),
        }
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        url: &Url,
    ) -> Result<Reply<T>, CliError> {
        let (bytes, headers) = self.exchange(request, url, MAX_ANSWER_BYTES).await?;
        let bad = |problem: String| CliError::BadAnswer { url: url.clone(), problem };
        let text = String::from_utf8(bytes).map_err(|_| bad("it is no text".to_owned()))?;
        let body = serde_json::from_str(&text)
            .map_err(|error| bad(format!("is this a Darkroom service? {error}")))?;
        Ok(Reply { text, body, retry_after: retry_after(&headers) })
    }

    /// One request and its answer; a refusal is an error.
    async fn exchange(
        &self,
        request: RequestBuilder,
        url: &Url,
        limit: u64,
    ) -> Result<(Vec<u8>, HeaderMap), CliError> {
        let mut response = request.send().await.map_err(|error| CliError::request(&error, url))?;
        if !response.status().is_success() {
            return Err(refusal(response, url).await);
        }
        let headers = std::mem::take(response.headers_mut());
        Ok((client::read(response, limit, url).await?, headers))
    }
}

async fn refusal(response: Response, url: &Url) -> CliError {
    let (status, retry_after) = (response.status(), retry_after(response.headers()));
    // The status alone is an answer too, so a body that cannot be read is none.
    let body = client::read(response, MAX_ANSWER_BYTES, url).await.unwrap_or_default();
    CliError::Api(Box::new(Problem::read(status, retry_after, &body)))
}

/// `Retry-After` in seconds, the only form that the service sends.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(url: &str, token: &str) -> Api {
        let target = Target { url: Some(url.to_owned()), token: token.parse().ok() };
        Api::new(&target).unwrap()
    }

    fn is_sent_with(api: &Api, href: &str) -> Option<String> {
        let request = api.request(Method::GET, href).unwrap().0.build().unwrap();
        request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_empty_url_is_none_and_a_base_path_is_kept() {
        let url = |text: &str| Target::open(text).url().map(|url| url.to_string());
        assert_eq!(url("").unwrap(), "http://127.0.0.1:8080/");
        assert_eq!(url("https://img.example/darkroom").unwrap(), "https://img.example/darkroom/");
        for text in ["127.0.0.1:8080", "ftp://a.example", "http://me:hunter2@a.example"] {
            let message = url(text).unwrap_err().to_string();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn a_token_goes_to_its_service_only() {
        let api = api("http://a.example:8080", "dk_1");
        for href in ["/v1/jobs", "http://a.example:8080/v1/jobs"] {
            assert_eq!(is_sent_with(&api, href).as_deref(), Some("Bearer dk_1"));
        }
        for href in ["http://b.example:8080/v1/jobs", "https://a.example:8080/", "http://a.example/"] {
            assert!(matches!(api.request(Method::GET, href), Err(CliError::ForeignLink { .. })), "{href}");
        }
    }

    #[test]
    fn without_a_token_links_may_lead_anywhere() {
        let api = api("http://a.example:8080", "");
        assert_eq!(is_sent_with(&api, "https://b.example/v1/jobs"), None);
    }

    #[test]
    fn retry_after_is_in_seconds() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(2)));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("-1"));
        assert_eq!(retry_after(&headers), None);
    }
}
