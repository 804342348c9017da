//! A whole store as a sequence of records that belongs to no engine: what backups hold, and what moves from one
//! engine to another.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Garbage, Paused, StoreError};
use crate::domain::audit::AuditEntry;
use crate::domain::client::{Client, ClientId};
use crate::domain::delivery::{Attempt, Delivery};
use crate::domain::destination::Destination;
use crate::domain::event::Event;
use crate::domain::hex::hash;
use crate::domain::id::{DeliveryId, JobId};
use crate::domain::job::Job;
use crate::domain::rotation::ClientSecrets;
use crate::domain::secret::{Keyring, SealedSecret};

/// One record. How an engine finds it again follows from it.
///
/// Written as JSON it is the format of backups: a change that older ones cannot be read with raises the
/// version in `service::backup`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "record", rename_all = "snake_case")]
pub enum Record {
    /// A job.
    Job(Box<Job>),
    /// An entry of the event log.
    Event(Box<Event>),
    /// A delivery.
    Delivery(Box<Delivery>),
    /// A destination.
    Destination(Box<Destination>),
    /// An attempt of a delivery.
    Attempt {
        /// Whose it is.
        delivery: DeliveryId,
        /// What it met.
        attempt: Box<Attempt>,
    },
    /// What an idempotency key stands for.
    Idempotency {
        /// Whose key it is.
        client: ClientId,
        /// As the client chose it.
        key: String,
        /// The job that it stands for.
        job: JobId,
        /// See [`super::Idempotency::fingerprint`].
        #[serde(with = "hash")]
        fingerprint: [u8; 32],
    },
    /// Pictures that are still to be removed.
    Garbage(Garbage),
    /// The signing secrets of a client.
    Secrets(Box<ClientSecrets>),
    /// A client.
    Client(Box<Client>),
    /// What an operator did.
    Action(Box<AuditEntry>),
    /// What holds for the whole store.
    Meta {
        /// The last place in the event log that was given away.
        last_seq: u64,
        /// What is paused.
        paused: Paused,
        /// See [`Keyring`].
        #[serde(default)]
        keyring: Keyring,
    },
}

impl Record {
    /// The sealed secrets in it.
    #[must_use]
    pub fn sealed(&self) -> Vec<&SealedSecret> {
        let (secret, headers) = match self {
            Self::Job(job) => {
                let source = job.source.as_ref().and_then(|source| source.sealed.as_ref());
                let callback = job.callback.as_ref();
                let secret = callback.and_then(|callback| callback.secret.as_ref());
                let headers = callback.map_or([].as_slice(), |callback| callback.headers.as_slice());
                let all = source.into_iter().chain(secret);
                return all.chain(headers.iter().map(|(_, value)| value)).collect();
            }
            Self::Delivery(delivery) => (delivery.secret.as_ref(), delivery.headers.as_slice()),
            Self::Secrets(secrets) => return secrets.secrets.iter().map(|secret| &secret.sealed).collect(),
            Self::Meta { keyring, .. } => (keyring.signing_key.as_ref(), [].as_slice()),
            _ => (None, [].as_slice()),
        };
        secret.into_iter().chain(headers.iter().map(|(_, value)| value)).collect()
    }
}

/// A store being read out.
///
/// While it exists, [`super::Store::garbage`] names nothing, so that the pictures of its jobs stay: keep it until
/// they are read, too.
#[async_trait]
pub trait Export: Send {
    /// Some of the records, never none; `None` when all were told. First all jobs, then their events, deliveries,
    /// attempts, and the rest. After an error, what was told is of no use.
    async fn next(&mut self) -> Result<Option<Vec<Record>>, StoreError>;
}

/// A store being filled.
#[async_trait]
pub trait Import: Send {
    /// Takes records, in the order of an export.
    async fn put(&mut self, records: Vec<Record>) -> Result<(), StoreError>;

    /// That was all. Afterwards it is durable, and what the other store's workers held is free to be claimed.
    async fn finish(self: Box<Self>, now: Timestamp) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind, as backups of this version hold them. A change of these lines is a change of the format:
    /// older files are still to be read.
    const LINES: [&str; 11] = [
        r#"{"kind":"job","record":{"id":"job_00000000000070008000000000000001","client":"dev","status":"Queued","revision":1,"created_at":1000,"started_at":null,"finished_at":null,"due_at":null,"priority":"Normal","deadline_ms":null,"deadline_at":null,"cancel_requested_at":null,"deleted_at":null,"purge_at":null,"idempotency_key":"order-7","attempt":0,"input":{"filename":"cat.jpg","format":"Jpeg","bytes":3,"width":2,"height":1,"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},"source":null,"variants":[{"name":"preview","width":800,"height":null,"fit":"Inside","focus":"Centre","format":null,"quality":null,"background":null,"enlarge":false,"watermark":null}],"preset":null,"handling":{"metadata":"None","allow_truncated":false},"placeholder":null,"artifacts":[],"callback":{"url":"https://hooks.example/","events":["JobCompleted"],"secret":"whsec_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","headers":[],"retry":{"max_attempts":null,"initial_ms":null,"max_delay_ms":null},"latest":{"delivery":"dlv_00000000000070008000000000000001","state":"Pending","attempts":0,"next_attempt_at":1000,"delivered_at":null}},"tags":["red"],"metadata":"{\"a\":1}","error":{"code":"c","title":"t","detail":"d","retryable":true},"lease":{"worker":"wrk_00000000000070008000000000000001","token":1,"until":2000},"lease_token":1}}"#,
        r#"{"kind":"event","record":{"id":"evt_00000000000070008000000000000001","seq":1,"kind":"JobQueued","at":1000,"source":"http://127.0.0.1:8080","subject":JOB}}"#,
        r#"{"kind":"delivery","record":{"id":"dlv_00000000000070008000000000000001","client":"dev","event_id":"evt_00000000000070008000000000000001","event_seq":1,"event_kind":"JobQueued","job_id":"job_00000000000070008000000000000001","url":"https://hooks.example/","secret":null,"headers":[],"retry":{"max_attempts":null,"initial_ms":null,"max_delay_ms":null},"state":"Pending","revision":0,"attempt_count":1,"earlier_attempts":0,"trigger":"Scheduled","replay":null,"next_attempt_at":1000,"last_error":{"class":"Timeout","fault":"Receiver","detail":"15 s"},"last_status_code":503,"created_at":1000,"finished_at":null}}"#,
        r#"{"kind":"attempt","record":{"delivery":"dlv_00000000000070008000000000000001","attempt":{"number":1,"trigger":"Scheduled","started_at":1000,"duration_ms":7,"timings":{"dns_us":null,"connect_us":null,"tls_us":null,"ttfb_us":null,"body_us":null},"remote_addr":"127.0.0.1:80","response":{"status":503,"headers":[["a","b"]],"body":"busy","truncated":false},"error":null,"next_attempt_at":2000}}}"#,
        r#"{"kind":"idempotency","record":{"client":"dev","key":"order-7","job":"job_00000000000070008000000000000001","fingerprint":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}}"#,
        r#"{"kind":"garbage","record":{"job":"job_00000000000070008000000000000001","names":["original"]}}"#,
        r#"{"kind":"secrets","record":{"client":"dev","revision":2,"secrets":[{"id":"sec_00000000000070008000000000000001","sealed":"sealed_AQIDBA==","created_at":1000,"expires_at":2000}]}}"#,
        r#"{"kind":"meta","record":{"last_seq":1,"paused":{"intake":false,"work":true},"keyring":{"sealed_by":[[1,2,3,4,5,6,7,8]],"signing_key":"sealed_AQIDBA=="}}}"#,
        r##"{"kind":"job","record":{"id":"job_00000000000070008000000000000001","client":"dev","status":"Queued","revision":1,"created_at":1000,"started_at":null,"finished_at":null,"due_at":null,"priority":"Normal","deadline_ms":null,"deadline_at":null,"cancel_requested_at":null,"deleted_at":null,"purge_at":null,"idempotency_key":"order-7","attempt":0,"input":{"filename":"cat.jpg","format":"Jpeg","bytes":3,"width":2,"height":1,"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},"source":null,"variants":[{"name":"square","width":300,"height":200,"fit":"Cover","focus":{"Point":{"x":2500,"y":10000}},"format":"Avif","quality":70,"background":"#ff8000","enlarge":true,"watermark":"logo"}],"preset":"avatar","handling":{"metadata":"Copyright","allow_truncated":true},"placeholder":{"thumbhash":"1QcSHQRnh493V4dIh4eXh1h4kJUI","dominant_color":"#102030"},"artifacts":[],"callback":{"url":"https://hooks.example/","events":["JobCompleted"],"secret":"whsec_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","headers":[],"retry":{"max_attempts":null,"initial_ms":null,"max_delay_ms":null},"latest":{"delivery":"dlv_00000000000070008000000000000001","state":"Pending","attempts":0,"next_attempt_at":1000,"delivered_at":null}},"tags":["red"],"metadata":"{\"a\":1}","error":{"code":"c","title":"t","detail":"d","retryable":true},"lease":{"worker":"wrk_00000000000070008000000000000001","token":1,"until":2000},"lease_token":1}}"##,
        r#"{"kind":"client","record":{"name":"shop","role":"operator","revision":3,"created_at":1000,"revoked_at":2000,"limits":{"requests_per_minute":60,"waiting_jobs":null,"upload_bytes_per_minute":0},"keys":[{"id":"key_00000000000070008000000000000001","sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","created_at":1000,"hint":"x9-_"}]}}"#,
        r#"{"kind":"action","record":{"id":"aud_00000000000070008000000000000001","at":1000,"client":"ops","action":"POST /v1/queue/pause","target":"/v1/queue/pause","request_id":"req_1","status":200}}"#,
    ];

    /// Lines that version 1 wrote differently.
    const OLDER: [&str; 4] = [
        r#"{"kind":"job","record":{"id":"job_00000000000070008000000000000001","client":"dev","status":"Queued","revision":1,"created_at":1000,"started_at":null,"finished_at":null,"due_at":null,"priority":"Normal","deadline_ms":null,"deadline_at":null,"cancel_requested_at":null,"deleted_at":null,"purge_at":null,"idempotency_key":"order-7","attempt":0,"input":{"filename":"cat.jpg","format":"Jpeg","bytes":3,"width":2,"height":1,"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},"variants":[{"name":"preview","width":800}],"artifacts":[],"callback":{"url":"https://hooks.example/","events":["JobCompleted"],"secret":"whsec_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","latest":{"delivery":"dlv_00000000000070008000000000000001","state":"Pending","attempts":0,"next_attempt_at":1000,"delivered_at":null}},"tags":["red"],"metadata":"{\"a\":1}","error":{"code":"c","title":"t","detail":"d","retryable":true},"lease":{"worker":"wrk_00000000000070008000000000000001","token":1,"until":2000},"lease_token":1}}"#,
        r#"{"kind":"event","record":{"id":"evt_00000000000070008000000000000001","seq":1,"kind":"JobQueued","job_id":"job_00000000000070008000000000000001","at":1000,"source":"http://127.0.0.1:8080","job":JOB}}"#,
        r#"{"kind":"delivery","record":{"id":"dlv_00000000000070008000000000000001","event_id":"evt_00000000000070008000000000000001","event_seq":1,"event_kind":"JobQueued","job_id":"job_00000000000070008000000000000001","url":"https://hooks.example/","secret":null,"state":"Pending","attempt_count":1,"next_attempt_at":1000,"last_error":{"class":"Timeout","detail":"15 s"},"last_status_code":503,"created_at":1000,"finished_at":null,"lease":null,"lease_token":0}}"#,
        r#"{"kind":"attempt","record":{"delivery":"dlv_00000000000070008000000000000001","attempt":{"number":1,"started_at":1000,"duration_ms":7,"remote_addr":"127.0.0.1:80","response":{"status":503,"headers":[["a","b"]],"body":"busy","truncated":false},"error":null,"next_attempt_at":2000}}}"#,
    ];

    #[test]
    fn each_kind_reads_and_writes_as_it_always_did() {
        let job = LINES[0].trim_start_matches(r#"{"kind":"job","record":"#).strip_suffix('}').unwrap();
        for line in LINES {
            let line = line.replace("JOB}}", &format!("{job}}}}}"));
            let record: Record = serde_json::from_str(&line).unwrap();
            assert_eq!(serde_json::to_string(&record).unwrap(), line);
        }
    }

    #[test]
    fn what_version_1_wrote_reads_as_the_same() {
        let job = |line: &str| {
            line.trim_start_matches(r#"{"kind":"job","record":"#).strip_suffix('}').unwrap().to_owned()
        };
        for (older, line) in OLDER.into_iter().zip(LINES) {
            let read = |line: &str, jobs: &[&str]| {
                let line = line.replace("JOB}}", &format!("{}}}}}", job(jobs[0])));
                serde_json::from_str::<Record>(&line).unwrap()
            };
            assert_eq!(read(older, &OLDER), read(line, &LINES));
        }
    }

    #[test]
    fn hashes_and_ids_are_read_in_their_one_spelling() {
        for (right, wrong) in [
            ("ba7816", "BA-816"),
            ("order-7\",\"job\":\"job_0", "order-7\",\"job\":\"0"),
            ("ad\"}}", "a\"}}"),
        ] {
            let line = LINES[4].replace(right, wrong);
            assert_ne!(line, LINES[4]);
            assert!(serde_json::from_str::<Record>(&line).is_err(), "{line}");
        }
    }
}
