//! The walk through a JPEG: markers, segments and scans up to EOI (ITU-T T.81, annex B).

use std::io::{BufRead, Seek};

use super::container::{EXIF_PREFIX, Header, Part, Role, Source, Visit, check_size, orientation};
use super::{Coding, ImagingError};
use crate::domain::image::{Format, Limits};

/// A progressive picture has about ten scans. Each costs a pass over all of its coefficients, so without
/// a bound a few kilobytes of empty scans keep a thread busy for minutes.
pub(super) const MAX_SCANS: usize = 100;

const TEM: u8 = 0x01;
const SOF0: u8 = 0xC0;
const SOF2: u8 = 0xC2;
const DHT: u8 = 0xC4;
const JPG: u8 = 0xC8;
const DAC: u8 = 0xCC;
const SOF15: u8 = 0xCF;
const RST0: u8 = 0xD0;
const RST7: u8 = 0xD7;
const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const APP0: u8 = 0xE0;
const APP1: u8 = 0xE1;
const APP2: u8 = 0xE2;
const APP14: u8 = 0xEE;
const APP15: u8 = 0xEF;
const COM: u8 = 0xFE;

/// Every JPEG marker is this byte and its own.
const MARKER: u8 = 0xFF;

pub(super) fn walk<R: BufRead + Seek>(
    source: &mut Source<'_, R>,
    limits: &Limits,
    visit: Visit<'_>,
) -> Result<Header, ImagingError> {
    let mut walk = Walk {
        source,
        limits,
        visit,
        header: None,
        frame: Frame::default(),
        scans: 0,
        found: Found::default(),
    };
    match walk.parts() {
        Err(error) if walk.scans > 0 && walk.source.allows(&error) => {
            Ok(Header { truncated: true, ..walk.finish()? })
        }
        Err(error) => Err(error),
        Ok(()) => walk.finish(),
    }
}

struct Walk<'a, 'b, R> {
    source: &'a mut Source<'b, R>,
    limits: &'a Limits,
    visit: Visit<'a>,
    /// Set by the frame header.
    header: Option<Header>,
    frame: Frame,
    scans: usize,
    found: Found,
}

/// How the frame is stored.
#[derive(Default)]
struct Frame {
    components: u8,
    progressive: bool,
}

/// What stands in the application segments, which mostly come before the frame header.
#[derive(Default)]
struct Found {
    orientation: Option<image::metadata::Orientation>,
    adobe: bool,
}

impl<R: BufRead + Seek> Walk<'_, '_, R> {
    /// All parts up to the end-of-image marker.
    fn parts(&mut self) -> Result<(), ImagingError> {
        // The start-of-image marker is what the format was recognized by.
        self.source.skip(2)?;
        self.emit(Role::Picture, 0);
        let mut marker = self.next_marker()?;
        loop {
            let start = self.source.position() - 2;
            marker = match marker {
                EOI => {
                    self.emit(Role::Picture, start);
                    return Ok(());
                }
                SOI => return Err(ImagingError::undecodable("a second JPEG starts inside of it")),
                TEM => self.next_marker()?,
                SOS => self.scan(start)?,
                _ => {
                    self.segment(marker, start)?;
                    self.next_marker()?
                }
            };
        }
    }

    /// Reports all from `start` to here.
    fn emit(&mut self, role: Role, start: u64) {
        (self.visit)(Part { role, range: start..self.source.position() });
    }

    /// Goes on to the next marker that is no part of entropy-coded data, and past it.
    ///
    /// Inside a scan FF 00 stands for the byte FF and RST0 to RST7 are part of the data; between segments
    /// neither has a meaning and other bytes are passed over too, as all decoders do.
    fn next_marker(&mut self) -> Result<u8, ImagingError> {
        loop {
            self.source.skip_past(MARKER)?;
            let mut code = self.source.byte()?;
            while code == MARKER {
                code = self.source.byte()?;
            }
            if !matches!(code, 0 | RST0..=RST7) {
                return Ok(code);
            }
        }
    }

    /// The number of bytes after a segment's length field, which counts itself.
    fn segment_length(&mut self) -> Result<u64, ImagingError> {
        let length = u64::from(u16::from_be_bytes(self.source.array()?));
        length.checked_sub(2).ok_or_else(impossible_length)
    }

    fn segment(&mut self, marker: u8, start: u64) -> Result<(), ImagingError> {
        let length = self.segment_length()?;
        let role = match marker {
            APP0..=APP15 => self.application(marker, length)?,
            _ if is_frame_header(marker) => self.frame(marker, length)?,
            _ => {
                self.source.skip(length)?;
                if marker == COM { Role::Metadata } else { Role::Picture }
            }
        };
        self.emit(role, start);
        Ok(())
    }

    /// The frame header: precision, height, width, number of components.
    fn frame(&mut self, marker: u8, length: u64) -> Result<Role, ImagingError> {
        if self.header.is_some() {
            return Err(ImagingError::undecodable("it has more than one JPEG frame"));
        }
        if !(SOF0..=SOF2).contains(&marker) {
            return Err(ImagingError::Unsupported { detected: Some("lossless or arithmetic-coded JPEG") });
        }
        let [precision, h1, h0, w1, w0, components] = self.source.array()?;
        let size = (u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into());
        check_size(size, self.limits)?;
        if precision != 8 {
            return Err(ImagingError::Unsupported {
                detected: Some("JPEG with more than 8 bits per sample"),
            });
        }
        // Three bytes follow for each component.
        if !matches!(components, 1 | 3 | 4) || length != 6 + 3 * u64::from(components) {
            return Err(ImagingError::undecodable("its JPEG frame header is malformed"));
        }
        self.source.skip(length - 6)?;
        let progressive = marker == SOF2;
        let coding = Coding { samples: components, sample_bytes: 1, progressive };
        self.header = Some(Header { coding, ..Header::new(Format::Jpeg, size) });
        self.frame = Frame { components, progressive };
        Ok(Role::Picture)
    }

    fn application(&mut self, marker: u8, length: u64) -> Result<Role, ImagingError> {
        let data = self.source.block(length)?;
        match marker {
            // Thumbnail-free JFIF has these 14 bytes. With a thumbnail it may show what was cropped away;
            // decoders assume the colours that JFIF prescribes without it too.
            APP0 if data.starts_with(b"JFIF\0") && data.len() == 14 => return Ok(Role::Picture),
            APP1 if data.starts_with(EXIF_PREFIX) => {
                self.found.orientation = self.found.orientation.or_else(|| orientation(&data));
                return Ok(Role::Exif);
            }
            APP2 if data.starts_with(b"ICC_PROFILE\0") => return Ok(Role::Profile),
            // Without it RGB would be taken for YCbCr, and inverted CMYK for plain.
            APP14 if data.starts_with(b"Adobe") => {
                self.found.adobe = true;
                return Ok(Role::Picture);
            }
            _ => {}
        }
        Ok(Role::Metadata)
    }

    /// A scan: its header and the data up to the marker that is returned.
    fn scan(&mut self, start: u64) -> Result<u8, ImagingError> {
        if self.header.is_none() {
            return Err(ImagingError::undecodable("its JPEG frame header is missing"));
        }
        self.scans += 1;
        if self.scans > MAX_SCANS {
            return Err(ImagingError::undecodable(format!("it has more than {MAX_SCANS} JPEG scans")));
        }
        let length = self.segment_length()?;
        let components = self.source.byte()?;
        // Rare but valid, and decoded to wrong colours instead of an error.
        if !self.frame.progressive && components != self.frame.components {
            return Err(ImagingError::Unsupported {
                detected: Some("sequential JPEG with separate scans for its colours"),
            });
        }
        self.source.skip(length.checked_sub(1).ok_or_else(impossible_length)?)?;
        let marker = self.next_marker()?;
        (self.visit)(Part { role: Role::Picture, range: start..self.source.position() - 2 });
        Ok(marker)
    }

    fn finish(&self) -> Result<Header, ImagingError> {
        let header = self.header.filter(|_| self.scans > 0);
        let header = header.ok_or_else(|| ImagingError::undecodable("the JPEG file holds no picture"))?;
        Ok(Header {
            orientation: self.found.orientation.unwrap_or(header.orientation),
            adobe: self.found.adobe,
            ..header
        })
    }
}

fn impossible_length() -> ImagingError {
    ImagingError::undecodable("a JPEG segment has an impossible length")
}

/// Three tables have numbers from the range of the frame headers.
fn is_frame_header(marker: u8) -> bool {
    matches!(marker, SOF0..=SOF15) && !matches!(marker, DHT | JPG | DAC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::fixtures::{
        assert_every_cut_is_found, jpeg, jpeg_exif, picture, probed, with_segments,
    };

    fn header(marker: u8, width: u16, height: u16) -> Vec<u8> {
        let mut bytes = vec![0xFF, 0xD8, 0xFF, marker, 0, 17, 8];
        bytes.extend(height.to_be_bytes());
        bytes.extend(width.to_be_bytes());
        bytes.extend([3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]);
        bytes
    }

    #[test]
    fn every_cut_is_found() {
        let bytes = with_segments(jpeg(&picture(40, 24), 60), &[(APP1, &jpeg_exif(6)), (COM, b"x")]);
        assert_every_cut_is_found(&bytes);
        let mut progressive = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut progressive, 60);
        encoder.set_progressive(true);
        encoder.set_restart_interval(2);
        encoder.encode(&picture(40, 24), 40, 24, jpeg_encoder::ColorType::Rgb).unwrap();
        assert_every_cut_is_found(&progressive);
    }

    #[test]
    fn what_follows_the_end_does_not_matter() {
        let mut bytes = jpeg(&picture(40, 24), 60);
        let probe = probed(&bytes).unwrap();
        bytes.extend(b"a motion photo's video");
        assert_eq!(probed(&bytes).unwrap(), probe);
        assert_eq!((probe.width, probe.height), (40, 24));
    }

    #[test]
    fn size_is_checked_before_anything_else() {
        for marker in [SOF0, SOF2] {
            let error = probed(&header(marker, 16_000, 16_000)).unwrap_err();
            assert!(matches!(error, ImagingError::TooLarge { width: 16_000, height: 16_000, .. }), "{error}");
            let error = probed(&header(marker, 0, 100)).unwrap_err();
            assert!(matches!(error, ImagingError::Undecodable { .. }), "{error}");
            assert!(matches!(probed(&header(marker, 100, 100)), Err(ImagingError::Truncated { .. })));
        }
    }

    #[test]
    fn kinds_that_are_not_decoded_are_named() {
        let error = probed(&header(0xC9, 10, 10)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the file is lossless or arithmetic-coded JPEG; JPEG, PNG, WebP and GIF pictures are accepted"
        );
        // This encoder writes one scan for each component when it makes its own tables.
        let mut separate = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut separate, 60);
        encoder.set_optimized_huffman_tables(true);
        encoder.encode(&picture(40, 24), 40, 24, jpeg_encoder::ColorType::Rgb).unwrap();
        assert!(matches!(probed(&separate), Err(ImagingError::Unsupported { detected: Some(_) })));
    }

    #[test]
    fn a_jpeg_inside_of_a_jpeg_is_no_picture() {
        let whole = jpeg(&picture(40, 24), 60);
        let nested = [&whole[..20], &whole].concat();
        assert!(matches!(probed(&nested), Err(ImagingError::Undecodable { .. })));
    }

    #[test]
    fn scans_are_counted() {
        let with_scans = |count: usize| {
            let mut bytes = header(SOF2, 100, 100);
            for _ in 0..count {
                bytes.extend([0xFF, SOS, 0, 8, 1, 1, 0, 1, 1, 0]);
            }
            bytes.extend([0xFF, EOI]);
            probed(&bytes)
        };
        with_scans(1).unwrap();
        with_scans(MAX_SCANS).unwrap();
        assert!(matches!(with_scans(MAX_SCANS + 1), Err(ImagingError::Undecodable { .. })));
        assert!(matches!(with_scans(0), Err(ImagingError::Undecodable { .. })));
    }
}
