//! The walk through a WebP: RIFF chunks (RFC 9649, section 2).

use std::io::{BufRead, Seek};

use super::container::{Header, Part, Role, Source, Visit, check_size, orientation};
use super::{Coding, ImagingError};
use crate::domain::image::{Format, Limits};

const CHUNK_HEADER_LENGTH: u64 = 8;

/// The flags in VP8X that announce other chunks.
pub(super) const FLAG_ICC: u8 = 0x20;
pub(super) const FLAG_EXIF: u8 = 0x08;
pub(super) const FLAG_XMP: u8 = 0x04;
const FLAG_ANIMATION: u8 = 0x02;
const FLAG_ALPHA: u8 = 0x10;

pub(super) fn walk<R: BufRead + Seek>(
    source: &mut Source<'_, R>,
    limits: &Limits,
    visit: Visit<'_>,
) -> Result<Header, ImagingError> {
    // `RIFF`, its size, `WEBP`
    let [_, _, _, _, size @ .., _, _, _, _] = source.array::<12>()?;
    // The size counts from `WEBP` on. It is checked at the end, as what is wrong with the picture itself
    // says more than that bytes are missing.
    let end = u64::from(u32::from_le_bytes(size)) + 8;
    visit(Part { role: Role::Picture, range: 0..source.position() });
    let mut walk = Walk { source, limits, header: None, extended: false, frames: 0 };
    loop {
        let start = walk.source.position();
        let role = walk.chunk(end)?;
        visit(Part { role, range: start..walk.source.position() });
        if walk.source.position() + CHUNK_HEADER_LENGTH > end {
            return walk.finish(end);
        }
    }
}

fn coding(alpha: bool) -> Coding {
    Coding { samples: if alpha { 4 } else { 3 }, ..Coding::default() }
}

struct Walk<'a, 'b, R> {
    source: &'a mut Source<'b, R>,
    limits: &'a Limits,
    /// Set by the first chunk.
    header: Option<Header>,
    /// Whether the first chunk is VP8X, without which there is one chunk and nothing else counts.
    extended: bool,
    frames: u64,
}

impl<R: BufRead + Seek> Walk<'_, '_, R> {
    /// One chunk of the file with its padding, all of which lies before `end`.
    fn chunk(&mut self, end: u64) -> Result<Role, ImagingError> {
        let (kind, length) = self.chunk_header()?;
        let chunk_end = self.source.position() + length;
        let role = match (&kind, self.header) {
            (b"VP8X", None) => self.canvas(length)?,
            (b"VP8 " | b"VP8L", header) => self.still(kind, length, header)?,
            (_, None) => {
                return Err(ImagingError::undecodable("the WebP file does not start with its header"));
            }
            (b"ANMF", Some(canvas)) => self.frame(chunk_end, canvas)?,
            (b"EXIF", Some(header)) if self.extended => self.exif(length, header)?,
            (b"ALPH" | b"ANIM", _) => Role::Picture,
            (b"ICCP", _) => Role::Profile,
            _ => Role::Metadata,
        };
        self.skip_to(chunk_end)?;
        // Only a last chunk may lack its padding; where the file's size counts it, it must be there.
        if length % 2 == 1 && chunk_end < end {
            self.source.skip(1)?;
        }
        Ok(role)
    }

    fn chunk_header(&mut self) -> Result<([u8; 4], u64), ImagingError> {
        let kind = self.source.array()?;
        let length = u32::from_le_bytes(self.source.array()?);
        Ok((kind, length.into()))
    }

    /// On to the end of a chunk of which some has been read.
    fn skip_to(&mut self, chunk_end: u64) -> Result<(), ImagingError> {
        let rest = chunk_end.checked_sub(self.source.position());
        self.source.skip(rest.ok_or_else(|| malformed("chunk is shorter than what it holds"))?)
    }

    /// VP8X: flags and the size of the canvas.
    fn canvas(&mut self, length: u64) -> Result<Role, ImagingError> {
        let [flags, _, _, _, w0, w1, w2, h0, h1, h2] = self.source.array()?;
        let size = (u24([w0, w1, w2]) + 1, u24([h0, h1, h2]) + 1);
        check_size(size, self.limits)?;
        if length < 10 {
            return Err(malformed("header is too short"));
        }
        self.extended = true;
        self.header = Some(Header {
            animated: flags & FLAG_ANIMATION != 0,
            coding: coding(flags & FLAG_ALPHA != 0),
            ..Header::new(Format::WebP, size)
        });
        Ok(Role::Picture)
    }

    /// A picture that is no frame of an animation.
    fn still(&mut self, kind: [u8; 4], length: u64, header: Option<Header>) -> Result<Role, ImagingError> {
        if self.frames > 0 {
            // Decoders take the first.
            return Ok(Role::Metadata);
        }
        let size = self.bitstream_size(kind, length)?;
        match header {
            None => {
                check_size(size, self.limits)?;
                // VP8 has alpha only in a chunk of its own, which VP8X announces.
                let coding = coding(&kind == b"VP8L");
                self.header = Some(Header { coding, ..Header::new(Format::WebP, size) });
            }
            Some(canvas) if (canvas.width, canvas.height) != size => {
                return Err(malformed("sizes contradict"));
            }
            Some(_) => {}
        }
        self.frames += 1;
        Ok(Role::Picture)
    }

    /// ANMF: where the frame goes, its size, and its picture in chunks of their own.
    fn frame(&mut self, chunk_end: u64, canvas: Header) -> Result<Role, ImagingError> {
        let [x0, x1, x2, y0, y1, y2, w0, w1, w2, h0, h1, h2, ..] = self.source.array::<16>()?;
        let size = (u24([w0, w1, w2]) + 1, u24([h0, h1, h2]) + 1);
        // The position is stored halved. 24 bits and 25 bits add up to less than 32.
        let (right, bottom) = (u24([x0, x1, x2]) * 2 + size.0, u24([y0, y1, y2]) * 2 + size.1);
        if right > canvas.width || bottom > canvas.height {
            return Err(malformed("frame lies outside of its canvas"));
        }
        while self.source.position() + CHUNK_HEADER_LENGTH <= chunk_end {
            let (kind, length) = self.chunk_header()?;
            let inner_end = self.source.position() + length;
            if inner_end > chunk_end {
                return Err(malformed("chunk is longer than its frame"));
            }
            if matches!(&kind, b"VP8 " | b"VP8L") {
                // Decoders allocate what the picture in the frame claims.
                if self.bitstream_size(kind, length)? != size {
                    return Err(malformed("sizes contradict"));
                }
                self.frames += 1;
            }
            self.skip_to((inner_end + length % 2).min(chunk_end))?;
        }
        Ok(Role::Picture)
    }

    /// Width and height from the head of the compressed data.
    fn bitstream_size(&mut self, kind: [u8; 4], length: u64) -> Result<(u32, u32), ImagingError> {
        // 14 bits each; in VP8 the two bits above them tell how to scale, which nobody does.
        const SIDE: u32 = 0x3FFF;
        if &kind == b"VP8L" {
            let [signature, bits @ ..] = self.source.array::<5>()?;
            let bits = u32::from_le_bytes(bits);
            return if signature == 0x2F && length >= 5 {
                Ok(((bits & SIDE) + 1, ((bits >> 14) & SIDE) + 1))
            } else {
                Err(malformed("picture data has no valid head"))
            };
        }
        let [tag, _, _, s0, s1, s2, w0, w1, h0, h1] = self.source.array()?;
        if tag & 1 == 0 && [s0, s1, s2] == [0x9D, 0x01, 0x2A] && length >= 10 {
            Ok((
                u32::from(u16::from_le_bytes([w0, w1])) & SIDE,
                u32::from(u16::from_le_bytes([h0, h1])) & SIDE,
            ))
        } else {
            Err(malformed("picture data has no valid head"))
        }
    }

    fn exif(&mut self, length: u64, header: Header) -> Result<Role, ImagingError> {
        let orientation = orientation(&self.source.block(length)?).unwrap_or(header.orientation);
        self.header = Some(Header { orientation, ..header });
        Ok(Role::Exif)
    }

    fn finish(self, end: u64) -> Result<Header, ImagingError> {
        if end > self.source.position() + self.source.remaining() {
            return Err(self.source.truncated());
        }
        if end < self.source.position() {
            return Err(malformed("chunk is longer than the file says it is"));
        }
        let header = self.header.filter(|_| self.frames > 0);
        header.ok_or_else(|| ImagingError::undecodable("the WebP file holds no picture"))
    }
}

fn u24([b0, b1, b2]: [u8; 3]) -> u32 {
    u32::from_le_bytes([b0, b1, b2, 0])
}

fn malformed(what: &str) -> ImagingError {
    ImagingError::undecodable(format!("a WebP {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::fixtures::{
        animated_webp, assert_every_cut_is_found, exif, extended_webp, holed, probed, riff_chunk, webp,
        webp_bitstream,
    };

    #[test]
    fn every_cut_is_found() {
        let simple = webp(&holed(24, 16));
        assert_every_cut_is_found(&simple);
        assert_every_cut_is_found(&animated_webp(&holed(8, 6), &exif(1)));
        // The last chunk is padded here.
        let image = (b"VP8L", webp_bitstream(&simple));
        assert_every_cut_is_found(&extended_webp(0x10, 24, 16, &[image, (b"XMP ", b"odd")]));
        // Here follows less than a chunk.
        let body = [&simple[8..], b"rest"].concat();
        assert_every_cut_is_found(&riff_chunk((b"RIFF", &body)));
    }

    #[test]
    fn size_is_checked_before_anything_else() {
        let canvas = &extended_webp(0, 1 << 24, 1 << 24, &[])[..30];
        let error = probed(canvas).unwrap_err();
        assert!(matches!(error, ImagingError::TooLarge { width: 0x100_0000, .. }), "{error}");

        let lossy = [0, 0, 0, 0x9D, 0x01, 0x2A, 0xFF, 0x3F, 0xFF, 0x3F];
        let body = [b"WEBP".as_slice(), &riff_chunk((b"VP8 ", &lossy))].concat();
        let error = probed(&riff_chunk((b"RIFF", &body))).unwrap_err();
        assert!(matches!(error, ImagingError::TooLarge { width: 16_383, height: 16_383, .. }), "{error}");

        let lossless = [b"WEBP".as_slice(), &riff_chunk((b"VP8L", &[0x2F, 0xFF, 0xFF, 0xFF, 0x0F]))].concat();
        let error = probed(&riff_chunk((b"RIFF", &lossless))).unwrap_err();
        assert!(matches!(error, ImagingError::TooLarge { width: 16_384, height: 16_384, .. }), "{error}");
    }

    /// Decoders allocate by what stands inside.
    #[test]
    fn sizes_that_contradict_are_refused() {
        let large = webp(&holed(24, 16));
        let image = (b"VP8L", webp_bitstream(&large));
        assert!(matches!(probed(&extended_webp(0, 8, 8, &[image])), Err(ImagingError::Undecodable { .. })));
        let mut frame = vec![0, 0, 0, 0, 0, 0, 23, 0, 0, 15, 0, 0, 50, 0, 0, 0];
        frame.extend(riff_chunk(image));
        let animated =
            |frame: &[u8]| probed(&extended_webp(2, 24, 16, &[(b"ANIM", &[0; 6]), (b"ANMF", frame)]));
        animated(&frame).unwrap();
        // Two pixels to the right
        frame[0] = 1;
        assert!(matches!(animated(&frame), Err(ImagingError::Undecodable { .. })));
        frame[0] = 0;
        frame[6] = 7;
        assert!(matches!(animated(&frame), Err(ImagingError::Undecodable { .. })));
    }
}
