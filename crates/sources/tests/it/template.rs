//! What `cargo xtask new source` writes compiles, and keeps every promise with the row that is printed with it.

use aqueduct_core::SourceFactory;
use aqueduct_testkit::source_suite::{Fixture, Input};
use serde_json::json;

#[path = "../../../../xtask/templates/source.rs.txt"]
#[expect(unreachable_pub, reason = "in its room the module is public")]
mod new_component;

aqueduct_testkit::source_suite!(ALL, fixtures, |_| {});

const ALL: &[&dyn SourceFactory] = &[&new_component::FACTORY];

fn fixtures() -> Vec<Fixture> {
    vec![include!("../../../../xtask/templates/source.fixture.txt")]
}
