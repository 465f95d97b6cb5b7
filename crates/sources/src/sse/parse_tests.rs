use proptest::prelude::*;

use super::*;

const MAX: usize = 2 << 20;

/// What is found in a stream that comes in these pieces.
fn found<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Found> {
    let mut parser = Parser::new(MAX, MAX);
    parser.begin(&Arc::default());
    let mut all = Vec::new();
    for piece in pieces {
        let mut bytes = piece;
        while let Some(found) = parser.feed(&mut bytes) {
            all.push(found);
        }
        assert!(bytes.is_empty());
    }
    all
}

fn event(id: &str, name: &str, data: &str) -> Found {
    let (id, has_own_id) = (id.trim_start_matches('^'), !id.is_empty() && !id.starts_with('^'));
    Found::Event(Event { id: id.into(), has_own_id, name: name.into(), data: data.into() })
}

fn of(text: &str) -> Vec<Found> {
    found([text.as_bytes()])
}

// The examples of the standard: 9.2.6
#[test]
fn the_examples_of_the_standard_say_what_it_says() {
    assert_eq!(of("data: YHOO\ndata: +2\ndata: 10\n\n"), [event("", "message", "YHOO\n+2\n10")]);
    let stream = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n";
    let expected = [
        event("1", "message", "first event"),
        Found::Event(Event {
            id: "".into(),
            has_own_id: true,
            name: "message".into(),
            data: "second event".into(),
        }),
    ];
    assert_eq!(of(stream), expected, "the third is not ended by an empty line");
    assert_eq!(of("data\n\ndata\ndata\n\ndata:"), [event("", "message", ""), event("", "message", "\n")]);
    assert_eq!(
        of("data:test\n\ndata: test\n\n"),
        [event("", "message", "test"), event("", "message", "test")]
    );
}

#[test]
fn lines_end_with_lf_cr_or_both_wherever_they_are_cut() {
    let streams = ["data: a\n\ndata: b\n\n", "data: a\r\rdata: b\r\r", "data: a\r\n\r\ndata: b\r\n\r\n"];
    let expected = [event("", "message", "a"), event("", "message", "b")];
    for stream in streams {
        for cut in 0..=stream.len() {
            let (before, after) = stream.as_bytes().split_at(cut);
            assert_eq!(found([before, after]), expected, "{stream:?} cut at {cut}");
        }
    }
    assert_eq!(of("data: a\r\n\ndata: b\n\r\n"), expected);
}

#[test]
fn a_byte_order_mark_is_passed_over_once_and_only_at_the_start() {
    let expected = [event("", "message", "a")];
    for cut in 0..4 {
        let (before, after) = "\u{feff}data: a\n\n".as_bytes().split_at(cut);
        assert_eq!(found([before, after]), expected, "cut at {cut}");
    }
    assert_eq!(of("\u{feff}\u{feff}data: a\n\ndata: b\n\n"), [event("", "message", "b")]);
    assert_eq!(of("\u{feff}\n\u{feff}data: a\n\n"), []);
    assert_eq!(found([&b"\xef\xbb"[..], b"data: x\n\ndata: b\n\n"]), [event("", "message", "b")]);
}

#[test]
fn an_id_with_nul_is_ignored_and_one_lasts_until_the_next() {
    let stream = "id: 1\ndata: a\n\nid: 2\u{0}\ndata: b\n\ndata: c\n\nid: 3\n\ndata: d\n\n";
    let expected = [
        event("1", "message", "a"),
        event("^1", "message", "b"),
        event("^1", "message", "c"),
        Found::Id("3".into()),
        event("^3", "message", "d"),
    ];
    assert_eq!(of(stream), expected);
}

#[test]
fn only_digits_are_a_time_to_wait_and_comments_and_unknown_fields_are_nothing() {
    let stream = "retry: 50\nretry: 5s\nretry:\nretry: -1\nretry:7\nretry\nretry: 99999999999999999999999\n";
    assert_eq!(of(stream), [Found::Retry(50), Found::Retry(7), Found::Retry(u64::MAX)]);
    assert_eq!(of(": c\n:\nDATA: x\n data: y\ndatax: z\nevents: q\nfoo\n\n"), []);
    assert_eq!(of("event: tick\n\ndata: a\n\n"), [event("", "message", "a")], "without data nothing is left");
    assert_eq!(of("event: tick\ndata: a: b\n\n"), [event("", "tick", "a: b")]);
}

#[test]
fn a_line_of_a_megabyte_is_data_and_a_comment_of_one_is_not_kept() {
    let long = "x".repeat(1 << 20);
    let stream = format!(":{long}\n{long}: {long}\ndata: {long}\n\n");
    let pieces: Vec<_> = stream.as_bytes().chunks(1000).collect();
    assert_eq!(found(pieces), [event("", "message", &long)]);
}

#[test]
fn what_is_larger_than_it_may_be_is_passed_over_and_the_next_event_is_read() {
    let mut parser = Parser::new(8, 16);
    let mut bytes = &b"id: 1\ndata: 0123456789abcdefg\ndata: h\n\nid: 2\ndata: ok\n\n"[..];
    assert_eq!(parser.feed(&mut bytes), Some(Found::Full));
    assert_eq!((parser.room(), parser.max_bytes()), (8, 16));
    parser.grow(16);
    let start = b"0123456789abcdef".to_vec();
    assert_eq!(
        parser.feed(&mut bytes),
        Some(Found::TooLarge { id: "1".into(), has_own_id: true, n_bytes: 19, start })
    );
    parser.shrink(8);
    assert_eq!(parser.feed(&mut bytes), Some(event("2", "message", "ok")));
    let long = format!("id: {}\ndata: x\n\n", "7".repeat(MAX_FIELD_BYTES + 1));
    let told = Found::TooLarge { id: "2".into(), has_own_id: false, n_bytes: 1, start: Vec::new() };
    assert_eq!(parser.feed(&mut long.as_bytes()), Some(told));
}

// T15: no event takes more memory than there is room for, whatever its lines are.
#[test]
fn lines_of_data_without_a_value_take_room_as_others_do() {
    for line in ["data\n", "data:\n", "data: \n"] {
        let mut parser = Parser::new(8, 16);
        let stream = format!("{}\ndata: ok\n\n", line.repeat(100));
        let mut bytes = stream.as_bytes();
        assert_eq!(parser.feed(&mut bytes), Some(Found::Full), "{line:?}");
        assert_eq!(parser.data.len(), 8);
        parser.grow(16);
        let start = vec![b'\n'; 16];
        let told = Found::TooLarge { id: "".into(), has_own_id: false, n_bytes: 99, start };
        assert_eq!(parser.feed(&mut bytes), Some(told));
        assert_eq!(parser.feed(&mut bytes), Some(event("", "message", "ok")));
    }
}

#[test]
fn an_event_with_a_field_that_is_too_long_keeps_no_more_data_than_is_shown() {
    let mut parser = Parser::new(MAX, MAX);
    let (name, data) = ("n".repeat(MAX_FIELD_BYTES + 1), "d".repeat(MAX / 2));
    let stream = format!("id: 1\ndata: {data}\nevent: {name}\n");
    let mut bytes = stream.as_bytes();
    assert_eq!(parser.feed(&mut bytes), None);
    assert!(parser.data.capacity() <= SHOWN_BYTES, "{}", parser.data.capacity());
}

/// The standard's steps over the whole text at once.
fn plain(stream: &[u8]) -> Vec<Found> {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<_> = text.split('\n').collect();
    lines.pop();
    let (mut all, mut data, mut name) = (Vec::new(), String::new(), String::new());
    let (mut id, mut last, mut is_own) = (String::new(), String::new(), false);
    for line in lines {
        if line.is_empty() {
            let (has_moved, was_own) = (last != id, std::mem::take(&mut is_own));
            last.clone_from(&id);
            let name = std::mem::take(&mut name);
            let data = std::mem::take(&mut data);
            if let Some(data) = data.strip_suffix('\n') {
                let name = if name.is_empty() { "message".into() } else { name };
                let id = id.as_str().into();
                all.push(Found::Event(Event { id, has_own_id: was_own, name, data: data.into() }));
            } else if has_moved {
                all.push(Found::Id(id.as_str().into()));
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data += &format!("{value}\n"),
            "event" => name = value.into(),
            "id" if !value.contains('\0') => (id, is_own) = (value.into(), true),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                all.push(Found::Retry(value.parse().unwrap_or(u64::MAX)));
            }
            _ => {}
        }
    }
    all
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "data",
        "id",
        "event",
        "retry",
        ":",
        ": ",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        " ",
        "x",
        "42",
        "\0",
        "é",
        "\u{feff}",
        "data: y\n",
        "id: 7\n",
    ];
    let word = proptest::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    prop_oneof![8 => word, 1 => proptest::collection::vec(any::<u8>(), 0..4)]
}

proptest! {
    #[test]
    fn cut_anywhere_it_says_what_the_steps_of_the_standard_say(
        pieces in proptest::collection::vec(piece(), 0..60),
        cuts in proptest::collection::vec(1_usize..7, 1..20),
    ) {
        let stream = pieces.concat();
        let (mut parts, mut rest) = (Vec::new(), stream.as_slice());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break }
            let (part, left) = rest.split_at((*cut).min(rest.len()));
            parts.push(part);
            rest = left;
        }
        prop_assert_eq!(found(parts), plain(&stream));
    }
}
