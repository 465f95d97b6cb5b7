//! One event as it goes over the wire (HTML Living Standard, 9.2.5 "Parsing an event stream").

use memchr::memchr3_iter;

/// A name and a text. Whatever they hold, they cannot leave their place in the stream: each line of the text is a line of
/// data, and what no field can hold (T14) is replaced or left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'e> {
    /// What a client's listener is registered for.
    pub name: &'e str,
    /// The text.
    pub data: &'e [u8],
}

impl Event<'_> {
    /// Writes the event to the end of a buffer.
    pub fn encode(&self, id: Option<u64>, into: &mut Vec<u8>) {
        if let Some(id) = id {
            into.extend_from_slice(b"id: ");
            write_number(id, into);
            into.push(b'\n');
        }
        into.extend_from_slice(b"event: ");
        into.extend(self.name.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n' | b'\0')));
        into.extend_from_slice(b"\ndata: ");
        write_data(self.data, into);
        into.extend_from_slice(b"\n\n");
    }
}

/// The text, a line of data for each of its lines. A NUL becomes the character that stands for what cannot be shown.
fn write_data(data: &[u8], into: &mut Vec<u8>) {
    let mut start = 0;
    for at in memchr3_iter(b'\r', b'\n', b'\0', data) {
        into.extend_from_slice(&data[start..at]);
        start = at + 1;
        match data[at] {
            b'\r' if data.get(start) == Some(&b'\n') => {}
            b'\0' => into.extend_from_slice("\u{fffd}".as_bytes()),
            _ => into.extend_from_slice(b"\ndata: "),
        }
    }
    into.extend_from_slice(&data[start..]);
}

fn write_number(number: u64, into: &mut Vec<u8>) {
    use std::io::Write;
    // A buffer takes all it is given.
    let _ = write!(into, "{number}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(name: &str, data: &str) -> String {
        let mut bytes = Vec::new();
        Event { name, data: data.as_bytes() }.encode(Some(7), &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_three_fields_and_a_blank_line() {
        assert_eq!(encoded("row", r#"{"a":1}"#), "id: 7\nevent: row\ndata: {\"a\":1}\n\n");
    }

    // T14, reliability.md 64
    #[test]
    fn nothing_leaves_its_field() {
        assert_eq!(encoded("a\nid: 9\rb\0", "x"), "id: 7\nevent: aid: 9b\ndata: x\n\n");
        assert_eq!(
            encoded("a", "1\n\ndata: 2\r\n3\r4\0"),
            "id: 7\nevent: a\ndata: 1\ndata: \ndata: data: 2\ndata: 3\ndata: 4\u{fffd}\n\n"
        );
    }
}
