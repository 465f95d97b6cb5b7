//! What `cargo xtask new sink` writes compiles, and keeps every promise with the row that is printed with it.

use aqueduct_core::SinkFactory;
use aqueduct_testkit::sink_suite::Fixture;

use crate::conformance::without_parts;

#[path = "../../../../xtask/templates/sink.rs.txt"]
#[expect(unreachable_pub, reason = "in its room the module is public")]
mod new_component;

aqueduct_testkit::sink_suite!(ALL, fixtures);

const ALL: &[&dyn SinkFactory] = &[&new_component::FACTORY];

fn fixtures() -> Vec<Fixture> {
    vec![include!("../../../../xtask/templates/sink.fixture.txt")]
}
