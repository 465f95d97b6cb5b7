//! Text strings (ISO 32000-2, 7.9.2.2): UTF-16 or UTF-8 with a mark, else PDFDocEncoding.

/// The text of a string of the document: a title, a replacement for glyphs.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    match bytes {
        [0xfe, 0xff, utf16 @ ..] => utf16_of(utf16, u16::from_be_bytes),
        [0xff, 0xfe, utf16 @ ..] => utf16_of(utf16, u16::from_le_bytes),
        [0xef, 0xbb, 0xbf, utf8 @ ..] => String::from_utf8_lossy(utf8).into_owned(),
        other => other.iter().map(|byte| doc_char(*byte)).collect(),
    }
}

fn utf16_of(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    without_language(
        &char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>(),
    )
}

/// A string may say in which language it goes on, between two escapes.
fn without_language(text: &str) -> String {
    let parts = text.split('\u{1b}').enumerate();
    parts.filter(|(place, _)| place % 2 == 0).map(|(_, part)| part).collect()
}

/// PDFDocEncoding (annex D.2), which is Latin-1 but for two ranges.
fn doc_char(byte: u8) -> char {
    const FROM_18: [char; 8] =
        ['\u{2d8}', '\u{2c7}', '\u{2c6}', '\u{2d9}', '\u{2dd}', '\u{2db}', '\u{2da}', '\u{2dc}'];
    const FROM_80: [char; 33] = [
        '\u{2022}', '\u{2020}', '\u{2021}', '\u{2026}', '\u{2014}', '\u{2013}', '\u{192}', '\u{2044}',
        '\u{2039}', '\u{203a}', '\u{2212}', '\u{2030}', '\u{201e}', '\u{201c}', '\u{201d}', '\u{2018}',
        '\u{2019}', '\u{201a}', '\u{2122}', '\u{fb01}', '\u{fb02}', '\u{141}', '\u{152}', '\u{160}',
        '\u{178}', '\u{17d}', '\u{131}', '\u{142}', '\u{153}', '\u{161}', '\u{17e}', '\u{fffd}', '\u{20ac}',
    ];
    match byte {
        0x18..=0x1f => FROM_18[usize::from(byte - 0x18)],
        0x80..=0xa0 => FROM_80[usize::from(byte - 0x80)],
        other => char::from(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_encoding_is_told_by_its_mark() {
        assert_eq!(text_of(b"\xfe\xff\0G\0r\0\xfc\0n"), "Gr\u{fc}n");
        assert_eq!(text_of(b"\xff\xfeG\0r\0"), "Gr");
        assert_eq!(text_of(b"\xef\xbb\xbfGr\xc3\xbcn"), "Gr\u{fc}n");
        assert_eq!(text_of(b"Gr\xfcn \x84 \xa0"), "Gr\u{fc}n \u{2014} \u{20ac}");
        assert_eq!(text_of(b"\xfe\xff\0\x1b\0e\0n\0\x1b\0a\xd8\x3d\xde\0\xd8\0"), "a\u{1f600}\u{fffd}");
    }
}
