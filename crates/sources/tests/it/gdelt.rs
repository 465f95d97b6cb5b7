//! `gdelt` over a folder that is laid out like GDELT's server.

use std::fmt::Write;

use aqueduct_core::ErrorKind;
use aqueduct_sources::gdelt::FACTORY;
use md5::{Digest, Md5};
use serde_json::json;

use crate::support::{Room, numbers, texts};

/// A line of an events file: 61 fields, most of them empty.
fn event(id: i64, name: &str) -> String {
    let mut fields = vec![String::new(); 61];
    fields[0] = id.to_string();
    fields[6] = name.to_owned();
    fields[26] = "010".into();
    fields[30] = "-2.5".into();
    fields[60] = format!("https://example.com/{id}?a=\"b");
    fields.join("\t") + "\n"
}

/// Writes a file, and gives its line of the master list.
fn publish(room: &Room, name: &str, text: &str) -> String {
    room.write(&format!("v2/{name}"), text);
    let md5: String = Md5::digest(text).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    format!("{} {md5} http://data.gdeltproject.org/gdeltv2/{name}\n", text.len())
}

fn options(room: &Room) -> serde_json::Value {
    json!({
        "dataset": "events", "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:45:01Z",
        "base_url": room.path().join("v2").to_str().unwrap(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_the_range_are_read_with_official_columns_and_gaps_are_told() {
    let room = Room::new();
    let mut list = String::from("a broken line\n");
    for (id, stamp) in
        [(1, "20251231234500"), (2, "20260101000000"), (3, "20260101001500"), (5, "20260101004500")]
    {
        list += &publish(&room, &format!("{stamp}.export.CSV.zip"), &event(id, "\"PARIS"));
        list += &publish(&room, &format!("{stamp}.mentions.CSV.zip"), "not read\n");
    }
    room.write("v2/masterfilelist.txt", &list);
    let rows = room.read(&FACTORY, options(&room)).await.unwrap();
    let mut ids = numbers(&rows, "GlobalEventID");
    ids.sort_unstable();
    assert_eq!(ids, [2, 3, 5]);
    assert_eq!(texts(&rows, "EventCode"), ["010"; 3], "leading zeros stay");
    assert_eq!(texts(&rows, "Actor1Name"), ["\"PARIS"; 3], "quotes mean nothing");
    assert_eq!(rows[0].num_columns(), 61);
    let gaps = room.cx.notices().gaps.first();
    assert_eq!(gaps, ["events of 2026-01-01T00:30:00Z: missing in the master list"]);
    room.check_all_is_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_file_that_is_gone_is_a_gap_and_a_damaged_one_is_an_error() {
    let room = Room::new();
    let mut list = String::new();
    for (id, stamp) in
        [(0, "20260101000000"), (1, "20260101001500"), (2, "20260101003000"), (3, "20260101004500")]
    {
        list += &publish(&room, &format!("{stamp}.export.CSV.zip"), &event(id, ""));
    }
    room.write("v2/masterfilelist.txt", &list);
    std::fs::remove_file(room.path().join("v2/20260101001500.export.CSV.zip")).unwrap();
    let rows = room.read(&FACTORY, options(&room)).await.unwrap();
    let mut ids = numbers(&rows, "GlobalEventID");
    ids.sort_unstable();
    assert_eq!(ids, [0, 2, 3]);
    assert_eq!(room.cx.notices().gaps.count(), 1);

    room.write("v2/20260101004500.export.CSV.zip", event(4, ""));
    let error = room.read(&FACTORY, options(&room)).await.unwrap_err();
    assert!(error.chain().contains("md5") && error.chain().contains("20260101004500"), "{}", error.chain());
    let unverified = json!({"verify": "off", "dataset": "events", "from": "2026-01-01", "to": "2026-01-01",
                            "base_url": room.path().join("v2").to_str().unwrap()});
    assert_eq!(
        room.read(&FACTORY, unverified).await.unwrap().iter().map(|batch| batch.num_rows()).sum::<usize>(),
        3
    );
    room.check_all_is_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_without_files_is_an_error_and_a_missing_list_names_it() {
    let room = Room::new();
    let error = room.read(&FACTORY, options(&room)).await.unwrap_err();
    assert!(error.chain().contains("masterfilelist.txt"), "{}", error.chain());
    room.write("v2/masterfilelist.txt", "");
    let error = room.read(&FACTORY, options(&room)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(room.cx.notices().gaps.count(), 4);
}
