//! The rules of the house. Pure: from a [`House`] to the sentences that say what is broken.

use super::house::{Edge, House, Room, Row};

/// The crates that may name DataFusion, and which parts of it. Aggregates and array functions are parts of
/// `datafusion-functions` that lie in crates of their own.
const DATAFUSION: &[(&str, &[&str])] = &[
    ("aqueduct-expr", EXPRESSIONS),
    ("aqueduct-spill", &["datafusion", "datafusion-physical-plan", "datafusion-execution"]),
];

/// The parts of DataFusion that know expressions and no plans.
const EXPRESSIONS: &[&str] = &[
    "datafusion-common",
    "datafusion-expr",
    "datafusion-functions",
    "datafusion-functions-aggregate",
    "datafusion-functions-nested",
    "datafusion-optimizer",
    "datafusion-physical-expr",
    "datafusion-sql",
];

/// Who wants bounded downloads alone depends on this crate, and compiles in seconds.
const LIGHT: &str = "aqueduct-primitives";

/// What must not be in the tree of [`LIGHT`]: Arrow, HTTP, DataFusion, by the beginning of the name.
const HEAVY: &[&str] = &["arrow", "parquet", "datafusion", "http", "hyper", "reqwest", "object_store"];

/// The crate that tests of any floor may use.
const TESTKIT: &str = "aqueduct-testkit";

/// What is broken, in the order of the crates.
pub(crate) fn check(house: &House) -> Vec<String> {
    house.rooms.iter().flat_map(|room| check_room(house, room)).collect()
}

fn check_room(house: &House, room: &Room) -> Vec<String> {
    let mut broken = Vec::new();
    if room.floor.is_none() {
        broken.push(format!("{}: no floor; add `[package.metadata.aqueduct] layer = N`", room.name));
    }
    if !room.has_lints {
        broken.push(format!("{}: own lints; add `[lints] workspace = true`", room.name));
    }
    broken.extend(room.edges.iter().filter_map(|edge| bad_edge(house, room, edge)));
    broken.extend(room.edges.iter().filter_map(|edge| bad_datafusion(room, edge)));
    broken.extend(too_heavy(room));
    broken.extend(bad_default(room));
    broken
}

fn bad_edge(house: &House, room: &Room, edge: &Edge) -> Option<String> {
    let to = house.room(&edge.to)?;
    let is_lower = to.floor? < room.floor?;
    // A test kit below would be compiled with the crate under test in two versions.
    let is_test_kit = edge.only_tests && to.name == TESTKIT && !to.tree.contains(&room.name);
    if is_lower || is_test_kit {
        return None;
    }
    Some(format!(
        "{} (floor {}) depends on {} (floor {}); a crate depends on strictly lower floors: what both want belongs one floor down",
        room.name, room.floor?, to.name, to.floor?
    ))
}

fn bad_datafusion(room: &Room, edge: &Edge) -> Option<String> {
    if !edge.to.starts_with("datafusion") {
        return None;
    }
    let allowed = DATAFUSION.iter().find(|(name, _)| *name == room.name).map_or(&[][..], |(_, parts)| parts);
    let spill_too = room.name == "aqueduct-spill" && EXPRESSIONS.contains(&edge.to.as_str());
    if allowed.contains(&edge.to.as_str()) || spill_too {
        return None;
    }
    Some(format!(
        "{} depends on {}; expressions go through aqueduct-expr, plans through aqueduct-spill",
        room.name, edge.to
    ))
}

/// The `default-members` are the crates without DataFusion: a plain `cargo check` stays quick, and leaves out none that
/// is. Who may name DataFusion may also do so by features alone, and is left out in any case.
fn bad_default(room: &Room) -> Option<String> {
    let brings = room.alone.iter().find(|name| name.starts_with("datafusion"));
    let may_bring = DATAFUSION.iter().any(|(name, _)| *name == room.name);
    match (room.is_default, brings) {
        (true, Some(name)) => Some(format!("{} brings {name}; take it out of `default-members`", room.name)),
        (true, None) if may_bring => {
            Some(format!("{} may bring DataFusion; take it out of `default-members`", room.name))
        }
        (false, None) if !may_bring => {
            Some(format!("{} brings no DataFusion; add it to `default-members`", room.name))
        }
        _ => None,
    }
}

fn too_heavy(room: &Room) -> Vec<String> {
    if room.name != LIGHT {
        return Vec::new();
    }
    let heavy = room.tree.iter().filter(|name| HEAVY.iter().any(|start| name.starts_with(start)));
    heavy
        .map(|name| format!("{LIGHT} brings {name}; it knows neither Arrow nor HTTP nor DataFusion"))
        .collect()
}

/// Where the table of ARCHITECTURE.md differs from the manifests of crates/.
pub(crate) fn check_table(house: &House, table: &[Row]) -> Vec<String> {
    let told =
        |row: &Row| format!("ARCHITECTURE.md: `{}` on floor {} in {}", row.name, row.floor, row.folder);
    let rooms = house.rooms.iter().filter(|room| room.folder.starts_with("crates/"));
    let rows: Vec<Row> = rooms
        .map(|room| Row {
            floor: room.floor.unwrap_or_default(),
            name: room.name.clone(),
            folder: room.folder.clone(),
        })
        .collect();
    let missing = rows.iter().filter(|row| !table.contains(row)).map(|row| told(row) + " is missing");
    let wrong = table.iter().filter(|row| !rows.contains(row)).map(|row| told(row) + " is not so");
    missing.chain(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str, floor: u64) -> Room {
        Room {
            name: name.into(),
            folder: format!("crates/{}", name.trim_start_matches("aqueduct-")),
            floor: Some(floor),
            has_lints: true,
            is_default: true,
            ..Room::default()
        }
    }

    fn to(name: &str) -> Edge {
        Edge { to: name.into(), only_tests: false }
    }

    fn sound() -> House {
        let mut rooms =
            vec![room("aqueduct-primitives", 0), room("aqueduct-core", 1), room("aqueduct-net", 2)];
        rooms.extend([room("aqueduct-expr", 2), room("aqueduct-testkit", 2)]);
        rooms[1].edges = vec![to("aqueduct-primitives"), to("arrow")];
        rooms[2].edges = vec![to("aqueduct-core"), Edge { only_tests: true, ..to("aqueduct-testkit") }];
        rooms[3].edges = vec![to("datafusion-expr")];
        (rooms[3].alone, rooms[3].is_default) = (["datafusion-expr".to_owned()].into(), false);
        rooms[4].tree = ["aqueduct-core".to_owned()].into();
        House { rooms }
    }

    /// The one sentence about a house that was sound before the change.
    fn broken(change: impl FnOnce(&mut Vec<Room>)) -> String {
        let mut house = sound();
        assert_eq!(check(&house), Vec::<String>::new());
        change(&mut house.rooms);
        let broken = check(&house);
        assert_eq!(broken.len(), 1, "{broken:?}");
        broken.into_iter().next().unwrap()
    }

    #[test]
    fn an_edge_up_or_sideways_is_refused() {
        let up = broken(|rooms| rooms[1].edges.push(to("aqueduct-net")));
        assert!(up.starts_with("aqueduct-core (floor 1) depends on aqueduct-net (floor 2)"), "{up}");
        let sideways = broken(|rooms| rooms[2].edges.push(to("aqueduct-expr")));
        assert!(
            sideways.starts_with("aqueduct-net (floor 2) depends on aqueduct-expr (floor 2)"),
            "{sideways}"
        );
    }

    #[test]
    fn tests_may_use_the_test_kit_but_not_one_that_stands_on_them() {
        let in_tests = Edge { only_tests: true, ..to("aqueduct-testkit") };
        let circle = |rooms: &mut Vec<Room>| rooms[1].edges.push(in_tests);
        assert!(broken(circle).contains("aqueduct-core (floor 1) depends on aqueduct-testkit"));
        let not_in_tests = |rooms: &mut Vec<Room>| rooms[2].edges[1].only_tests = false;
        assert!(broken(not_in_tests).contains("aqueduct-net (floor 2) depends on aqueduct-testkit"));
    }

    #[test]
    fn a_crate_without_a_floor_is_refused() {
        assert!(broken(|rooms| rooms[4].floor = None).starts_with("aqueduct-testkit: no floor"));
    }

    #[test]
    fn a_crate_with_lints_of_its_own_is_refused() {
        assert!(broken(|rooms| rooms[0].has_lints = false).starts_with("aqueduct-primitives: own lints"));
    }

    #[test]
    fn datafusion_is_for_those_who_are_named() {
        let stranger = broken(|rooms| rooms[2].edges.push(to("datafusion-common")));
        assert!(stranger.starts_with("aqueduct-net depends on datafusion-common"), "{stranger}");
        let plans = broken(|rooms| rooms[3].edges.push(to("datafusion-physical-plan")));
        assert!(plans.starts_with("aqueduct-expr depends on datafusion-physical-plan"), "{plans}");
    }

    #[test]
    fn the_default_members_are_those_without_datafusion() {
        let slow = broken(|rooms| rooms[2].alone.extend(["datafusion-sql".into()]));
        assert!(slow.starts_with("aqueduct-net brings datafusion-sql; take it out"), "{slow}");
        let left_out = broken(|rooms| rooms[2].is_default = false);
        assert!(left_out.starts_with("aqueduct-net brings no DataFusion; add it"), "{left_out}");
        let by_features = broken(|rooms| (rooms[3].alone, rooms[3].is_default) = ([].into(), true));
        assert!(by_features.starts_with("aqueduct-expr may bring DataFusion; take it out"), "{by_features}");
    }

    #[test]
    fn the_light_crate_stays_light() {
        let heavy = broken(|rooms| rooms[0].tree.extend(["futures".into(), "arrow-schema".into()]));
        assert!(heavy.starts_with("aqueduct-primitives brings arrow-schema"), "{heavy}");
    }

    #[test]
    fn the_table_tells_what_the_manifests_tell() {
        let mut house = sound();
        house.rooms.truncate(1);
        house.rooms.push(Room { folder: "xtask".into(), ..room("xtask", 0) });
        let row = Row { floor: 0, name: "aqueduct-primitives".into(), folder: "crates/primitives".into() };
        assert_eq!(check_table(&house, std::slice::from_ref(&row)), Vec::<String>::new());
        let wrong = Row { floor: 1, ..row };
        assert_eq!(
            check_table(&house, &[wrong]),
            [
                "ARCHITECTURE.md: `aqueduct-primitives` on floor 0 in crates/primitives is missing",
                "ARCHITECTURE.md: `aqueduct-primitives` on floor 1 in crates/primitives is not so"
            ]
        );
    }
}
