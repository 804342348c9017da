//! What stays of a picture's metadata, and what becomes of one that is cut short.

use std::io::Cursor;

use exif::experimental::Writer;
use exif::{Exif, Field, In, Reader, Tag, Value};
use image::{GenericImageView as _, ImageBuffer, Luma, RgbImage};

use super::pixels;
use crate::domain::image::{Handling, MetadataPolicy, Variant};
use crate::imaging::fixtures::{
    animated_webp, difference, gif, jpeg, made, noise, picture, png, probed, stored, webp, with_chunks,
    with_segments,
};
use crate::imaging::{Format, ImagingError, Rendered};

const OWNER: &[u8] = b"(c) Somebody";
const CAMERA: &[u8] = b"Camera 1";

fn text(tag: Tag, text: &[u8]) -> Field {
    Field { tag, ifd_num: In::PRIMARY, value: Value::Ascii(vec![text.to_vec()]) }
}

fn number(tag: Tag, number: u16) -> Field {
    Field { tag, ifd_num: In::PRIMARY, value: Value::Short(vec![number]) }
}

/// A block as a camera writes it, with a thumbnail.
fn block(orientation: u16) -> Vec<u8> {
    let fields = [
        text(Tag::Model, CAMERA),
        text(Tag::Copyright, OWNER),
        text(Tag::DateTimeOriginal, b"2026:11:21 09:00:00"),
        text(Tag::GPSLatitudeRef, b"N"),
        number(Tag::Orientation, orientation),
        number(Tag::ColorSpace, 0xFFFF),
        number(Tag::PixelXDimension, 4000),
        Field { tag: Tag::Orientation, ifd_num: In::THUMBNAIL, value: Value::Short(vec![orientation]) },
    ];
    let mut writer = Writer::new();
    fields.iter().for_each(|field| writer.push_field(field));
    writer.set_jpeg(b"a thumbnail", In::THUMBNAIL);
    let mut block = Cursor::new(Vec::new());
    writer.write(&mut block, false).unwrap();
    block.into_inner()
}

fn tagged_jpeg(orientation: u16) -> Vec<u8> {
    let stored = stored(&picture(64, 40), u8::try_from(orientation).unwrap());
    let exif = [b"Exif\0\0".as_slice(), &block(orientation)].concat();
    with_segments(jpeg(&stored, 95), &[(0xE1, &exif), (0xFE, b"a comment")])
}

fn with(bytes: &[u8], metadata: MetadataPolicy) -> Vec<Rendered> {
    let mut variants = Variant::defaults();
    variants[2].width = Some(32);
    variants[1].format = Some(Format::Png);
    if Format::WebP.is_built_in() {
        variants.push(Variant {
            name: "webp".to_owned(),
            width: Some(20),
            format: Some(Format::WebP),
            ..Variant::default()
        });
    }
    made(bytes, &variants, &Handling { metadata, ..Handling::default() }).unwrap()
}

fn exif_of(artifact: &Rendered) -> Option<Exif> {
    Reader::new().read_from_container(&mut Cursor::new(&artifact.bytes)).ok()
}

fn tags(artifact: &Rendered) -> Vec<Tag> {
    exif_of(artifact).map_or_else(Vec::new, |exif| exif.fields().map(|field| field.tag).collect())
}

#[test]
fn nothing_stays_by_default_and_then_what_the_policy_says() {
    for artifact in with(&tagged_jpeg(6), MetadataPolicy::None) {
        assert_eq!(tags(&artifact), [], "{}", artifact.name);
    }
    for artifact in with(&tagged_jpeg(6), MetadataPolicy::Copyright) {
        assert_eq!(tags(&artifact), [Tag::Copyright], "{}", artifact.name);
    }
    for artifact in with(&tagged_jpeg(6), MetadataPolicy::All) {
        let exif = exif_of(&artifact).unwrap();
        let shown = |tag| exif.get_field(tag, In::PRIMARY).map(|field| field.display_value().to_string());
        assert_eq!(shown(Tag::Model).as_deref(), Some("\"Camera 1\""));
        assert_eq!(shown(Tag::Copyright).as_deref(), Some("\"(c) Somebody\""));
        assert_eq!(shown(Tag::ColorSpace).as_deref(), Some("sRGB"));
        assert!(shown(Tag::DateTimeOriginal).is_some() && shown(Tag::GPSLatitudeRef).is_some());
        assert_eq!((shown(Tag::Orientation), shown(Tag::PixelXDimension)), (None, None));
        assert!(exif.fields().all(|field| field.ifd_num == In::PRIMARY), "no thumbnail");
        assert!(!artifact.bytes.windows(9).any(|part| part == b"a comment"));
    }
}

#[test]
fn what_stays_never_turns_a_picture_again() {
    for orientation in 1..=8 {
        let original = tagged_jpeg(orientation);
        for artifact in with(&original, MetadataPolicy::All) {
            let probe = probed(&artifact.bytes).unwrap();
            assert_eq!((probe.width, probe.height), (artifact.width, artifact.height));
            assert!(artifact.name != "optimized" || artifact.bytes.len() <= original.len(), "{orientation}");
            let shown = pixels(&artifact).to_rgb8();
            let (_, mean) = difference(&shown, &picture(artifact.width, artifact.height));
            assert!(mean < 8.0, "orientation {orientation}, {}: {mean}", artifact.name);
        }
    }
}

#[test]
fn it_is_read_from_png_and_webp_too_and_frames_keep_their_orientation() {
    let still = with_chunks(png(picture(64, 40)), &[(b"eXIf", &block(1))]);
    let moving = animated_webp(&image::DynamicImage::from(picture(24, 16)).into_rgba8(), &block(6));
    let optimized = |bytes: &[u8]| with(bytes, MetadataPolicy::All).pop().unwrap();
    let last = optimized(&still);
    assert!((last.name.as_str(), last.format) == ("optimized", Format::Png));
    assert!(tags(&last).contains(&Tag::Model));
    let frames = optimized(&moving);
    assert_eq!((frames.format, frames.width, frames.height), (Format::WebP, 16, 24));
    assert!(tags(&frames).contains(&Tag::Orientation) && tags(&frames).contains(&Tag::Model));
    let probe = probed(&frames.bytes).unwrap();
    assert_eq!((probe.width, probe.height), (16, 24));
    image::load_from_memory(&frames.bytes).unwrap();
}

#[test]
fn exif_that_is_damaged_costs_itself_alone() {
    let whole = tagged_jpeg(1);
    for at in 24..200 {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xFF;
        for artifact in with(&damaged, MetadataPolicy::All) {
            probed(&artifact.bytes).unwrap();
        }
    }
    let only_nonsense = with_segments(jpeg(&picture(64, 40), 95), &[(0xE1, b"Exif\0\0nonsense")]);
    assert_eq!(tags(&with(&only_nonsense, MetadataPolicy::All)[0]), []);
}

fn salvaged(bytes: &[u8]) -> Result<Vec<Rendered>, ImagingError> {
    let mut variants = Variant::defaults();
    variants[1].format = Some(Format::Png);
    made(bytes, &variants, &Handling { allow_truncated: true, ..Handling::default() })
}

#[test]
fn what_is_there_of_a_cut_picture_is_taken_where_that_is_allowed() {
    let full = picture(64, 64);
    let deep: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_pixel(64, 64, Luma([0xC000]));
    let deep = png(deep);
    for (bytes, expected) in [
        (jpeg(&noise(64, 64), 90), None),
        (jpeg(&full, 95), Some(full.get_pixel(5, 5).0)),
        (png(noise(64, 64)), Some(noise(64, 64).get_pixel(5, 5).0)),
        (deep, Some([0xC0; 3])),
    ] {
        let cut = &bytes[..bytes.len() * 3 / 4];
        assert!(matches!(
            made(cut, &Variant::defaults(), &Handling::default()),
            Err(ImagingError::Truncated { .. })
        ));
        for artifact in salvaged(cut).unwrap() {
            let shown = pixels(&artifact);
            assert_eq!(shown.dimensions(), (64, 64), "{}", artifact.name);
            probed(&artifact.bytes).unwrap();
            let top = shown.to_rgb8().get_pixel(5, 5).0;
            if let (Some(expected), "preview") = (expected, artifact.name.as_str()) {
                assert!(top.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 16), "{top:?} {expected:?}");
            }
        }
    }
}

#[test]
fn nothing_is_taken_before_its_picture_begins_nor_of_formats_that_need_their_end() {
    let whole = jpeg(&picture(64, 64), 90);
    assert!(matches!(salvaged(&whole[..100]), Err(ImagingError::Truncated { .. })));
    assert!(matches!(salvaged(&png(picture(9, 9))[..30]), Err(ImagingError::Truncated { .. })));
    let rgba = image::DynamicImage::from(picture(64, 64)).into_rgba8();
    for bytes in [gif(std::slice::from_ref(&rgba)), webp(&rgba)] {
        assert!(matches!(salvaged(&bytes[..bytes.len() - 20]), Err(ImagingError::Truncated { .. })));
    }
    // A whole picture is as it always is.
    let usual = made(&whole, &Variant::defaults(), &Handling::default()).unwrap();
    let allowed = Handling { allow_truncated: true, ..Handling::default() };
    assert_eq!(made(&whole, &Variant::defaults(), &allowed).unwrap(), usual);
}

#[test]
fn every_cut_of_a_picture_is_taken_or_refused() {
    for bytes in [jpeg(&noise(24, 16), 80), png(noise(24, 16)), png(RgbImage::new(24, 16))] {
        for length in 0..bytes.len() {
            if let Ok(artifacts) = salvaged(&bytes[..length]) {
                assert!(artifacts.iter().all(|artifact| probed(&artifact.bytes).is_ok()));
            }
        }
    }
}
