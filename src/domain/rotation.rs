//! The signing secrets of a client, and how one takes the place of another.

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use super::client::ClientId;
use super::id::SecretId;
use super::secret::SealedSecret;

/// A client's secrets, newest first: one for good and, after a rotation, those that sign along for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSecrets {
    /// Whose they are.
    pub client: ClientId,
    /// Grows with every change that is kept.
    pub revision: u64,
    /// The newest first.
    pub secrets: Vec<ClientSecret>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSecret {
    /// Its id, which sorts by creation.
    pub id: SecretId,
    /// The secret.
    pub sealed: SealedSecret,
    /// When it was made.
    #[serde(with = "millisecond::required")]
    pub created_at: Timestamp,
    /// When it stops signing; `None` for the newest.
    #[serde(with = "millisecond::optional")]
    pub expires_at: Option<Timestamp>,
}

/// As many secrets sign as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} secrets sign already, which is as many as may", ClientSecrets::MAX_ACTIVE)]
pub struct TooManySecrets;

impl ClientSecret {
    /// Whether it signs.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| end > now)
    }
}

impl ClientSecrets {
    /// How many may sign at once: each is a signature more in a header.
    pub const MAX_ACTIVE: usize = 10;

    /// The record of a client that has none yet.
    #[must_use]
    pub fn none(client: ClientId) -> Self {
        Self { client, revision: 0, secrets: Vec::new() }
    }

    /// A new secret signs from now on, and the newest so far until `until`. Those before it keep their time, but
    /// when there is to be no overlap all of them end.
    pub fn rotate(
        &mut self,
        id: SecretId,
        sealed: SealedSecret,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), TooManySecrets> {
        let mut older = self.secrets.clone();
        if let Some(newest) = older.first_mut() {
            newest.expires_at = Some(until);
        }
        older.retain(|secret| until > now && secret.is_active(now));
        if older.len() >= Self::MAX_ACTIVE {
            return Err(TooManySecrets);
        }
        // One that ends at once is remembered: found in its file at the next start, it is not to pass for a new one.
        let ended = self.secrets.first().filter(|_| until <= now).cloned();
        let ended = ended.map(|newest| ClientSecret { expires_at: Some(now), ..newest });
        let new = ClientSecret { id, sealed, created_at: now, expires_at: None };
        self.secrets = [new].into_iter().chain(older).chain(ended).collect();
        self.revision += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::tests::at;

    fn rotate(secrets: &mut ClientSecrets, n: u8, until: i64, now: i64) -> Result<(), TooManySecrets> {
        let sealed = SealedSecret::from_bytes(vec![1, n]);
        secrets.rotate(SecretId::new(at(now), &[n; 10]), sealed, at(until), at(now))
    }

    fn active(secrets: &ClientSecrets, now: i64) -> Vec<u8> {
        let active = secrets.secrets.iter().filter(|secret| secret.is_active(at(now)));
        active.map(|secret| secret.sealed.as_bytes()[1]).collect()
    }

    #[test]
    fn the_older_ones_sign_along_until_their_time() {
        let mut secrets = ClientSecrets::none(ClientId::dev());
        rotate(&mut secrets, 1, 0, 0).unwrap();
        rotate(&mut secrets, 2, 100, 10).unwrap();
        rotate(&mut secrets, 3, 50, 20).unwrap();
        assert_eq!(secrets.revision, 3);
        assert_eq!([active(&secrets, 49), active(&secrets, 50)], [vec![3, 2, 1], vec![3, 1]]);
        assert_eq!(active(&secrets, 100), [3]);
        rotate(&mut secrets, 4, 200, 100).unwrap();
        assert_eq!(secrets.secrets.len(), 2, "what has ended is not kept");
    }

    #[test]
    fn without_an_overlap_all_older_ones_end() {
        let mut secrets = ClientSecrets::none(ClientId::dev());
        for (n, until) in [(1, 0), (2, 100), (3, 100)] {
            rotate(&mut secrets, n, until, 0).unwrap();
        }
        rotate(&mut secrets, 4, 5, 5).unwrap();
        assert_eq!(active(&secrets, 5), [4]);
    }

    #[test]
    fn no_more_than_ten_sign() {
        let mut secrets = ClientSecrets::none(ClientId::dev());
        for n in 0..10 {
            rotate(&mut secrets, n, 100, 0).unwrap();
        }
        let before = secrets.clone();
        assert_eq!(rotate(&mut secrets, 10, 100, 1), Err(TooManySecrets));
        assert_eq!(secrets, before);
        rotate(&mut secrets, 10, 200, 100).unwrap();
    }
}
