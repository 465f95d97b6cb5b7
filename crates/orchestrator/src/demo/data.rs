//! Files shaped like GDELT 2.0 event exports: zips of 61 tab-separated columns, made from the file's number.
//!
//! Shape: GDELT Event Codebook V2.0. The rows are invented; the same number gives the same bytes.

use std::fmt::Write as _;
use std::io::{Cursor, Write as _};

use chrono::{DateTime, Duration, TimeZone, Utc};
use md5::{Digest, Md5};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Columns of an event.
pub(crate) const N_COLUMNS: usize = 61;
/// Events in each file: a quiet quarter of an hour.
pub(crate) const ROWS_PER_FILE: u64 = 500;
/// Column of the Goldstein scale, from 0.
const GOLDSTEIN_SCALE: usize = 30;

const COUNTRIES: [&str; 8] = ["USA", "FRA", "DEU", "BRA", "JPN", "KEN", "IND", "NZL"];
const EVENT_CODES: [&str; 6] = ["010", "020", "036", "051", "112", "190"];

/// One file as the server has it.
pub(crate) struct DemoFile {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) md5: String,
}

/// The start of the quarter of an hour that a file is about.
pub(crate) fn interval(n: u32) -> DateTime<Utc> {
    let first = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).single().unwrap_or_default();
    first + Duration::minutes(15 * i64::from(n))
}

/// The file's name within its folder.
pub(crate) fn file_name(n: u32) -> String {
    format!("{}.export.CSV.zip", interval(n).format("%Y%m%d%H%M%S"))
}

/// Makes a file.
///
/// # Errors
/// The archive cannot be written, which memory never refuses.
pub(crate) fn file(n: u32) -> zip::result::ZipResult<DemoFile> {
    let stamp = interval(n).format("%Y%m%d%H%M%S").to_string();
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(1));
    archive.start_file(format!("{stamp}.export.CSV"), options)?;
    archive.write_all(rows(n, &stamp).as_bytes())?;
    let bytes = archive.finish()?.into_inner();
    let digest = Md5::digest(&bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    Ok(DemoFile { name: file_name(n), md5: digest, bytes })
}

fn rows(n: u32, stamp: &str) -> String {
    let mut text = String::new();
    for row in 0..ROWS_PER_FILE {
        let id = u64::from(n) * ROWS_PER_FILE + row;
        let fields: Vec<String> = (0..N_COLUMNS).map(|column| field(column, id, stamp)).collect();
        text.push_str(&fields.join("\t"));
        text.push('\n');
    }
    text
}

/// One value of an event: numbers where the codebook has numbers, and many empty fields, as in real files.
fn field(column: usize, id: u64, stamp: &str) -> String {
    let mixed = mix(id * N_COLUMNS as u64 + column as u64);
    let at = usize::try_from(mixed % 1024).unwrap_or(0);
    let pick = |words: &[&str]| words[at % words.len()].to_owned();
    match column {
        0 => (1_400_000_000 + id).to_string(),
        1 => stamp[..8].to_owned(),
        2 => stamp[..6].to_owned(),
        3 => stamp[..4].to_owned(),
        4 => format!("{}.{:04}", &stamp[..4], mixed % 10_000),
        5 | 7 | 15 | 17 => pick(&COUNTRIES),
        25 => (mixed % 2).to_string(),
        26..=28 => pick(&EVENT_CODES),
        29 => (1 + mixed % 4).to_string(),
        GOLDSTEIN_SCALE => tenths(mixed, 200, 100),
        31..=33 => (1 + mixed % 20).to_string(),
        34 => tenths(mixed, 300, 150),
        35 | 43 | 51 => (mixed % 6).to_string(),
        40 | 48 | 56 => tenths(mixed, 1800, 900),
        41 | 49 | 57 => tenths(mixed, 3600, 1800),
        59 => stamp.to_owned(),
        60 => format!("https://news.example/{:x}/{id}.html", mixed % 4096),
        _ => String::new(),
    }
}

/// A number with one decimal between `-below` and `range - below` tenths.
fn tenths(mixed: u64, range: u64, below: i64) -> String {
    let tenths = i64::try_from(mixed % range).unwrap_or(0) - below;
    let sign = if tenths < 0 { "-" } else { "" };
    format!("{sign}{}.{}", tenths.abs() / 10, tenths.abs() % 10)
}

/// SplitMix64 (Steele, Lea, Flood 2014): one step, so that any value can be made alone.
fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_every_column_and_an_id_of_its_own() {
        let text = rows(3, "20260101004500");
        assert!(text.lines().all(|line| line.split('\t').count() == N_COLUMNS));
        let ids: std::collections::HashSet<_> =
            text.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(ids.len() as u64, ROWS_PER_FILE);
    }

    #[test]
    fn the_same_number_gives_the_same_bytes() {
        assert_eq!(file(5).unwrap().md5, file(5).unwrap().md5);
        assert_ne!(file(5).unwrap().md5, file(6).unwrap().md5);
    }
}
