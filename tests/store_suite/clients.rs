//! Clients and their keys.

use darkroom::domain::api_key::ApiKey;
use darkroom::domain::audit::AuditEntry;
use darkroom::domain::client::{Client, ClientLimits, Role};
use darkroom::domain::id::{ApiKeyId, AuditId};
use darkroom::domain::job::NewJob;
use darkroom::store::StoreError;

use crate::rig::{Rig, at, client, job, policy};

fn key(n: u8) -> ApiKey {
    ApiKey::from_entropy([n; 32])
}

/// A new client with the key `n`.
fn with_key(name: &str, n: u8) -> Client {
    let limits = ClientLimits { requests_per_minute: Some(60), ..ClientLimits::default() };
    let mut new = Client::new(client(name), Role::Operator, limits, at(n.into()));
    new.add_key(key(n).record(ApiKeyId::from_bytes([n; 16]), at(n.into()))).unwrap();
    new
}

pub async fn a_client_is_found_by_name_and_by_key_until_the_key_is_taken_from_it(rig: &Rig) {
    assert_eq!(rig.client(&client("a")), None);
    let (a, ab) = (with_key("a", 1), with_key("ab", 2));
    rig.put_client(a.clone()).await.unwrap();
    rig.put_client(ab.clone()).await.unwrap();
    let of_key = |n| rig.client_of_key(&key(n).hash()).map(|found| (*found).clone());
    assert_eq!([of_key(1), of_key(2), of_key(3)], [Some(a.clone()), Some(ab.clone()), None]);

    let mut changed = a;
    changed.revision += 1;
    changed.remove_key(ApiKeyId::from_bytes([1; 16]));
    changed.add_key(key(3).record(ApiKeyId::from_bytes([3; 16]), at(3))).unwrap();
    changed.revoked_at = Some(at(4));
    rig.put_client(changed.clone()).await.unwrap();
    assert_eq!([of_key(1), of_key(2), of_key(3)], [None, Some(ab), Some(changed.clone())]);
    rig.reopen(at(5)).await;
    assert_eq!([of_key(1), of_key(3)], [None, Some(changed.clone())]);
    assert_eq!(rig.client(&client("a")).as_deref(), Some(&changed));
}

pub async fn of_two_changes_at_once_one_is_refused(rig: &Rig) {
    let first = with_key("a", 1);
    rig.put_client(first.clone()).await.unwrap();
    let second = Client { revision: 2, revoked_at: Some(at(2)), ..first.clone() };
    rig.put_client(second.clone()).await.unwrap();
    for outdated in [first.clone(), Client { revision: 2, ..first }] {
        assert!(matches!(rig.put_client(outdated).await, Err(StoreError::Outdated)));
    }
    assert_eq!(rig.client(&client("a")).as_deref(), Some(&second));
}

pub async fn they_are_listed_by_name_in_pages(rig: &Rig) {
    for (name, n) in [("c", 1), ("a", 2), ("b", 3)] {
        rig.put_client(with_key(name, n)).await.unwrap();
    }
    let names = |after: Option<&str>, limit| {
        let found = rig.clients(after.map(client).as_ref(), limit);
        found.iter().map(|client| client.name.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(None, 2), ["a", "b"]);
    assert_eq!(names(Some("b"), 2), ["c"]);
    assert_eq!(names(Some("c"), 2), [""; 0]);
}

pub async fn they_move_with_everything_else(rig: &Rig) {
    let kept = with_key("a", 1);
    rig.put_client(kept.clone()).await.unwrap();
    let mut export = rig.export().await.unwrap();
    let mut records = Vec::new();
    while let Some(some) = export.next().await.unwrap() {
        records.extend(some);
    }
    drop(export);
    let engine = rig.engine;
    let other = tokio::task::spawn_blocking(move || engine.open(policy())).await.unwrap();
    let mut import = other.import().await.unwrap();
    import.put(records).await.unwrap();
    import.finish(at(2)).await.unwrap();
    assert_eq!(other.client_of_key(&key(1).hash()).as_deref(), Some(&kept));
    other.close().await;
}

fn action(n: u8, status: Option<u16>) -> AuditEntry {
    AuditEntry {
        id: AuditId::new(at(n.into()), &[n; 10]),
        at: at(n.into()),
        client: client("ops"),
        action: "POST /v1/queue/pause".to_owned(),
        target: "/v1/queue/pause".to_owned(),
        request_id: format!("req_{n}"),
        status,
    }
}

pub async fn what_operators_did_is_read_newest_first_and_goes_by_age(rig: &Rig) {
    for n in 1..=3 {
        rig.note_action(action(n, None)).await.unwrap();
    }
    rig.note_action(action(2, Some(409))).await.unwrap();
    rig.reopen(at(5)).await;
    let all = [action(3, None), action(2, Some(409)), action(1, None)];
    assert_eq!(rig.actions(None, 9).await.unwrap(), all);
    assert_eq!(rig.actions(None, 1).await.unwrap(), all[..1]);
    assert_eq!(rig.actions(Some(all[0].id), 9).await.unwrap(), all[1..]);
    assert_eq!(rig.forget_actions(at(3), 1).await.unwrap(), 1);
    assert_eq!(rig.actions(None, 9).await.unwrap(), all[..2]);
    assert_eq!(rig.forget_actions(at(3), 9).await.unwrap(), 1);
    assert_eq!(rig.forget_actions(at(3), 9).await.unwrap(), 0);
    assert_eq!(rig.actions(None, 9).await.unwrap(), all[..1]);
}

pub async fn who_waits_is_counted_for_each_client(rig: &Rig) {
    let of = |name, n| NewJob { client: client(name), ..job(n, at(1)) };
    for n in 1..=3 {
        rig.accept(of("a", n), at(1)).await;
    }
    rig.accept(of("b", 4), at(1)).await;
    let mut later = of("a", 5);
    later.start_at = Some(at(100));
    rig.accept(later, at(1)).await;
    let (a, b) = (client("a"), client("b"));
    assert_eq!(rig.waiting_of(&a, 9).await.unwrap(), 4);
    assert_eq!(rig.waiting_of(&a, 2).await.unwrap(), 2);
    assert_eq!(rig.waiting_of(&b, 9).await.unwrap(), 1);
    assert_eq!(rig.waiting_of(&client("c"), 9).await.unwrap(), 0);
    rig.claim(2, at(2)).await;
    let both = rig.waiting_of(&a, 9).await.unwrap() + rig.waiting_of(&b, 9).await.unwrap();
    assert_eq!(both, 3);
}
