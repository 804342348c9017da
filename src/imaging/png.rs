//! The walk through a PNG: chunks from IHDR to IEND.

use std::io::{self, BufRead, Read as _, Seek};

use flate2::read::ZlibDecoder;

use super::container::{Header, Part, Role, Source, Visit, check_size, orientation};
use super::{Coding, ImagingError};
use crate::domain::image::{Format, Limits};

/// The chunks that decide what a picture looks like.
///
/// Not among them: background and physical size, which no browser heeds.
pub(super) const PICTURE_CHUNKS: [[u8; 4]; 14] = [
    *b"IHDR", *b"PLTE", *b"IDAT", *b"IEND", *b"tRNS", *b"gAMA", *b"cHRM", *b"sRGB", *b"cICP", *b"mDCV",
    *b"cLLI", *b"acTL", *b"fcTL", *b"fdAT",
];

/// What compressed text or a profile may expand to; libpng's own limit. Nothing here expands text, but
/// the original is handed on to programs that may.
const MAX_EXPANDED: u64 = 8_000_000;

const SIGNATURE_LENGTH: u64 = 8;
const CRC_LENGTH: u64 = 4;

pub(super) fn walk<R: BufRead + Seek>(
    source: &mut Source<'_, R>,
    limits: &Limits,
    visit: Visit<'_>,
) -> Result<Header, ImagingError> {
    source.skip(SIGNATURE_LENGTH)?;
    let (size, coding) = image_header(source)?;
    check_size(size, limits)?;
    visit(Part { role: Role::Picture, range: 0..source.position() });
    let mut header = Header { coding, ..Header::new(Format::Png, size) };
    let mut has_data = false;
    loop {
        let start = source.position();
        match chunk(source, &mut header, &mut has_data) {
            Ok(kind) => {
                visit(Part { role: role(kind), range: start..source.position() });
                match &kind {
                    b"IEND" if has_data => return Ok(header),
                    b"IEND" => return Err(ImagingError::undecodable("the PNG file holds no picture data")),
                    _ => {}
                }
            }
            Err(error) if has_data && !header.animated && source.allows(&error) => {
                return Ok(Header { truncated: true, ..header });
            }
            Err(error) => return Err(error),
        }
    }
}

/// One chunk with its checksum.
fn chunk<R: BufRead + Seek>(
    source: &mut Source<'_, R>,
    header: &mut Header,
    has_data: &mut bool,
) -> Result<[u8; 4], ImagingError> {
    let length = u64::from(u32::from_be_bytes(source.array()?));
    let kind: [u8; 4] = source.array()?;
    // The decoder makes an alpha channel of a transparent colour.
    header.coding.samples = (header.coding.samples + u8::from(&kind == b"tRNS")).min(4);
    // After the first data it would not make the picture an animation.
    header.animated |= &kind == b"acTL" && !*has_data;
    *has_data |= &kind == b"IDAT";
    match &kind {
        b"eXIf" => header.orientation = orientation(&source.block(length)?).unwrap_or(header.orientation),
        b"zTXt" | b"iTXt" | b"iCCP" => check_expansion(kind, &source.block(length)?)?,
        _ => source.skip(length)?,
    }
    source.skip(CRC_LENGTH)?;
    Ok(kind)
}

fn role(kind: [u8; 4]) -> Role {
    if kind == *b"iCCP" {
        Role::Profile
    } else if kind == *b"eXIf" {
        Role::Exif
    } else if PICTURE_CHUNKS.contains(&kind) {
        Role::Picture
    } else {
        Role::Metadata
    }
}

/// Refuses a chunk that is a bomb: a few kilobytes that expand a thousandfold.
fn check_expansion(kind: [u8; 4], chunk: &[u8]) -> Result<(), ImagingError> {
    // Keyword or name, NUL; for iTXt a flag, and two more texts after the method.
    let mut parts = chunk.splitn(2, |byte| *byte == 0).skip(1);
    let compressed = match (&kind, parts.next().unwrap_or_default()) {
        (b"iTXt", [1, _, rest @ ..]) => rest.splitn(3, |byte| *byte == 0).nth(2),
        (b"zTXt" | b"iCCP", [_, rest @ ..]) => Some(rest),
        _ => None,
    };
    let mut expanded = ZlibDecoder::new(compressed.unwrap_or_default()).take(MAX_EXPANDED + 1);
    // Where it is damaged it ends, and what came before counts.
    let counted = io::copy(&mut expanded, &mut io::sink()).unwrap_or(0);
    if counted > MAX_EXPANDED {
        let detail = format!("its PNG metadata expands to more than {MAX_EXPANDED} bytes");
        return Err(ImagingError::Undecodable { detail });
    }
    Ok(())
}

/// Size and coding from IHDR, which must come first and be in order.
fn image_header<R: BufRead + Seek>(source: &mut Source<'_, R>) -> Result<((u32, u32), Coding), ImagingError> {
    let length = u32::from_be_bytes(source.array()?);
    let kind: [u8; 4] = source.array()?;
    if kind != *b"IHDR" || length != 13 {
        return Err(ImagingError::undecodable("the PNG file does not start with its header"));
    }
    let width = u32::from_be_bytes(source.array()?);
    let height = u32::from_be_bytes(source.array()?);
    let [depth, colour, compression, filter, interlace] = source.array()?;
    source.skip(CRC_LENGTH)?;
    let depth_fits = match colour {
        0 => matches!(depth, 1 | 2 | 4 | 8 | 16),
        3 => matches!(depth, 1 | 2 | 4 | 8),
        2 | 4 | 6 => matches!(depth, 8 | 16),
        _ => false,
    };
    if !depth_fits || compression != 0 || filter != 0 || interlace > 1 {
        return Err(ImagingError::undecodable("its PNG header is malformed"));
    }
    let samples = match colour {
        0 => 1,
        4 => 2,
        2 | 3 => 3,
        _ => 4,
    };
    let coding = Coding { samples, sample_bytes: depth.div_ceil(8), progressive: false };
    Ok(((width, height), coding))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;
    use crate::imaging::fixtures::{
        assert_every_cut_is_found, exif, holed, picture, png, probed, with_chunks,
    };

    #[test]
    fn every_cut_is_found() {
        assert_every_cut_is_found(&png(holed(24, 16)));
        assert_every_cut_is_found(&with_chunks(
            png(picture(24, 16)),
            &[(b"eXIf", &exif(6)), (b"tEXt", b"a\0b")],
        ));
    }

    #[test]
    fn size_is_checked_before_anything_else() {
        let sized = |width: u32, height: u32| {
            let mut bytes = png(picture(4, 4));
            bytes[16..20].copy_from_slice(&width.to_be_bytes());
            bytes[20..24].copy_from_slice(&height.to_be_bytes());
            bytes.truncate(40);
            probed(&bytes).unwrap_err()
        };
        assert!(matches!(sized(100_000, 100_000), ImagingError::TooLarge { width: 100_000, .. }));
        assert!(matches!(sized(u32::MAX, u32::MAX), ImagingError::TooLarge { height: u32::MAX, .. }));
        assert!(matches!(sized(0, 7), ImagingError::Undecodable { .. }));
        assert!(matches!(sized(4, 4), ImagingError::Truncated { .. }));
    }

    #[test]
    fn metadata_that_expands_without_measure_is_refused() {
        let deflated = |length: usize| {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&vec![b'a'; length]).unwrap();
            encoder.finish().unwrap()
        };
        for (kind, prefix) in
            [(b"zTXt", b"k\0\0".as_slice()), (b"iCCP", b"k\0\0"), (b"iTXt", b"k\0\x01\0en\0k\0")]
        {
            let with =
                |length| with_chunks(png(picture(4, 4)), &[(kind, &[prefix, &deflated(length)].concat())]);
            assert!(probed(&with(1_000_000)).is_ok());
            assert!(matches!(probed(&with(9_000_000)), Err(ImagingError::Undecodable { .. })));
        }
    }

    #[test]
    fn header_and_data_must_be_there() {
        let whole = png(picture(4, 4));
        let without_header = [&whole[..8], &whole[33..]].concat();
        assert!(matches!(probed(&without_header), Err(ImagingError::Undecodable { .. })));
        let without_data = [&whole[..33], &whole[whole.len() - 12..]].concat();
        assert!(matches!(probed(&without_data), Err(ImagingError::Undecodable { .. })));
        let mut odd_depth = whole;
        odd_depth[24] = 3;
        assert!(matches!(probed(&odd_depth), Err(ImagingError::Undecodable { .. })));
    }
}
