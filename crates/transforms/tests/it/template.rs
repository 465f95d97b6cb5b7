//! What `cargo xtask new stage` writes compiles, and keeps every promise with the row that is printed with it.

use aqueduct_core::StageFactory;
use aqueduct_testkit::stage_suite::Fixture;
use serde_json::json;

use crate::conformance::{keeping, plain};

#[path = "../../../../xtask/templates/stage.rs.txt"]
mod new_component;

aqueduct_testkit::stage_suite!(ALL, fixtures);

const ALL: &[&dyn StageFactory] = &[&new_component::FACTORY];

fn fixtures() -> Vec<Fixture> {
    vec![include!("../../../../xtask/templates/stage.fixture.txt")]
}
