//! The walk through a GIF: blocks from the logical screen to the trailer (GIF89a specification).

use std::io::{BufRead, Seek};

use super::ImagingError;
use super::container::{Header, Part, Role, Source, Visit, check_size};
use crate::domain::image::{Format, Limits};

const SIGNATURE_LENGTH: u64 = 6;

const EXTENSION: u8 = 0x21;
const IMAGE: u8 = 0x2C;
const TRAILER: u8 = 0x3B;

const GRAPHIC_CONTROL: u8 = 0xF9;
const APPLICATION: u8 = 0xFF;

pub(super) fn walk<R: BufRead + Seek>(
    source: &mut Source<'_, R>,
    limits: &Limits,
    visit: Visit<'_>,
) -> Result<Header, ImagingError> {
    source.skip(SIGNATURE_LENGTH)?;
    let size = size(source.array()?);
    check_size(size, limits)?;
    // Packed fields, background colour, aspect ratio.
    let [packed, _, _] = source.array()?;
    skip_colour_table(source, packed)?;
    visit(Part { role: Role::Picture, range: 0..source.position() });
    let mut frames = 0_u64;
    loop {
        let start = source.position();
        let role = match source.byte()? {
            EXTENSION => extension(source)?,
            IMAGE => {
                frames += 1;
                frame(source, limits)?
            }
            TRAILER => {
                visit(Part { role: Role::Picture, range: start..source.position() });
                break;
            }
            _ => return Err(ImagingError::undecodable("it has an unknown GIF block")),
        };
        visit(Part { role, range: start..source.position() });
    }
    if frames == 0 {
        return Err(ImagingError::undecodable("the GIF file holds no picture"));
    }
    Ok(Header { animated: frames > 1, ..Header::new(Format::Gif, size) })
}

fn size([w0, w1, h0, h1]: [u8; 4]) -> (u32, u32) {
    (u16::from_le_bytes([w0, w1]).into(), u16::from_le_bytes([h0, h1]).into())
}

/// A colour table has 3 · 2^(n+1) bytes, n being the low three bits; the top bit says that there is one.
fn skip_colour_table<R: BufRead + Seek>(source: &mut Source<'_, R>, packed: u8) -> Result<(), ImagingError> {
    if packed & 0x80 == 0 { Ok(()) } else { source.skip(3 << ((packed & 7) + 1)) }
}

fn frame<R: BufRead + Seek>(source: &mut Source<'_, R>, limits: &Limits) -> Result<Role, ImagingError> {
    let [_left, _, _top, _, w0, w1, h0, h1, packed] = source.array()?;
    // A frame may be larger than the screen, and decoders allocate it.
    check_size(size([w0, w1, h0, h1]), limits)?;
    skip_colour_table(source, packed)?;
    let _code_size = source.byte()?;
    skip_sub_blocks(source)?;
    Ok(Role::Picture)
}

fn extension<R: BufRead + Seek>(source: &mut Source<'_, R>) -> Result<Role, ImagingError> {
    let role = match source.byte()? {
        GRAPHIC_CONTROL => Role::Picture,
        APPLICATION => application(source)?,
        // Comments, and plain text that no program has shown for decades.
        _ => Role::Metadata,
    };
    skip_sub_blocks(source)?;
    Ok(role)
}

/// An application extension starts with a sub-block that names the application.
fn application<R: BufRead + Seek>(source: &mut Source<'_, R>) -> Result<Role, ImagingError> {
    let length = source.byte()?;
    let name = source.block(length.into())?;
    Ok(match name.as_slice() {
        // How often the animation is repeated.
        b"NETSCAPE2.0" | b"ANIMEXTS1.0" => Role::Picture,
        b"ICCRGBG1012" => Role::Profile,
        _ => Role::Metadata,
    })
}

/// Sub-blocks are a length byte and that many bytes each, up to an empty one.
fn skip_sub_blocks<R: BufRead + Seek>(source: &mut Source<'_, R>) -> Result<(), ImagingError> {
    loop {
        match source.byte()? {
            0 => return Ok(()),
            length => source.skip(length.into())?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::fixtures::{assert_every_cut_is_found, gif, holed, probed};

    #[test]
    fn every_cut_is_found() {
        assert_every_cut_is_found(&gif(&[holed(24, 16)]));
        assert_every_cut_is_found(&gif(&[holed(8, 6), holed(8, 6)]));
    }

    #[test]
    fn size_of_screen_and_frames_is_checked() {
        let whole = gif(&[holed(8, 6)]);
        let mut screen = whole.clone();
        screen[6..10].fill(0xFF);
        screen.truncate(13);
        let error = probed(&screen).unwrap_err();
        assert!(matches!(error, ImagingError::TooLarge { width: 65_535, height: 65_535, .. }), "{error}");

        let mut frame = whole.clone();
        let size = whole.windows(9).position(|w| w == [IMAGE, 0, 0, 0, 0, 8, 0, 6, 0]).unwrap() + 5;
        frame[size..size + 4].fill(0xFF);
        assert!(matches!(probed(&frame), Err(ImagingError::TooLarge { .. })));
        screen[6..10].fill(0);
        assert!(matches!(probed(&screen), Err(ImagingError::Undecodable { .. })));
    }

    #[test]
    fn a_screen_without_a_frame_is_no_picture() {
        assert!(matches!(probed(b"GIF89a\x08\0\x08\0\0\0\0\x3B"), Err(ImagingError::Undecodable { .. })));
    }
}
