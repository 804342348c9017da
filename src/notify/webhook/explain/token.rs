//! The signatures of a header, as they are and as they may have been meant.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use subtle::ConstantTimeEq as _;

use super::{Finding, Form};

const ANY_PADDING: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

const PREFIX: &str = "v1,";
const MAC_BYTES: usize = 32;
const ED25519_BYTES: usize = 64;
/// 72 bits: who does not know the secret cannot find these by trying.
const MIN_TRUNCATED: usize = 9;

/// A signature that can be compared.
pub(super) struct Token {
    /// From 1.
    pub(super) position: usize,
    mac: Vec<u8>,
    /// What is wrong with how it is written.
    pub(super) faults: Vec<Finding>,
}

impl Token {
    /// Whether it is this MAC, or the beginning of it.
    pub(super) fn is(&self, mac: &[u8; MAC_BYTES]) -> bool {
        mac.get(..self.mac.len()).is_some_and(|begin| begin.ct_eq(&self.mac).into())
    }
}

/// The signatures that can be compared, and a finding for each that cannot.
pub(super) fn read(header: &str, findings: &mut Vec<Finding>) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (position, text) in (1..).zip(header.split(' ')) {
        match parse(position, text) {
            Ok(token) => tokens.push(token),
            Err(finding) => findings.push(finding),
        }
    }
    tokens
}

fn parse(position: usize, text: &str) -> Result<Token, Finding> {
    if text.is_empty() {
        return Err(Finding::EmptySignature { position });
    }
    let mut faults = Vec::new();
    let value = match scheme(text) {
        Some((PREFIX, value)) => value,
        Some((prefix, value)) => {
            if STANDARD.decode(value).is_ok_and(|bytes| bytes.len() == ED25519_BYTES) {
                return Err(Finding::Asymmetric { position });
            }
            faults.push(Finding::OtherScheme { position, prefix: prefix.to_owned() });
            value
        }
        None => {
            faults.push(Finding::NoScheme { position });
            text
        }
    };
    let (mac, form) = decode(value).ok_or(Finding::Unreadable { position })?;
    faults.extend(form.map(|form| Finding::Miswritten { position, form }));
    Ok(Token { position, mac, faults })
}

/// What names the scheme, and the rest. Other vendors write `v1=` and `sha256=`; base64 ends with `=`, too.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let at = text.find(',').or_else(|| text.find('='))?;
    text.split_at_checked(at + 1).filter(|(prefix, _)| (2..=8).contains(&prefix.len()))
}

fn decode(value: &str) -> Option<(Vec<u8>, Option<Form>)> {
    if let Some(mac) = from_hex(value) {
        return Some((mac, Some(Form::Hex)));
    }
    for (base64, form) in [(STANDARD, Form::Unpadded), (URL_SAFE, Form::UrlSafe)] {
        if let Ok(mac) = base64.decode(value)
            && mac.len() == MAC_BYTES
        {
            let standard = base64::engine::general_purpose::STANDARD.decode(value).is_ok();
            return Some((mac, (!standard).then_some(form)));
        }
    }
    // Whole groups of four characters can be compared.
    let whole = value.get(..value.len() / 4 * 4)?;
    let mac = STANDARD.decode(whole).ok()?;
    (MIN_TRUNCATED..MAC_BYTES).contains(&mac.len()).then_some((mac, Some(Form::Truncated)))
}

fn from_hex(value: &str) -> Option<Vec<u8>> {
    let is_hex = value.len() == 2 * MAC_BYTES && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (pairs, _) = value.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    if is_hex { pairs.iter().map(byte).collect() } else { None }
}
