//! The secrets of clients, and the keyring.

use darkroom::domain::client::ClientId;
use darkroom::domain::id::SecretId;
use darkroom::domain::rotation::ClientSecrets;
use darkroom::domain::secret::{KeyId, Keyring, SealedSecret};
use darkroom::store::StoreError;

use crate::rig::{Rig, at, policy};

fn rotated(mut secrets: ClientSecrets, n: u8) -> ClientSecrets {
    let id = SecretId::new(at(n.into()), &[n; 10]);
    secrets.rotate(id, SealedSecret::from_bytes(vec![1, n]), at(9_999), at(n.into())).unwrap();
    secrets
}

pub async fn secrets_are_a_clients_own_and_outlast_the_store(rig: &Rig) {
    let (dev, other): (ClientId, ClientId) = (ClientId::dev(), "deva".parse().unwrap());
    assert_eq!(rig.secrets(&dev).await.unwrap(), None);
    let first = rotated(ClientSecrets::none(dev.clone()), 1);
    rig.set_secrets(first.clone()).await.unwrap();
    assert_eq!(rig.secrets(&other).await.unwrap(), None);
    let others = rotated(ClientSecrets::none(other.clone()), 2);
    rig.set_secrets(others.clone()).await.unwrap();
    let second = rotated(first, 3);
    rig.set_secrets(second.clone()).await.unwrap();
    rig.reopen(at(5)).await;
    assert_eq!(rig.secrets(&dev).await.unwrap(), Some(second));
    assert_eq!(rig.secrets(&other).await.unwrap(), Some(others));
}

pub async fn of_two_rotations_at_once_one_is_refused(rig: &Rig) {
    let first = rotated(ClientSecrets::none(ClientId::dev()), 1);
    rig.set_secrets(first.clone()).await.unwrap();
    let (one, other) = (rotated(first.clone(), 2), rotated(first.clone(), 3));
    rig.set_secrets(one.clone()).await.unwrap();
    for outdated in [other, first] {
        assert!(matches!(rig.set_secrets(outdated).await, Err(StoreError::Outdated)));
    }
    assert_eq!(rig.secrets(&ClientId::dev()).await.unwrap(), Some(one));
}

pub async fn the_keyring_outlasts_the_store(rig: &Rig) {
    assert_eq!(rig.keyring().await.unwrap(), Keyring::default());
    let keyring = Keyring {
        sealed_by: vec![KeyId([1; 8]), KeyId([2; 8])],
        signing_key: Some(SealedSecret::from_bytes(vec![1, 2, 3])),
    };
    rig.set_keyring(keyring.clone()).await.unwrap();
    rig.reopen(at(1)).await;
    assert_eq!(rig.keyring().await.unwrap(), keyring);
}

pub async fn they_move_with_everything_else(rig: &Rig) {
    let secrets = rotated(ClientSecrets::none(ClientId::dev()), 1);
    rig.set_secrets(secrets.clone()).await.unwrap();
    let keyring = Keyring { sealed_by: vec![KeyId([1; 8])], signing_key: None };
    rig.set_keyring(keyring.clone()).await.unwrap();
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
    assert_eq!(other.secrets(&ClientId::dev()).await.unwrap(), Some(secrets));
    assert_eq!(other.keyring().await.unwrap(), keyring);
    other.close().await;
}
