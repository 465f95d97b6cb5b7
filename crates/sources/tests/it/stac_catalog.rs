//! `stac_catalog` over folders and servers.

use aqueduct_sources::stac_catalog::FACTORY;
use aqueduct_testkit::http::{Answer, Server};
use serde_json::{Value, json};

use crate::support::{Room, texts};

fn catalog(kind: &str, id: &str, links: &[(&str, &str)]) -> String {
    let links: Vec<_> = links.iter().map(|(rel, href)| json!({"rel": rel, "href": href})).collect();
    json!({"type": kind, "id": id, "stac_version": "1.0.0", "description": "d", "links": links}).to_string()
}

fn item(id: &str) -> String {
    json!({
        "type": "Feature", "stac_version": "1.0.0", "id": id, "geometry": null,
        "properties": {"datetime": "2026-01-01T00:00:00Z", (format!("only:{id}")): 1},
        "links": [{"rel": "root", "href": "../../catalog.json"}], "assets": {},
    })
    .to_string()
}

/// A root with two collections, one of them in a folder of the other's neighbour, and links that lead back.
fn documents() -> Vec<(&'static str, String)> {
    vec![
        (
            "catalog.json",
            catalog(
                "Catalog",
                "root",
                &[
                    ("self", "https://nowhere.invalid/catalog.json"),
                    ("root", "./catalog.json"),
                    ("child", "./a/collection.json"),
                    ("child", "b/collection.json"),
                ],
            ),
        ),
        (
            "a/collection.json",
            catalog(
                "Collection",
                "a",
                &[
                    ("root", "../catalog.json"),
                    ("parent", "https://nowhere.invalid/parent.json"),
                    ("item", "./items/one.json"),
                    ("item", "items/two.json"),
                    ("child", "../b/sub/catalog.json"),
                ],
            ),
        ),
        (
            "b/collection.json",
            catalog("Collection", "b", &[("item", "three.json"), ("child", "sub/catalog.json")]),
        ),
        ("b/sub/catalog.json", catalog("Catalog", "sub", &[("item", "../../b/four.json")])),
        ("a/items/one.json", item("one")),
        ("a/items/two.json", item("two")),
        ("b/three.json", item("three")),
        ("b/four.json", item("four")),
    ]
}

fn options(url: &str) -> Value {
    json!({"url": url, "infer_rows": "all"})
}

async fn ids(room: &Room, options: Value) -> Vec<String> {
    let mut ids = texts(&room.read(&FACTORY, options).await.unwrap(), "id");
    ids.sort();
    ids
}

#[tokio::test]
async fn children_and_items_are_followed_and_nothing_else() {
    let room = Room::new();
    let server = Server::start().await;
    for (name, text) in documents() {
        room.write(name, &text);
        server.file(&format!("/{name}"), text);
    }
    let local = ids(&room, options("catalog.json")).await;
    assert_eq!(local, ["four", "one", "three", "two"]);
    let n_before = server.n_requests();
    assert_eq!(ids(&room, options(&server.url("/catalog.json"))).await, local);
    // Four catalogues, and the items once to know their columns and once to be read, but for the first.
    assert!(server.n_requests() - n_before <= 4 + 2 * 4, "{} requests", server.n_requests());
    room.check_all_is_back().await;
}

#[tokio::test]
async fn only_collections_that_are_asked_for_are_read() {
    let room = Room::new();
    for (name, text) in documents() {
        room.write(name, text);
    }
    let mut of_b = options("catalog.json");
    of_b["collections"] = json!(["b"]);
    // One of them was met below another collection first.
    assert_eq!(ids(&room, of_b).await, ["four", "three"]);
}

#[tokio::test]
async fn what_is_bad_below_the_root_goes_by_the_policy() {
    let (room, kept) = Room::tolerant();
    let server = Server::start().await;
    let links = [("child", "gone.json"), ("child", "page.json"), ("item", "one.json"), ("item", "none.json")];
    server.file("/catalog.json", catalog("Catalog", "root", &links));
    server.file("/one.json", item("one"));
    server.route("/page.json", |_| Answer::ok("<html>"));
    assert_eq!(ids(&room, options(&server.url("/catalog.json"))).await, ["one"]);
    let mut files: Vec<_> = kept.all().into_iter().map(|reject| reject.origin.file).collect();
    files.sort();
    assert_eq!(files, ["gone.json", "none.json", "page.json"].map(|name| server.url(&format!("/{name}"))));
    let error = Room::new().read(&FACTORY, options(&server.url("/page.json"))).await.unwrap_err();
    assert!(error.chain().contains("no JSON object of a STAC catalogue"), "{}", error.chain());
}

#[tokio::test]
async fn catalogues_that_lead_back_are_left() {
    let room = Room::new();
    let there = [("child", "a.json"), ("item", "one.json")];
    room.write("catalog.json", catalog("Catalog", "root", &there));
    room.write(
        "a.json",
        catalog("Collection", "a", &[("child", "./sub/../catalog.json"), ("child", "a.json")]),
    );
    room.write("one.json", item("one"));
    for collections in [json!([]), json!(["a"])] {
        let mut options = options("catalog.json");
        options["collections"] = collections;
        assert_eq!(ids(&room, options).await, ["one"]);
    }
}

// reliability 26, T1
#[tokio::test]
async fn links_of_a_server_lead_to_no_file_and_no_private_address() {
    let (room, kept) = Room::tolerant();
    let (server, other) = (Server::start().await, Server::start().await);
    other.file("/secret.json", item("secret"));
    room.write("secret.json", item("secret"));
    let file = format!("file://{}", room.path().join("secret.json").display());
    let links = [("item", file.as_str()), ("item", &other.url("/secret.json")), ("item", "one.json")];
    server.file("/catalog.json", catalog("Catalog", "root", &links));
    server.file("/one.json", item("one"));
    assert_eq!(ids(&room, options(&server.url("/catalog.json"))).await, ["one"]);
    assert_eq!(kept.all().len(), 2);
    assert_eq!(other.n_requests(), 0);
}

#[tokio::test]
async fn links_that_say_nothing_are_passed_over_and_those_that_lead_nowhere_are_told() {
    let (room, kept) = Room::tolerant();
    let mut root: Value =
        serde_json::from_str(&catalog("Catalog", "root", &[("item", "one.json"), ("item", "ftp://host/x")]))
            .unwrap();
    root["links"]
        .as_array_mut()
        .unwrap()
        .extend([json!({"rel": "license", "href": null}), json!({"href": "x"})]);
    room.write("catalog.json", root.to_string());
    room.write("one.json", item("one"));
    assert_eq!(ids(&room, options("catalog.json")).await, ["one"]);
    assert_eq!(kept.all().len(), 1);
}

#[tokio::test]
async fn an_item_that_several_documents_link_to_is_read_once() {
    let room = Room::new();
    let server = Server::start().await;
    let children = [("child", "a/collection.json"), ("child", "b/collection.json"), ("item", "one.json")];
    let documents = [
        ("catalog.json", catalog("Catalog", "root", &children)),
        ("a/collection.json", catalog("Collection", "a", &[("item", "../one.json"), ("item", "./two.json")])),
        (
            "b/collection.json",
            catalog("Collection", "b", &[("item", "../a/two.json"), ("item", "../a/./two.json")]),
        ),
        ("one.json", item("one")),
        ("a/two.json", item("two")),
    ];
    for (name, text) in documents {
        room.write(name, &text);
        server.file(&format!("/{name}"), text);
    }
    assert_eq!(ids(&room, options("catalog.json")).await, ["one", "two"]);
    assert_eq!(ids(&room, options(&server.url("/catalog.json"))).await, ["one", "two"]);
    room.check_all_is_back().await;
}

#[tokio::test]
async fn links_are_relative_to_where_a_document_was_found() {
    let (room, server) = (Room::new(), Server::start().await);
    server.route("/latest", |_| Answer::new(302).header("Location", "/v2/deep/catalog.json").body(""));
    let links = [("child", "a.json"), ("child", "again.json"), ("item", "one.json")];
    server.file("/v2/deep/catalog.json", catalog("Catalog", "root", &links));
    server.file("/v2/deep/a.json", catalog("Catalog", "a", &[("item", "two.json")]));
    // Another way to the same document.
    server.route("/v2/deep/again.json", |_| Answer::new(301).header("Location", "a.json").body(""));
    server.file("/v2/deep/one.json", item("one"));
    server.file("/v2/deep/two.json", item("two"));
    assert_eq!(ids(&room, options(&server.url("/latest"))).await, ["one", "two"]);
}

// T1
#[tokio::test]
async fn a_local_catalogue_leads_to_no_private_address() {
    let (room, kept) = Room::tolerant();
    let server = Server::start().await;
    server.file("/secret.json", item("secret"));
    room.write(
        "catalog.json",
        catalog("Catalog", "root", &[("item", &server.url("/secret.json")), ("item", "one.json")]),
    );
    room.write("one.json", item("one"));
    assert_eq!(ids(&room, options("catalog.json")).await, ["one"]);
    assert_eq!((kept.all().len(), server.n_requests()), (1, 0));
}

#[tokio::test]
async fn names_of_catalogues_take_no_more_than_there_is() {
    let room = Room::new();
    let names: Vec<_> = (0..3000).map(|n| format!("{n}-{}", "x".repeat(1000))).collect();
    let links: Vec<_> = names.iter().map(|name| ("child", name.as_str())).collect();
    room.write("catalog.json", catalog("Catalog", "root", &links));
    let error = room.read(&FACTORY, options("catalog.json")).await.unwrap_err();
    assert!(error.message().contains("begin further down"), "{error}");
}

#[tokio::test]
async fn depth_has_a_limit_with_a_name() {
    let room = Room::new();
    for (name, text) in documents() {
        room.write(name, text);
    }
    let shallow = json!({"url": "catalog.json", "max_depth": 1});
    let error = room.read(&FACTORY, shallow).await.unwrap_err();
    assert!(error.message().contains("max_depth"), "{error}");
}
