//! What goes through the pipes between the service and its imaging processes: frames of a head and a body.
//!
//! Both lengths come first and are bounded by whoever reads, so that neither side makes the other allocate at will.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{ImagingError, Step};
use crate::domain::image::{Handling, Limits, Placement, Variant};

/// A head is names, sizes and a sentence or two.
const MOST_HEAD: usize = 64 * 1024;

/// What is asked for; the body is the picture's file. So many watermarks follow.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) variants: Vec<Variant>,
    pub(super) handling: Handling,
    pub(super) limits: Limits,
    pub(super) watermarks: usize,
}

/// A watermark; the body is its pixels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) name: String,
    pub(super) size: (u32, u32),
    pub(super) placement: Placement,
}

/// What is answered: once `Ready`, and then for each request steps and an end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The walls stand, as far as the system has them, and requests are read.
    Ready(Walls),
    /// A step; the body is what a finished artifact consists of.
    Step(Step),
    /// All of it is made.
    Done,
    /// It cannot be made.
    Failed(Failure),
}

/// What keeps an imaging process in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walls {
    /// Limits on memory, processor time, files and core dumps.
    pub limits: bool,
    /// System calls other than those for memory and the pipes are refused: no files, no network.
    pub system_calls: bool,
    /// It ends with the service, however that ends.
    pub ends_with_the_service: bool,
}

impl Walls {
    /// Each by its name, and whether it stands.
    #[must_use]
    pub fn named(&self) -> [(&'static str, bool); 3] {
        [
            ("resource limits", self.limits),
            ("system call filter", self.system_calls),
            ("ends with the service", self.ends_with_the_service),
        ]
    }
}

/// An [`ImagingError`] on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    Truncated(String),
    Undecodable(String),
    /// Where the code panicked.
    Panicked(String),
}

impl Failure {
    pub(super) fn of(error: ImagingError, panicked_at: String) -> Self {
        match error {
            ImagingError::Truncated { detail } => Self::Truncated(detail),
            ImagingError::Undecodable { detail } => Self::Undecodable(detail),
            ImagingError::Panicked => Self::Panicked(panicked_at),
            // The service has walked through the container before, and so has met all others itself.
            error => Self::Undecodable(error.to_string()),
        }
    }

    pub(super) fn into_error(self) -> ImagingError {
        match self {
            Self::Truncated(detail) => ImagingError::Truncated { detail },
            Self::Undecodable(detail) => ImagingError::Undecodable { detail },
            Self::Panicked(place) => {
                tracing::error!(place, "imaging panicked");
                ImagingError::Panicked
            }
        }
    }
}

/// Writes a frame and flushes.
pub(super) fn write(to: &mut impl Write, head: &impl Serialize, body: &[u8]) -> io::Result<()> {
    let head = postcard::to_stdvec(head).map_err(io::Error::other)?;
    let length = u32::try_from(head.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&(body.len() as u64).to_le_bytes())?;
    to.write_all(&head)?;
    to.write_all(body)?;
    to.flush()
}

/// Reads a frame with a body of at most `most` bytes; `None` at the end of the stream.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl Read, most: u64) -> io::Result<Option<(T, Vec<u8>)>> {
    let mut head = [0; 4];
    if from.read(&mut head[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..])?;
    let mut body = [0; 8];
    from.read_exact(&mut body)?;
    let head = usize::try_from(u32::from_le_bytes(head)).ok().filter(|length| *length <= MOST_HEAD);
    let body = Some(u64::from_le_bytes(body)).filter(|length| *length <= most);
    let body = body.and_then(|length| usize::try_from(length).ok());
    let (Some(head), Some(body)) = (head, body) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
    };
    let mut bytes = vec![0; head];
    from.read_exact(&mut bytes)?;
    let head =
        postcard::from_bytes(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let mut bytes = vec![0; body];
    from.read_exact(&mut bytes)?;
    Ok(Some((head, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut pipe = Vec::new();
        write(&mut pipe, &Reply::Failed(Failure::Truncated("here".to_owned())), b"").unwrap();
        write(&mut pipe, &"head", b"body").unwrap();
        let mut pipe = pipe.as_slice();
        let (reply, body) = read::<Reply>(&mut pipe, 0).unwrap().unwrap();
        assert!(matches!(reply, Reply::Failed(Failure::Truncated(detail)) if detail == "here"));
        assert!(body.is_empty());
        assert_eq!(read::<String>(&mut pipe, 4).unwrap().unwrap(), ("head".to_owned(), b"body".to_vec()));
        assert!(read::<String>(&mut pipe, 4).unwrap().is_none());
    }

    #[test]
    fn lengths_are_bounded_and_cuts_are_found() {
        let mut frame = Vec::new();
        write(&mut frame, &"head", b"body").unwrap();
        assert!(read::<String>(&mut frame.as_slice(), 3).is_err());
        for cut in 1..frame.len() {
            assert!(read::<String>(&mut &frame[..cut], 4).is_err(), "{cut}");
        }
        let endless = [&u32::MAX.to_le_bytes()[..], &[0; 8], b"head"].concat();
        assert!(read::<String>(&mut endless.as_slice(), 4).is_err());
    }
}
