//! A backup on its way to a client.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{BackupError, Source, write};
use crate::service::{Service, ServiceError};
use crate::store::StoreError;

/// How long a client may take none of it.
const STALLED: Duration = Duration::from_secs(60);
/// Handed over at once, and how many of these may wait.
const CHUNK_BYTES: usize = 64 * 1024;
const CHUNKS: usize = 4;

impl Service {
    /// The whole store and its pictures as a tar file. One that fails on the way ends with an error.
    pub async fn backup(&self) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, ServiceError> {
        let orphans_stay = Arc::clone(&self.pictures).read_owned().await;
        let export = self.store.export().await.map_err(|error| match error {
            StoreError::ExportRunning => ServiceError::BackupRunning,
            other => other.into(),
        })?;
        let source = Source {
            blobs: self.blobs.clone(),
            signing_secret_file: self.settings.signing_secret_file.clone(),
            encryption_key_file: self.settings.encryption_key_file.clone(),
            created_at: self.clock.now(),
        };
        let (client, receiver) = mpsc::channel(CHUNKS);
        tokio::task::spawn_blocking(move || {
            let _orphans_stay = orphans_stay;
            let mut outgoing = Outgoing { client };
            let out = BufWriter::with_capacity(CHUNK_BYTES, &mut outgoing);
            let written = write(export, &source, out, &mut |_| ());
            let ended = written.and_then(|()| {
                outgoing
                    .send(None)
                    .map_err(|source| BackupError::Io { what: "cannot end the export", source })
            });
            if let Err(error) = ended {
                tracing::error!(error = &error as &dyn std::error::Error, "a backup was broken off");
            }
        });
        Ok(unfold(Some(receiver), async |receiver: Option<mpsc::Receiver<Option<Bytes>>>| {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Some(Some(chunk)) => Some((Ok(chunk), Some(receiver))),
                Some(None) => None,
                // So that the client sees a broken connection, and no file that ends early.
                None => Some((Err(io::Error::other("the backup was broken off")), None)),
            }
        }))
    }
}

/// Writes to the client.
struct Outgoing {
    /// `None` says that all is told.
    client: mpsc::Sender<Option<Bytes>>,
}

impl Outgoing {
    fn send(&self, chunk: Option<Bytes>) -> io::Result<()> {
        let sent = Handle::current().block_on(tokio::time::timeout(STALLED, self.client.send(chunk)));
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(Some(Bytes::copy_from_slice(bytes)))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
