//! What a file is, by its first bytes and never by its name.

use crate::domain::image::Format;

/// How many bytes from the start are looked at. SVG is text, in which a licence may come before the tag.
pub(super) const MAGIC_LENGTH: usize = 1024;

/// The format of ours that starts like this.
pub(super) fn format(start: &[u8]) -> Option<Format> {
    match start {
        [0xFF, 0xD8, 0xFF, ..] => Some(Format::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Format::Png),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Format::Gif),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::WebP),
        _ => None,
    }
}

/// The name of what is not ours, to tell people what they sent.
pub(super) fn foreign(start: &[u8]) -> Option<&'static str> {
    const MAGICS: &[(&[u8], &str)] = &[
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),
        (b"MM\0+", "TIFF"),
        (b"%PDF-", "PDF"),
        (b"%!PS", "PostScript"),
        (b"8BPS", "Photoshop"),
        (b"\xFF\x0A", "JPEG XL"),
        (b"\0\0\0\x0CJXL ", "JPEG XL"),
        (b"\xFF\x4F\xFF\x51", "JPEG 2000"),
        (b"\0\0\0\x0CjP  ", "JPEG 2000"),
        (b"\0\0\x01\0", "an icon (ICO)"),
        (b"\x76\x2F\x31\x01", "OpenEXR"),
        (b"#?RADIANCE", "Radiance HDR"),
        (b"qoif", "QOI"),
        (b"DDS ", "DDS"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1F\x8B", "gzip"),
        (b"\x1A\x45\xDF\xA3", "Matroska or WebM video"),
        (b"BM", "BMP"),
    ];
    let magic = MAGICS.iter().find(|(magic, _)| start.starts_with(magic)).map(|&(_, name)| name);
    magic.or_else(|| isobmff(start)).or_else(|| markup(start))
}

/// The family of MP4: a length, `ftyp`, and the brand.
fn isobmff(start: &[u8]) -> Option<&'static str> {
    let [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] = start else { return None };
    match brand.first_chunk()? {
        b"avif" | b"avis" => Some("AVIF"),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => Some("HEIC"),
        b"crx " => Some("Canon raw"),
        b"qt  " => Some("QuickTime video"),
        _ => Some("MP4 video"),
    }
}

fn markup(start: &[u8]) -> Option<&'static str> {
    let text = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start).trim_ascii_start();
    if !text.starts_with(b"<") {
        return None;
    }
    let has = |tag: &[u8]| text.windows(tag.len()).any(|window| window.eq_ignore_ascii_case(tag));
    if has(b"<svg") {
        Some("SVG")
    } else if has(b"<!doctype html") || has(b"<html") {
        Some("HTML")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_formats_are_known_by_their_first_bytes() {
        assert_eq!(format(b"\xFF\xD8\xFF\xE0"), Some(Format::Jpeg));
        assert_eq!(format(b"\x89PNG\r\n\x1A\n\0"), Some(Format::Png));
        assert_eq!(format(b"GIF87a"), Some(Format::Gif));
        assert_eq!(format(b"GIF89a"), Some(Format::Gif));
        assert_eq!(format(b"RIFF\x10\0\0\0WEBPVP8 "), Some(Format::WebP));
        // A text-mode transfer turned \r\n into \n; RIFF also holds sound and video.
        assert_eq!(format(b"\x89PNG\n\x1A\n\0"), None);
        assert_eq!(format(b"RIFF\x10\0\0\0WAVEfmt "), None);
        assert_eq!(format(b""), None);
    }

    #[test]
    fn foreign_files_are_named() {
        let svg: &[u8] = b"\xEF\xBB\xBF\n<?xml version='1.0'?><!-- x --><SVG width='1'/>";
        for (start, name) in [
            (svg, "SVG"),
            (b"<!DOCTYPE html><p>", "HTML"),
            (b"II*\0\x08\0\0\0", "TIFF"),
            (b"\0\0\0\x1Cftypavif\0\0\0\0", "AVIF"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
            (b"\0\0\0\x18ftypisom\0\0\0\0", "MP4 video"),
            (b"BM\x36\0", "BMP"),
            (b"%PDF-1.7", "PDF"),
        ] {
            assert_eq!(foreign(start), Some(name));
        }
        assert_eq!(foreign(b"hello"), None);
        assert_eq!(foreign(b"<note/>"), None);
        assert_eq!(foreign(b"\0\0\0\x1Cftyp"), None);
    }
}
