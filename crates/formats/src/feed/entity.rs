//! References to characters, as feeds have them: `&#8217;`, `&#x2019;`, `&amp;`, `&nbsp;`.
//!
//! Names are those of XML and HTML. A name that a document type definition declares is none of them: it stays as it is written,
//! whatever it was declared to be.

use std::borrow::Cow;

use encoding_rs::WINDOWS_1252;
use quick_xml::escape::resolve_html5_entity;

/// Names of characters are shorter.
const MAX_NAME_BYTES: usize = 40;

/// Adds what a reference stands for, by what is between `&` and `;`; the reference itself, if that is nothing.
pub(super) fn push(text: &mut String, name: &str) {
    match name.strip_prefix('#') {
        Some(number) => match character(number) {
            Some(character) => text.push(character),
            None => push_as_written(text, name),
        },
        None => match resolve_html5_entity(name) {
            Some(characters) => text.push_str(characters),
            None => push_as_written(text, name),
        },
    }
}

fn push_as_written(text: &mut String, name: &str) {
    text.push('&');
    text.push_str(name);
    text.push(';');
}

/// The character of a number. Those from 128 to 159 are meant in windows-1252, as browsers take them.
fn character(number: &str) -> Option<char> {
    let number = match number.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => number.parse().ok()?,
    };
    match u8::try_from(number) {
        Ok(byte @ 0x80..=0x9f) => WINDOWS_1252.decode_without_bom_handling(&[byte]).0.chars().next(),
        Ok(byte) if byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r') => None,
        _ => char::from_u32(number),
    }
}

/// A text in which references are replaced by what they stand for.
pub(super) fn resolved(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        whole.push_str(before);
        match behind.as_bytes().iter().take(MAX_NAME_BYTES).position(|byte| *byte == b';') {
            Some(end) => {
                push(&mut whole, &behind[..end]);
                rest = &behind[end + 1..];
            }
            None => {
                whole.push('&');
                rest = behind;
            }
        }
    }
    whole.push_str(rest);
    Cow::Owned(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_of_xml_and_html_are_resolved_and_others_stay() {
        let cases = [
            ("a &amp; b &lt;c&gt;", "a & b <c>"),
            ("caf&eacute;&nbsp;&rsquo;", "caf\u{e9}\u{a0}\u{2019}"),
            ("&#8217;&#x2019;&#146;", "\u{2019}\u{2019}\u{2019}"),
            ("&l9; &#0; &#xd800; &#99999999999;", "&l9; &#0; &#xd800; &#99999999999;"),
            ("AT&T; a & b &", "AT&T; a & b &"),
        ];
        for (written, meant) in cases {
            assert_eq!(resolved(written), meant, "{written}");
        }
    }
}
