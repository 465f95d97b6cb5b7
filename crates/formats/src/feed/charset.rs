//! The bytes of a feed as text.

use encoding_rs::{DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// An XML declaration is looked for in so many bytes; longer ones are none.
const MAX_DECLARATION_BYTES: usize = 1024;

/// So much text is made at once.
const PIECE_BYTES: usize = 64 << 10;

/// The text is longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// The text of a document. What it is encoded in is told, in this order, by its byte order mark, the `charset` of its content
/// type, its XML declaration; else it is UTF-8. Names of encodings mean what they mean to browsers (WHATWG Encoding Standard),
/// and so does a declaration of UTF-16 that can be read as ASCII: UTF-8.
///
/// Bytes that are none in what was declared are read as windows-1252, one by one: what claims to be UTF-8 and is not, is that
/// nearly always.
///
/// # Errors
/// The text is longer than `max_bytes`.
pub(super) fn text(bytes: Vec<u8>, content_type: Option<&str>, max_bytes: usize) -> Result<String, TooLong> {
    let encoding = encoding(&bytes, content_type);
    if encoding != UTF_8 {
        return decoded(&bytes, encoding, max_bytes);
    }
    match String::from_utf8(bytes) {
        Ok(text) if text.len() > max_bytes => Err(TooLong),
        Ok(text) => Ok(text),
        Err(error) => decoded(error.as_bytes(), UTF_8, max_bytes),
    }
}

/// Whether [`text`] takes bytes as they are, so that it needs no more memory than they do.
pub(super) fn is_utf8(bytes: &[u8], content_type: Option<&str>) -> bool {
    encoding(bytes, content_type) == UTF_8 && simdutf8::basic::from_utf8(bytes).is_ok()
}

fn encoding(bytes: &[u8], content_type: Option<&str>) -> &'static Encoding {
    if let Some((encoding, _)) = Encoding::for_bom(bytes) {
        return encoding;
    }
    // Without a mark, the zeros of its first characters tell UTF-16.
    match bytes {
        [0, b'<' | b'{', ..] => return UTF_16BE,
        [b'<' | b'{', 0, ..] => return UTF_16LE,
        _ => {}
    }
    let told = content_type.and_then(charset_of).or_else(|| declared(bytes));
    match told.and_then(|label| Encoding::for_label(label.as_bytes())) {
        Some(encoding) if encoding == UTF_16BE || encoding == UTF_16LE => UTF_8,
        Some(encoding) => encoding,
        None => UTF_8,
    }
}

/// The parameter `charset` of a content type (RFC 9110, section 8.3.1).
fn charset_of(content_type: &str) -> Option<String> {
    let value = content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then_some(value)
    })?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

/// The encoding that an XML declaration names (XML 1.0, section 4.3.3).
fn declared(bytes: &[u8]) -> Option<String> {
    let head = &bytes[..bytes.len().min(MAX_DECLARATION_BYTES)];
    let head = head.trim_ascii_start().strip_prefix(b"<?xml")?;
    let end = head.iter().position(|byte| *byte == b'>')?;
    let declaration = String::from_utf8_lossy(&head[..end]);
    let (_, rest) = declaration.split_once("encoding")?;
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    rest[1..].split(quote).next().map(|label| label.trim().to_owned())
}

fn decoded(bytes: &[u8], encoding: &'static Encoding, max_bytes: usize) -> Result<String, TooLong> {
    let mut decoder = encoding.new_decoder_with_bom_removal();
    let mut text = String::with_capacity(bytes.len().min(max_bytes));
    let mut at = 0;
    loop {
        let most = decoder.max_utf8_buffer_length_without_replacement(PIECE_BYTES.min(bytes.len() - at));
        text.reserve(most.unwrap_or(PIECE_BYTES).max(16));
        let piece_end = bytes.len().min(at + PIECE_BYTES);
        let is_last = piece_end == bytes.len();
        let (result, n_read) =
            decoder.decode_to_string_without_replacement(&bytes[at..piece_end], &mut text, is_last);
        at += n_read;
        if text.len() > max_bytes {
            return Err(TooLong);
        }
        match result {
            DecoderResult::InputEmpty if is_last => return Ok(text),
            DecoderResult::InputEmpty | DecoderResult::OutputFull => {}
            DecoderResult::Malformed(n_bad, n_behind) => {
                let end = at.saturating_sub(usize::from(n_behind));
                let start = end.saturating_sub(usize::from(n_bad));
                let (characters, _) = WINDOWS_1252.decode_without_bom_handling(&bytes[start..end]);
                text.push_str(&characters);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], content_type: Option<&str>) -> String {
        text(bytes.to_vec(), content_type, 1 << 20).unwrap()
    }

    fn utf16(text: &str, big: bool) -> Vec<u8> {
        text.encode_utf16()
            .flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
            .collect()
    }

    // reliability 27: wrong charset, UTF-16, BOM
    #[test]
    fn a_mark_beats_the_header_which_beats_the_declaration() {
        let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><a>caf\xe9 \x93</a>";
        assert!(read(latin, None).ends_with("<a>caf\u{e9} \u{201c}</a>"));
        let utf8 = "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?><a>caf\u{e9}</a>";
        assert!(read(utf8.as_bytes(), Some("text/xml; charset=\"UTF-8\"")).contains("caf\u{e9}"));
        let marked = format!("\u{feff}{utf8}");
        assert!(read(marked.as_bytes(), Some("text/xml; charset=iso-8859-1")).contains("caf\u{e9}"));
        for big in [true, false] {
            assert_eq!(read(&utf16("\u{feff}<a>\u{e9}</a>", big), None), "<a>\u{e9}</a>");
            assert_eq!(read(&utf16("<a>\u{e9}</a>", big), Some("text/xml; charset=utf-8")), "<a>\u{e9}</a>");
        }
    }

    #[test]
    fn wrong_declarations_lose_no_character() {
        let declared_utf8 = b"<?xml version=\"1.0\" encoding=\"utf-8\"?><a>caf\xe9 \xc3\xa9 \x96 end</a>";
        assert!(read(declared_utf8, None).ends_with("<a>caf\u{e9} \u{e9} \u{2013} end</a>"));
        let declared_utf16 = b"<?xml version=\"1.0\" encoding=\"utf-16\"?><a>caf\xc3\xa9</a>";
        assert!(read(declared_utf16, None).ends_with("<a>caf\u{e9}</a>"));
        assert_eq!(read(b"<?xml version='1.0' encoding='no such'?><a/>", None).len(), 44);
        // A character that is cut where a piece ends.
        let mut long = vec![b'a'; PIECE_BYTES - 1];
        long.extend("\u{e9}\u{e9}".as_bytes());
        long.push(0xe9);
        assert!(read(&long, None).ends_with("a\u{e9}\u{e9}\u{e9}"));
    }

    #[test]
    fn text_is_no_longer_than_it_may_be() {
        let latin = vec![0xe9; 1000];
        let header = Some("text/xml; charset=latin1");
        assert_eq!(text(latin.clone(), header, 1999), Err(TooLong));
        assert_eq!(text(latin, header, 2000).unwrap().len(), 2000);
        assert_eq!(text(vec![b'a'; 10], None, 9), Err(TooLong));
    }
}
