//! `darkroom clients`, and what the other commands make of keys.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::cli::{stderr, stdout};
use crate::support::access::{Caller, Guarded, clients, created};
use crate::support::{bounded, text};

/// A command of somebody with this key.
async fn run(caller: &Caller, base: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
    command.args(args).env("DARKROOM_URL", base).env_remove("DARKROOM_TOKEN").env_remove("DARKROOM_SECRET");
    if let Some(key) = &caller.key {
        command.env("DARKROOM_TOKEN", key);
    }
    bounded(tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap()
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_str(&stdout(output)).unwrap()
}

#[test]
fn a_folder_gets_its_clients_while_no_service_runs() {
    let folder = tempfile::tempdir().unwrap();
    let list = clients(folder.path(), &["list"]);
    assert_eq!(list.status.code(), Some(1), "a folder without a store is no folder without clients");
    assert!(stderr(&list).contains("there is no store in"), "{}", stderr(&list));

    let key = created(folder.path(), &["shop", "--requests-per-minute", "60"]);
    assert!(key.starts_with("dk_") && key.len() == 46, "the key alone is on standard output");
    let listed = json_of(&clients(folder.path(), &["list", "--json"]));
    let shop = &listed["items"][0];
    assert_eq!([&shop["name"], &shop["role"], &shop["state"]], ["shop", "client", "active"]);
    assert_eq!(shop["limits"]["requests_per_minute"], 60);
    assert!(!listed.to_string().contains(&key[3..40]));

    let second = json_of(&clients(folder.path(), &["add-key", "shop", "--json"]));
    assert_ne!(text(&second, "/key"), key);
    let revoked = clients(folder.path(), &["revoke", "shop", "--key", text(&second, "/key_id")]);
    assert!(revoked.status.success(), "{}", stderr(&revoked));
    for (args, code) in [
        (vec!["create", "shop"], 1),
        (vec!["create", "Not A Name"], 2),
        (vec!["revoke", "nobody"], 3),
        (vec!["revoke", "shop", "--key", text(&second, "/key_id")], 3),
    ] {
        let output = clients(folder.path(), &args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
    }
    assert!(clients(folder.path(), &["revoke", "shop"]).status.success());
    let listed = json_of(&clients(folder.path(), &["list", "--json"]));
    assert_eq!(listed["items"][0]["state"], "revoked");
}

fn serve(folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn without_a_client_the_service_does_not_start_and_says_how_to_make_one() {
    let folder = tempfile::tempdir().unwrap();
    for revoked in [false, true] {
        if revoked {
            created(folder.path(), &["shop"]);
            assert!(clients(folder.path(), &["revoke", "shop"]).status.success());
        }
        let output = serve(folder.path());
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("darkroom clients create"), "{}", stderr(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_is_asked_instead() {
    let app = Guarded::start(&[]).await;
    let base = app.running.base_url().to_owned();
    let offline = clients(app.folder.path(), &["list"]);
    assert_eq!(offline.status.code(), Some(1));
    let said = stderr(&offline);
    assert!(said.contains("in use by a running service") && said.contains("--url"), "{said}");

    let made = run(&app.ops, &base, &["clients", "create", "shop", "--waiting-jobs", "3"]).await;
    assert!(made.status.success(), "{}", stderr(&made));
    let shop = app.a.with(stdout(&made).trim());
    assert!(run(&shop, &base, &["jobs", "list"]).await.status.success());
    let second = json_of(&run(&app.ops, &base, &["clients", "add-key", "shop", "--json"]).await);
    let listed = json_of(&run(&app.ops, &base, &["clients", "list", "--json"]).await);
    let rows = listed["items"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == "shop").unwrap();
    assert_eq!(
        row["limits"],
        json!({ "requests_per_minute": null, "waiting_jobs": 3, "upload_bytes_per_minute": null })
    );
    assert_eq!(row["keys"].as_array().unwrap().len(), 2);
    let revoked =
        run(&app.ops, &base, &["clients", "revoke", "shop", "--key", text(&second, "/key_id")]).await;
    assert!(revoked.status.success(), "{}", stderr(&revoked));
    assert!(run(&shop, &base, &["jobs", "list"]).await.status.success(), "its other key is good");
    assert!(run(&app.ops, &base, &["clients", "revoke", "shop"]).await.status.success());
    assert_eq!(run(&shop, &base, &["jobs", "list"]).await.status.code(), Some(6));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_ends_with_6() {
    let app = Guarded::start(&[]).await;
    let base = app.running.base_url().to_owned();
    let unknown = app.a.with(&format!("dk_{}", "A".repeat(43)));
    for (caller, args) in [
        (&app.nobody, &["jobs", "list"][..]),
        (&app.nobody, &["doctor"]),
        (&unknown, &["jobs", "list"]),
        (&app.a, &["replays", "list"]),
        (&app.a, &["clients", "list"]),
        (&app.a, &["clients", "create", "shop"]),
    ] {
        let output = run(caller, &base, args).await;
        assert_eq!(output.status.code(), Some(6), "{args:?}: {}", stderr(&output));
    }
    for args in [&["jobs", "list"][..], &["deliveries", "list"], &["queue", "show"], &["secrets", "list"]] {
        let output = run(&app.a, &base, args).await;
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    }
    assert!(run(&app.ops, &base, &["doctor"]).await.status.success());
    app.stop().await;
}
