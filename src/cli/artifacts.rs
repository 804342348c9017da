//! Fetching a job's artifacts, and checking that they are what the job says.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::ImageReader;
use sha2::{Digest as _, Sha256};

use super::api::Api;
use super::error::CliError;
use super::model::{Artifact, Job};
use crate::domain::hex::hex;
use crate::domain::image::{Format, Variant};

const FORMATS: [Format; 4] = [Format::Jpeg, Format::Png, Format::WebP, Format::Gif];

/// An artifact that held what the job says, in a file.
pub(super) struct Saved {
    pub(super) artifact: Artifact,
    pub(super) path: PathBuf,
}

/// Fetches every artifact that a job makes by default, checks it and saves it in `folder`.
pub(super) async fn save_all(api: &Api, job: &Job, folder: &Path) -> Result<Vec<Saved>, CliError> {
    let mut saved = Vec::new();
    for variant in Variant::defaults() {
        let artifact = job.artifacts.iter().find(|artifact| artifact.name == variant.name);
        let artifact =
            artifact.ok_or_else(|| CliError::Check(format!("the job has no artifact {}", variant.name)))?;
        saved.push(save(api, job, artifact, folder).await?);
    }
    Ok(saved)
}

async fn save(api: &Api, job: &Job, artifact: &Artifact, folder: &Path) -> Result<Saved, CliError> {
    let name = &artifact.name;
    let href = job
        .links
        .find(name)
        .ok_or_else(|| CliError::Check(format!("the job has no link to its artifact {name}")))?;
    let bytes = api.download(href, artifact.bytes).await?;
    let format = FORMATS.into_iter().find(|format| format.media_type() == artifact.media_type);
    let format = format.ok_or_else(|| {
        CliError::Check(format!("the artifact {name} is of unknown type {}", artifact.media_type))
    })?;
    let path = folder.join(format!("{name}.{}", format.extension()));
    std::fs::write(&path, &bytes)
        .map_err(|source| CliError::io(format!("cannot write {}", path.display()), source))?;
    let announced = artifact.clone();
    // Decoding takes its time, which is not the runtime's.
    tokio::task::spawn_blocking(move || check(&announced, &bytes))
        .await
        .unwrap_or_else(|_| Err("its decoder panicked".to_owned()))
        .map_err(|problem| CliError::Check(format!("the artifact {}: {problem}", path.display())))?;
    Ok(Saved { artifact: artifact.clone(), path })
}

/// Whether the bytes are the picture that was announced.
fn check(announced: &Artifact, bytes: &[u8]) -> Result<(), String> {
    if bytes.len() as u64 != announced.bytes {
        return Err(format!("{} bytes, and {} were announced", bytes.len(), announced.bytes));
    }
    let digest = hex(&Sha256::digest(bytes));
    if digest != announced.sha256 {
        return Err(format!("its SHA-256 is {digest}, and {} was announced", announced.sha256));
    }
    let picture = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| error.to_string())?
        .decode()
        .map_err(|error| format!("does not open: {error}"))?;
    let (size, expected) = ((picture.width(), picture.height()), (announced.width, announced.height));
    if size != expected {
        return Err(format!(
            "{} x {} pixels, and {} x {} were announced",
            size.0, size.1, expected.0, expected.1
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::picture;

    #[test]
    fn an_artifact_must_be_what_was_announced() {
        let bytes = picture::jpeg().unwrap();
        let artifact = Artifact {
            bytes: bytes.len() as u64,
            width: 1600,
            height: 1200,
            sha256: hex(&Sha256::digest(&bytes)),
            ..Artifact::default()
        };
        assert_eq!(check(&artifact, &bytes), Ok(()));
        let wrong = |artifact: Artifact, bytes: &[u8]| check(&artifact, bytes).unwrap_err();
        assert!(wrong(Artifact { width: 800, ..artifact.clone() }, &bytes).contains("1600 x 1200"));
        assert!(wrong(Artifact { sha256: "00".to_owned(), ..artifact.clone() }, &bytes).contains("SHA-256"));
        assert!(wrong(artifact.clone(), &bytes[1..]).contains("announced"));
        let junk = Artifact { bytes: 2, sha256: hex(&Sha256::digest(b"no")), ..artifact };
        assert!(wrong(junk, b"no").contains("does not open"));
    }
}
