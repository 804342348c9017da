//! On which way callbacks leave.

use std::process::Command;

use crate::support::process::Server;
use crate::support::receiver::Receiver;
use crate::support::{App, BOUND, form, picture, text};
use darkroom::clock::Clock;
use reqwest::{Client, StatusCode};

/// Without TLS, a proxy is a server like another, which is asked for a whole URL.
fn origin(receiver: &Receiver) -> String {
    receiver.url.trim_end_matches("/hook").to_owned()
}

#[tokio::test]
async fn callbacks_leave_through_the_proxy_that_is_configured() {
    let (proxy, receiver) = (Receiver::start(&[]).await, Receiver::start(&[]).await);
    let flags = [("callbacks.egress_proxy", &*origin(&proxy))];
    let app = App::with(&flags, Clock::system()).await;
    let job = app.accepted(picture::jpeg(40, 30), &[("callback_url", &receiver.url)]).await;
    assert_eq!(proxy.nth(1).await.header("host"), origin(&receiver).trim_start_matches("http://"));
    let job = app.job_when(text(&job, "/id"), |job| job["callback"]["status"] == "delivered").await;
    assert_eq!(job["callback"]["attempts"], 1);
    assert_eq!(receiver.all().len(), 0);
    app.stop().await;
}

#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    let (proxy, receiver) = (Receiver::start(&[]).await, Receiver::start(&[]).await);
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(name, origin(&proxy));
    }
    let server = Server::from(command, folder.path());
    let http = Client::builder().no_proxy().timeout(BOUND).build().unwrap();
    let form = form(picture::jpeg(40, 30), &[("callback_url", &receiver.url)]);
    let submitted = http.post(format!("{}/v1/jobs", server.url)).multipart(form).send().await.unwrap();
    assert_eq!(submitted.status(), StatusCode::ACCEPTED);
    receiver.nth(1).await;
    assert_eq!(proxy.all().len(), 0);
    assert!(server.stop().success());
}
