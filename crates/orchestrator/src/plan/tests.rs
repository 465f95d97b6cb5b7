//! What memory becomes.

use aqueduct_primitives::ByteCount;

use crate::flow::fake::load_yaml;
use crate::plan::{Plan, plan};

fn planned(memory: &str, stages: &str) -> Result<Plan, String> {
    let text = format!(
        "name: x\nmemory: {memory}\nsources: {{ incoming: {{ files: {{ paths: [n] }} }} }}\n\
         stages: {{ ordered: {{ input: incoming, {stages} }} }}\nsinks: {{ kept: {{ input: ordered, parquet: {{ path: o }} }} }}\n"
    );
    let flow = load_yaml(&text).unwrap().remove(0);
    plan(&flow).map_err(|errors| errors.to_string())
}

// MEM-4
#[test]
fn shares_and_flight_never_exceed_memory() {
    for memory in ["9MB", "12MB", "32MB", "64MB", "512MB", "4GB", "1TB"] {
        let plan = planned(memory, "sort: { by: [id] }").unwrap();
        let sum = plan.shares.iter().copied().sum::<ByteCount>().saturating_add(plan.flow_bytes);
        let memory: ByteCount = memory.parse().unwrap();
        assert!(sum <= memory && sum >= memory.percent(99), "{sum} of {memory}");
        assert!(
            plan.flow_bytes >= memory.percent(20) || memory < ByteCount::mb(32),
            "{} of {memory}",
            plan.flow_bytes
        );
        assert!(plan.shares[1] >= ByteCount::mib(8));
    }
}

#[test]
fn small_memory_makes_small_batches() {
    let batch = |memory| planned(memory, "limit: 1").unwrap().batch_bytes;
    assert_eq!(
        (batch("512MB"), batch("64MB"), batch("16MB"), batch("1MB")),
        (ByteCount::mib(4), ByteCount::mib(1), ByteCount::kib(256), ByteCount::kib(64))
    );
}

#[test]
fn the_smallest_memory_that_is_told_does_and_less_does_not() {
    let told = planned("10KB", "sort: { by: [id] }").err().unwrap();
    assert!(
        told.contains("/flow.yaml:2:9: memory: 10KB is too little for this flow: step `ordered` needs most"),
        "{told}"
    );
    let smallest = told.rsplit(' ').next().unwrap();
    assert_eq!(planned(smallest, "sort: { by: [id] }").unwrap().smallest, smallest.parse().unwrap());
    let less = smallest.parse::<ByteCount>().unwrap().percent(90);
    assert!(planned(&less.to_string(), "sort: { by: [id] }").is_err());
}
