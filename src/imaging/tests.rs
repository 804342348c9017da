//! Whole renderings.

use std::ops::ControlFlow;

use image::{DynamicImage, GrayImage, ImageBuffer, Luma, RgbImage, Rgba, RgbaImage};
use moxcms::ColorProfile;

use super::encode::small_jpeg;
use super::fixtures::{
    LIMITS, Random, SECRET, animated_webp, contains, difference, exif, extended_webp, gif, holed, jpeg,
    jpeg_exif, noise, optimized, picture, png, probed, rendered, stored, webp, webp_bitstream, with_chunks,
    with_segments,
};
use super::{Format, Handling, ImagingError, Rendered, Stage, Step, Variant, Watermarks, render};

mod policies;
mod variants;
mod watermarks;

fn pixels(artifact: &Rendered) -> DynamicImage {
    image::load_from_memory(&artifact.bytes).unwrap()
}

#[test]
fn sizes_are_those_of_the_variants_and_never_grow() {
    let bytes = jpeg(&picture(160, 90), 90);
    let artifacts =
        rendered(&bytes, &[("full", None), ("tiny", Some(40)), ("mid", Some(100)), ("big", Some(500))])
            .unwrap();
    let told: Vec<_> = artifacts.iter().map(|a| (a.name.as_str(), a.width, a.height)).collect();
    // 100 · 90 / 160 = 56.25, 40 · 90 / 160 = 22.5
    assert_eq!(told, [("big", 160, 90), ("mid", 100, 56), ("tiny", 40, 23), ("full", 160, 90)]);
    for artifact in &artifacts {
        let decoded = pixels(artifact);
        assert_eq!((decoded.width(), decoded.height()), (artifact.width, artifact.height));
        let probe = probed(&artifact.bytes).unwrap();
        assert_eq!(
            (probe.format, probe.width, probe.height),
            (artifact.format, artifact.width, artifact.height)
        );
    }
}

#[test]
fn a_resized_picture_still_shows_the_same() {
    let bytes = jpeg(&picture(400, 300), 95);
    let artifacts = rendered(&bytes, &[("preview", Some(200)), ("thumbnail", Some(50))]).unwrap();
    for artifact in artifacts {
        let (_, mean) = difference(&pixels(&artifact).to_rgb8(), &picture(artifact.width, artifact.height));
        assert!(mean < 4.0, "{}: {mean}", artifact.name);
    }
}

#[test]
fn the_eight_orientations_come_out_alike() {
    let displayed = picture(64, 40);
    for orientation in 1..=8 {
        let plain = jpeg(&stored(&displayed, orientation), 95);
        let bytes = with_segments(plain, &[(0xE1, &jpeg_exif(orientation))]);
        let probe = probed(&bytes).unwrap();
        assert_eq!((probe.width, probe.height), (64, 40), "orientation {orientation}");
        for artifact in rendered(&bytes, &[("optimized", None), ("thumbnail", Some(32))]).unwrap() {
            assert_eq!(
                probed(&artifact.bytes).map(|p| (p.width, p.height)).unwrap(),
                (artifact.width, artifact.height)
            );
            let (_, mean) =
                difference(&pixels(&artifact).to_rgb8(), &picture(artifact.width, artifact.height));
            assert!(mean < 5.0, "orientation {orientation}, {}: {mean}", artifact.name);
        }
    }
}

#[test]
fn orientation_is_read_from_png_and_webp_too() {
    let displayed = picture(64, 40);
    let turned = stored(&displayed, 6);
    let in_png = with_chunks(png(turned.clone()), &[(b"eXIf", &exif(6))]);
    let simple = webp(&DynamicImage::from(turned).into_rgba8());
    let image = (b"VP8L", webp_bitstream(&simple));
    let in_webp = extended_webp(0x08, 40, 64, &[image, (b"EXIF", &exif(6))]);
    let with_prefix = extended_webp(0x08, 40, 64, &[image, (b"EXIF", &jpeg_exif(6))]);
    for bytes in [in_png, in_webp, with_prefix] {
        let artifact = optimized(&bytes);
        assert_eq!((artifact.width, artifact.height), (64, 40));
        let (_, mean) = difference(&pixels(&artifact).to_rgb8(), &displayed);
        assert!(mean < 8.0, "{:?}: {mean}", artifact.format);
        assert!(!contains(&artifact.bytes, SECRET));
    }
}

#[test]
fn transparency_makes_png_and_opacity_jpeg() {
    let variants = [("preview", Some(32))];
    let see_through = rendered(&png(holed(64, 64)), &variants).unwrap().remove(0);
    assert_eq!(see_through.format, Format::Png);
    let decoded = pixels(&see_through).to_rgba8();
    assert_eq!(decoded.get_pixel(4, 4)[3], 0);
    assert_eq!(decoded.get_pixel(28, 28)[3], 255);

    let opaque = DynamicImage::from(picture(64, 64)).into_rgba8();
    assert_eq!(rendered(&png(opaque.clone()), &variants).unwrap().remove(0).format, Format::Jpeg);
    assert_eq!(rendered(&webp(&opaque), &variants).unwrap().remove(0).format, Format::Jpeg);
    assert_eq!(rendered(&gif(&[opaque]), &variants).unwrap().remove(0).format, Format::Jpeg);
    assert_eq!(rendered(&gif(&[holed(64, 64)]), &variants).unwrap().remove(0).format, Format::Png);
}

#[test]
fn what_is_invisible_does_not_bleed_into_what_is_seen() {
    let (seen, hidden) = (Rgba([30, 120, 60, 255]), Rgba([255, 0, 255, 0]));
    let dotted = RgbaImage::from_fn(64, 64, |x, y| if (x / 3 + y / 3) % 2 == 0 { seen } else { hidden });
    let preview = rendered(&png(dotted), &[("preview", Some(32))]).unwrap().remove(0);
    for Rgba([r, g, b, a]) in pixels(&preview).to_rgba8().pixels() {
        // The hidden magenta would raise red and blue.
        assert!(*a < 50 || (*r < 60 && *b < 90), "{r} {g} {b} {a}");
    }
}

#[test]
fn optimized_keeps_the_format_and_is_never_larger() {
    let (flat, busy) = (picture(96, 64), noise(96, 64));
    let rgba = |pixels: &RgbImage| DynamicImage::from(pixels.clone()).into_rgba8();
    for (bytes, format) in [
        (jpeg(&flat, 95), Format::Jpeg),
        (jpeg(&busy, 100), Format::Jpeg),
        // Worse than anything that would be made of it
        (jpeg(&busy, 5), Format::Jpeg),
        (png(flat.clone()), Format::Png),
        (png(busy.clone()), Format::Png),
        (gif(&[rgba(&flat), rgba(&busy)]), Format::Gif),
        (animated_webp(&holed(96, 64), &exif(1)), Format::WebP),
        (webp(&rgba(&busy)), Format::WebP),
        (webp(&holed(96, 64)), Format::WebP),
    ] {
        let artifact = optimized(&bytes);
        assert_eq!(artifact.format, format);
        assert!(
            artifact.bytes.len() <= bytes.len(),
            "{format:?}: {} of {}",
            artifact.bytes.len(),
            bytes.len()
        );
        assert_eq!((pixels(&artifact).width(), pixels(&artifact).height()), (96, 64));
    }
}

#[test]
fn what_cannot_be_made_smaller_stays_as_it_is() {
    let plain = small_jpeg(&noise(64, 64).into(), 50).unwrap();
    let tagged = with_segments(plain.clone(), &[(0xE1, &jpeg_exif(1)), (0xFE, SECRET)]);
    assert_eq!(optimized(&tagged).bytes, plain);
}

#[test]
fn a_turned_picture_is_encoded_until_it_is_smaller_than_the_input() {
    let plain = small_jpeg(&noise(64, 64).into(), 60).unwrap();
    let turned = with_segments(plain, &[(0xE1, &jpeg_exif(3))]);
    let artifact = optimized(&turned);
    assert!(small_jpeg(&pixels(&artifact), 80).unwrap().len() > turned.len());
    assert!(artifact.bytes.len() < turned.len());
}

#[test]
fn sixteen_bits_are_rounded_to_eight_and_kept_at_full_size() {
    let deep: ImageBuffer<Luma<u16>, Vec<u16>> =
        ImageBuffer::from_fn(64, 32, |x, _| Luma([u16::try_from(x).unwrap() * 1040 + 1]));
    let bytes = png(deep.clone());
    let artifacts = rendered(&bytes, &[("optimized", None), ("preview", Some(64))]).unwrap();
    let preview = pixels(&artifacts[0]).to_luma8();
    // 63 · 1040 + 1 = 65 521, of which the 257th part is 254.9
    assert!(preview.get_pixel(63, 5)[0] >= 252 && preview.get_pixel(0, 5)[0] <= 3);
    assert_eq!(pixels(&artifacts[1]).to_luma16(), deep);
}

#[test]
fn grey_stays_grey() {
    let grey = GrayImage::from_fn(64, 64, |x, y| Luma([u8::try_from(x * 2 + y).unwrap()]));
    let artifacts = rendered(&png(grey), &[("preview", Some(32))]).unwrap();
    assert_eq!(pixels(&artifacts[0]).color(), image::ColorType::L8);
    assert_eq!(pixels(&artifacts[0]).width(), 32);
}

#[test]
fn colours_are_converted_once_and_the_profile_goes() {
    let p3 = ColorProfile::new_display_p3().encode().unwrap();
    let mut red = picture(32, 32);
    red.pixels_mut().for_each(|pixel| *pixel = image::Rgb([200, 60, 40]));
    let icc = [b"ICC_PROFILE\0\x01\x01".as_slice(), &p3].concat();
    let tagged = with_segments(jpeg(&red, 95), &[(0xE2, &icc)]);
    for artifact in rendered(&tagged, &[("optimized", None), ("preview", Some(32))]).unwrap() {
        let pixel = *pixels(&artifact).to_rgb8().get_pixel(9, 9);
        // The same colour by the definitions of Display P3 and sRGB
        let expected = image::Rgb([218, 42, 23]);
        let (most, _) = difference(&RgbImage::from_pixel(1, 1, pixel), &RgbImage::from_pixel(1, 1, expected));
        assert!(most <= 4, "{pixel:?}");
        assert!(!contains(&artifact.bytes, b"ICC_PROFILE"));
    }
    let srgb = ColorProfile::new_srgb().encode().unwrap();
    for harmless in [srgb.as_slice(), b"no profile at all"] {
        let icc = [b"ICC_PROFILE\0\x01\x01".as_slice(), harmless].concat();
        let tagged = with_segments(jpeg(&red, 95), &[(0xE2, &icc)]);
        assert_eq!(optimized(&tagged).bytes, optimized(&jpeg(&red, 95)).bytes);
    }
}

#[test]
fn steps_are_told_in_order() {
    let bytes = jpeg(&picture(64, 64), 95);
    let variants = Variant { name: "small".to_owned(), width: Some(32), ..Variant::default() };
    let full = Variant { name: "full".to_owned(), ..Variant::default() };
    let mut told = Vec::new();
    render(&bytes, &[full, variants], &Watermarks::new(), &Handling::default(), &LIMITS, &mut |step| {
        told.push(match step {
            Step::Stage(stage) => stage.as_str().to_owned(),
            Step::Placeholder(_) => "placeholder".to_owned(),
            Step::Artifact(artifact) => artifact.name,
        });
        ControlFlow::Continue(())
    })
    .unwrap();
    told.dedup();
    assert_eq!(told, ["decode", "resize", "placeholder", "encode", "small", "encode", "full"]);
}

#[test]
fn a_break_stops_at_each_step() {
    let bytes = jpeg(&picture(64, 64), 95);
    let variants = Variant::defaults();
    let stopping_at = |last: usize| {
        let mut calls = 0;
        let result =
            render(&bytes, &variants, &Watermarks::new(), &Handling::default(), &LIMITS, &mut |_| {
                calls += 1;
                if calls == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        (result, calls)
    };
    let (all, steps) = stopping_at(usize::MAX);
    all.unwrap();
    assert!(steps >= 9, "{steps}");
    for last in 1..=steps {
        let (result, calls) = stopping_at(last);
        assert!(matches!(result, Err(ImagingError::Stopped)));
        assert_eq!(calls, last);
    }
}

#[test]
fn nothing_wanted_is_nothing_done() {
    let none = &Watermarks::new();
    render(b"not even a picture", &[], none, &Handling::default(), &LIMITS, &mut |_| panic!("no step"))
        .unwrap();
}

#[test]
fn render_does_not_rely_on_an_earlier_probe() {
    let bytes = jpeg(&picture(64, 64), 90);
    let cut = &bytes[..bytes.len() - 2];
    let error = rendered(cut, &[("preview", Some(32))]).unwrap_err();
    assert!(matches!(error, ImagingError::Truncated { .. }), "{error}");
    assert!(matches!(
        rendered(b"<svg/>", &[("x", None)]),
        Err(ImagingError::Unsupported { detected: Some("SVG") })
    ));
}

#[test]
fn damaged_pixels_are_an_error() {
    let mut bytes = png(picture(64, 64));
    let data = bytes.windows(4).position(|name| name == b"IDAT").unwrap() + 20;
    bytes[data] ^= 0xFF;
    probed(&bytes).unwrap();
    let error = rendered(&bytes, &[("preview", Some(32))]).unwrap_err();
    assert!(matches!(error, ImagingError::Undecodable { .. }), "{error}");
}

#[test]
fn errors_speak_to_people() {
    let text = |bytes: &[u8]| probed(bytes).unwrap_err().to_string();
    assert_eq!(text(b"%PDF-1.7"), "the file is PDF; JPEG, PNG, WebP and GIF pictures are accepted");
    assert_eq!(text(b"hello"), "the file is not a JPEG, PNG, WebP or GIF picture");
    assert_eq!(
        text(&jpeg(&picture(64, 64), 90)[..100]),
        "the picture is cut short: the JPEG file ends after 100 bytes, before its picture does"
    );
    assert_eq!(
        text(&png(GrayImage::new(2_001, 1))),
        "the picture is too large: 2001 × 1 pixels; at most 2000 pixels a side are accepted"
    );
    assert_eq!(
        text(&png(GrayImage::new(1_001, 1_000))),
        "the picture is too large: 1001 × 1000 pixels; at most 1000000 pixels in all are accepted"
    );
    assert_eq!(Stage::Resize.as_str(), "resize");
}

/// No input makes it panic, and what comes out of a damaged input is a whole picture.
#[test]
fn mutants_are_rendered_or_refused() {
    let originals = [
        with_segments(jpeg(&picture(24, 16), 80), &[(0xE1, &jpeg_exif(6))]),
        with_chunks(png(holed(24, 16)), &[(b"eXIf", &exif(3)), (b"tEXt", b"a\0b")]),
        png(picture(24, 16)),
        gif(&[holed(24, 16), holed(24, 16)]),
        webp(&holed(24, 16)),
        animated_webp(&holed(24, 16), &exif(8)),
    ];
    let mut random = Random(0x0DDB_1A5E_5BAD_5EED);
    let mut accepted = 0;
    for round in 0..3_000 {
        let mut mutant = originals[round % originals.len()].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(mutant.len());
            match random.below(3) {
                0 => mutant[at] = random.byte(),
                1 => mutant[at] ^= 1 << random.below(8),
                _ => drop(mutant.drain(at..(at + random.below(8)).min(mutant.len()))),
            }
        }
        let Ok(artifacts) = rendered(&mutant, &[("optimized", None), ("preview", Some(10))]) else {
            continue;
        };
        accepted += 1;
        for artifact in artifacts {
            probed(&artifact.bytes).unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
    }
    assert!(accepted > 100, "{accepted} were accepted");
}
