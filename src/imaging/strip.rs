//! The input's own bytes with nothing in them but the picture.

use std::io::Cursor;
use std::ops::Range;

use image::metadata::Orientation;

use super::ImagingError;
use super::container::{self, Header, Role};
use super::webp::{FLAG_EXIF, FLAG_ICC, FLAG_XMP};
use crate::domain::image::{Format, Limits};

/// The pictures of `input` as they are, without metadata and without what follows the last byte of the
/// picture. An orientation stays, as all that is left of the EXIF block; a colour profile only on demand.
pub(super) fn clean(
    input: &[u8],
    header: &Header,
    keep_profile: bool,
    limits: &Limits,
) -> Result<Vec<u8>, ImagingError> {
    let mut bytes = Vec::with_capacity(input.len());
    let mut has_profile = false;
    container::walk(&mut Cursor::new(input), limits, false, &mut |part| {
        let keep = match part.role {
            Role::Picture => true,
            Role::Profile => keep_profile,
            Role::Exif | Role::Metadata => false,
        };
        if keep {
            has_profile |= part.role == Role::Profile;
            bytes.extend_from_slice(slice(input, part.range));
        }
    })?;
    match header.format {
        Format::WebP => finish_webp(&mut bytes, has_profile, header.orientation),
        Format::Png => finish_png(&mut bytes, header.orientation),
        // A JPEG that has to be turned is always encoded anew; a GIF has no orientation.
        Format::Jpeg | Format::Gif | Format::Avif => {}
    }
    Ok(bytes)
}

fn slice(input: &[u8], range: Range<u64>) -> &[u8] {
    let bounds = (usize::try_from(range.start), usize::try_from(range.end));
    let (Ok(start), Ok(end)) = bounds else { return &[] };
    input.get(start..end).unwrap_or_default()
}

/// Sets the file's size and the flags that say which chunks there are.
fn finish_webp(bytes: &mut Vec<u8>, has_profile: bool, orientation: Orientation) {
    const FLAGS: usize = 20;
    let turned = orientation != Orientation::NoTransforms;
    // Without VP8X there are neither flags nor, by the walk, an orientation.
    if bytes.get(12..16) == Some(b"VP8X")
        && let Some(flags) = bytes.get_mut(FLAGS)
    {
        *flags &= !(FLAG_ICC | FLAG_EXIF | FLAG_XMP);
        *flags |= if has_profile { FLAG_ICC } else { 0 };
        *flags |= if turned { FLAG_EXIF } else { 0 };
    }
    if turned {
        let exif = orientation_exif(orientation);
        bytes.extend_from_slice(b"EXIF");
        bytes.extend_from_slice(&EXIF_LENGTH.to_le_bytes());
        bytes.extend_from_slice(&exif);
    }
    // The size counts from `WEBP` on; no file that was read is longer than its own size field allows.
    let size = u32::try_from(bytes.len().saturating_sub(8)).unwrap_or(u32::MAX);
    if let Some(field) = bytes.get_mut(4..8) {
        field.copy_from_slice(&size.to_le_bytes());
    }
}

/// Puts the orientation behind IHDR, as it has to come before the data.
fn finish_png(bytes: &mut Vec<u8>, orientation: Orientation) {
    /// The signature's 8 bytes, then length, name, 13 bytes and checksum of IHDR.
    const AFTER_IHDR: usize = 8 + 4 + 4 + 13 + 4;
    if orientation == Orientation::NoTransforms || bytes.len() < AFTER_IHDR {
        return;
    }
    let mut named = b"eXIf".to_vec();
    named.extend_from_slice(&orientation_exif(orientation));
    let chunk = [&EXIF_LENGTH.to_be_bytes(), named.as_slice(), &crc32(&named).to_be_bytes()].concat();
    bytes.splice(AFTER_IHDR..AFTER_IHDR, chunk);
}

/// A TIFF header of 8 bytes, then a directory of one 12-byte entry between its count and its end.
const EXIF_LENGTH: u32 = 8 + 2 + 12 + 4;

/// An EXIF block that says how the picture is turned and nothing else.
#[rustfmt::skip]
fn orientation_exif(orientation: Orientation) -> [u8; EXIF_LENGTH as usize] {
    [
        b'I', b'I', 42, 0, 8, 0, 0, 0, // little endian; the directory is at 8
        1, 0, // one entry
        0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation.to_exif(), 0, 0, 0, // tag 0x0112, one 16-bit number
        0, 0, 0, 0, // no further directory
    ]
}

/// The checksum of a PNG chunk (PNG, third edition, annex D), bit by bit, as it is over 30 bytes.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::fixtures::{
        LIMITS, SECRET, animated_webp, contains, exif, gif, holed, jpeg, jpeg_exif, picture, png, probed,
        with_chunks, with_segments,
    };

    fn cleaned(bytes: &[u8], keep_profile: bool) -> Vec<u8> {
        let header = container::walk(&mut Cursor::new(bytes), &LIMITS, false, &mut |_| ()).unwrap();
        clean(bytes, &header, keep_profile, &LIMITS).unwrap()
    }

    #[test]
    fn jpeg_keeps_its_picture_alone() {
        let plain = jpeg(&picture(40, 24), 80);
        let icc = [b"ICC_PROFILE\0\x01\x01".as_slice(), b"a profile"].concat();
        let adobe = b"Adobe\0\x64\0\0\0\0\x01";
        let segments: [(u8, &[u8]); 6] = [
            (0xE1, &jpeg_exif(1)),
            (0xE1, &[b"http://ns.adobe.com/xap/1.0/\0", SECRET].concat()),
            (0xED, SECRET),
            (0xFE, SECRET),
            (0xE2, &icc),
            (0xEE, adobe),
        ];
        let mut tagged = with_segments(plain.clone(), &segments);
        tagged.extend(SECRET);
        assert_eq!(cleaned(&tagged, true), with_segments(plain.clone(), &segments[4..]));
        assert_eq!(cleaned(&tagged, false), with_segments(plain.clone(), &segments[5..]));
        // A thumbnail in JFIF
        let thumbnail = with_segments(plain.clone(), &[(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\x01\x01abc")]);
        assert_eq!(cleaned(&thumbnail, false), plain);
    }

    #[test]
    fn png_keeps_its_picture_and_how_it_is_turned() {
        let plain = png(holed(24, 16));
        let mut tagged = with_chunks(
            plain.clone(),
            &[(b"tEXt", SECRET), (b"iCCP", b"p\0\0x"), (b"gAMA", &[0, 0, 0xB1, 0x8F]), (b"eXIf", &exif(6))],
        );
        let probe = probed(&tagged).unwrap();
        tagged.extend(SECRET);
        let clean = cleaned(&tagged, false);
        assert!(!contains(&clean, SECRET) && !contains(&clean, b"iCCP") && contains(&clean, b"gAMA"));
        assert_eq!(probed(&clean).unwrap(), probe);
        image::load_from_memory(&clean).unwrap();
        assert!(contains(&cleaned(&tagged, true), b"iCCP"));
        assert_eq!(cleaned(&plain, false), plain);
    }

    #[test]
    fn gif_keeps_its_frames_and_their_loop() {
        let plain = gif(&[holed(8, 6), holed(8, 6)]);
        assert!(contains(&plain, b"NETSCAPE2.0"));
        let trailer = plain.len() - 1;
        let comment = [b"\x21\xFE\x0D".as_slice(), SECRET, b"\0"].concat();
        let xmp = [b"\x21\xFF\x0BXMP DataXMP\x0D".as_slice(), SECRET, b"\0"].concat();
        let tagged = [&plain[..trailer], &comment, &xmp, b"\x3B", SECRET].concat();
        assert_eq!(cleaned(&tagged, false), plain);
    }

    #[test]
    fn webp_keeps_its_frames_and_how_they_are_turned() {
        let mut tagged = animated_webp(&holed(8, 6), &exif(6));
        let probe = probed(&tagged).unwrap();
        assert_eq!((probe.width, probe.height), (6, 8));
        tagged.extend(SECRET);
        let clean = cleaned(&tagged, false);
        assert!(!contains(&clean, SECRET) && !contains(&clean, b"XMP ") && !contains(&clean, b"abcd"));
        // Animation and alpha as before, EXIF, no XMP
        assert_eq!(clean[20], 0x02 | 0x10 | FLAG_EXIF);
        assert_eq!(probed(&clean).unwrap(), probe);
        image::load_from_memory(&clean).unwrap();
        let upright = cleaned(&animated_webp(&holed(8, 6), &exif(1)), false);
        assert!(!contains(&upright, b"EXIF"));
        assert_eq!(upright[20], 0x02 | 0x10);
    }

    #[test]
    fn checksum_is_that_of_png() {
        // Of every PNG's last chunk
        assert_eq!(crc32(b"IEND"), 0xAE42_6082);
    }
}
