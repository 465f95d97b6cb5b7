//! Compressions and archives, honest and hostile.

use aqueduct_core::ErrorKind;
use aqueduct_formats::write::TextCompression;
use aqueduct_formats::{DecodedLimits, declared_schema};
use aqueduct_primitives::ByteCount;
use serde_json::json;

use crate::support::{Member, MemoryFile, Outcome, Reader, options, packed, zip};

const ALL: [TextCompression; 4] =
    [TextCompression::Gzip, TextCompression::Zstd, TextCompression::Bzip2, TextCompression::Xz];

fn reader() -> Reader {
    Reader::new("a.ndjson", json!({"schema": {"a": "int64"}}))
}

fn lines(n: u64) -> Vec<u8> {
    (0..n).flat_map(|n| format!("{{\"a\": {n}}}\n").into_bytes()).collect()
}

fn counts(outcome: &Outcome) -> Vec<u64> {
    outcome.rows().iter().map(|row| row["a"].as_u64().unwrap()).collect()
}

// reliability 14
#[tokio::test]
async fn members_follow_each_other_zeros_may_and_junk_may_not() {
    for compression in ALL {
        let mut body = packed(&lines(10), compression);
        body.extend(packed(&lines(3), compression));
        body.extend([0; 8]);
        let outcome = reader().stream(&body).await;
        assert!(outcome.error.is_none(), "{compression:?}: {:?}", outcome.error);
        assert_eq!(counts(&outcome), (0..10).chain(0..3).collect::<Vec<_>>(), "{compression:?}");
        body.extend(b"trailing junk, long enough to be no header");
        assert_eq!(reader().stream(&body).await.error.unwrap().kind(), ErrorKind::Data, "{compression:?}");
    }
}

#[tokio::test]
async fn what_is_cut_off_or_changed_is_an_error_and_never_a_short_file() {
    for compression in ALL {
        let body = packed(&lines(200), compression);
        for n in 1..body.len() {
            let outcome = reader().stream(&body[..n]).await;
            let is_none_of_it = n < 6; // too short to be recognised: its bytes are bad rows
            assert!(outcome.error.is_some() || is_none_of_it, "{compression:?} cut at {n} of {}", body.len());
        }
    }
    let body = packed(&lines(200), TextCompression::Gzip);
    let mut wrong = body.clone();
    let at = body.len() - 6; // in the checksum
    wrong[at] ^= 1;
    assert!(reader().stream(&wrong).await.error.is_some());
}

// T5, T4
#[tokio::test]
async fn bombs_stop_at_the_limit() {
    let mut line = b" ".repeat(100_000);
    line.push(b'\n');
    let body = packed(&line.repeat(1000), TextCompression::Gzip);
    let mut one = reader();
    one.limits = DecodedLimits { max_ratio: 200, ..DecodedLimits::default() };
    let error = one.stream(&body).await.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.message().contains("200 times") && error.context("file") == Some("a.ndjson"), "{error}");
    let mut one = reader();
    one.limits = DecodedLimits { max_bytes: ByteCount::mib(8), ..DecodedLimits::default() };
    let archive = zip(&[Member::new("a.ndjson", &line.repeat(100))]);
    assert_eq!(one.stream(&archive).await.error.unwrap().context("limit_bytes"), Some("8MiB"));
    assert_eq!(one.file(MemoryFile::new(archive)).await.error.unwrap().kind(), ErrorKind::Limit);
}

#[tokio::test]
async fn zips_are_read_as_they_come_and_by_their_directory() {
    let (one, two, three) = (lines(5000), lines(7), lines(1));
    let members = [
        Member::new("../../evil.ndjson", &one),
        Member { has_descriptor: true, ..Member::new("/etc/passwd", &two) },
        Member { is_stored: true, ..Member::new("stored", &three) },
    ];
    let archive = zip(&members);
    let expected: Vec<u64> = (0..5000).chain(0..7).chain(0..1).collect();
    assert_eq!(counts(&reader().stream(&archive).await), expected);
    assert_eq!(counts(&reader().file(MemoryFile::new(archive)).await), expected);
}

#[tokio::test]
async fn a_zip_that_cannot_be_streamed_goes_on_from_a_disk() {
    let (one, two) = (lines(3000), lines(4));
    let members = [
        Member::new("a", &one),
        Member { is_stored: true, has_descriptor: true, ..Member::new("b", &two) },
        Member::new("c", &two),
    ];
    let mut reader = reader();
    reader.origin = true;
    let schema = declared_schema(&options(reader.options.clone()), None).unwrap().unwrap();
    let outcome = reader.stream_then_file(&zip(&members), schema).await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(counts(&outcome), (0..3000).chain(0..4).chain(0..4).collect::<Vec<_>>());
    let numbers: Vec<_> = outcome.rows().iter().map(|row| row["_row"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=3008).collect::<Vec<_>>());
}

// reliability 36
#[tokio::test]
async fn hostile_zips_are_errors() {
    let data = lines(50);
    let honest = zip(&[Member::new("a", &data), Member::new("b", &data)]);
    let encrypted = zip(&[Member { flags: 1, ..Member::new("a", &data) }]);
    let error = reader().stream(&encrypted).await.error.unwrap();
    assert!(error.message().contains("encrypted"), "{error}");

    let mut wrong = honest.clone();
    wrong[14] ^= 1; // the first member's checksum
    assert!(reader().stream(&wrong).await.error.unwrap().message().contains("checksum"));

    // Both entries of the directory name the first member.
    let mut overlapping = honest.clone();
    let second = honest.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
    overlapping[second + 42..second + 46].fill(0);
    let error = reader().file(MemoryFile::new(overlapping)).await.error.unwrap();
    assert!(error.message().contains("overlap"), "{error}");

    for n in 1..honest.len() {
        let outcome = reader().file(MemoryFile::new(honest[..n].to_vec())).await;
        assert!(outcome.error.is_some() || n < 4, "by its directory, cut at {n}");
    }
}

#[tokio::test]
async fn an_archive_of_too_many_members_is_refused_in_bounded_memory() {
    let empty: Vec<Member<'_>> = (0..60_000).map(|_| Member::new("e", b"")).collect();
    let part = zip(&empty);
    let members_only = &part[..part.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap()];
    let outcome = reader().stream(&members_only.repeat(2)).await;
    assert_eq!(outcome.error.unwrap().kind(), ErrorKind::Limit);
}

#[tokio::test]
async fn an_empty_file_is_empty_however_it_is_packed() {
    for compression in ALL {
        let outcome = reader().stream(&packed(b"", compression)).await;
        assert!(outcome.error.is_none() && outcome.n_rows() == 0, "{compression:?}: {:?}", outcome.error);
    }
    assert!(reader().stream(&zip(&[])).await.error.is_none());
}
