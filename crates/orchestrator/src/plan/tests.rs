//! What memory becomes.

use aqueduct_core::MemoryNeed;
use aqueduct_primitives::ByteCount;

use crate::flow::fake::load_yaml;
use crate::plan::{Needs, Plan, divide, plan, shared_out};

fn planned(memory: &str, stages: &str) -> Result<Plan, String> {
    planned_with(memory, stages, "")
}

fn planned_with(memory: &str, stages: &str, http: &str) -> Result<Plan, String> {
    let text = format!(
        "name: x\nmemory: {memory}\nsources: {{ incoming: {{ files: {{ paths: [n] }} }} }}\n\
         stages: {{ ordered: {{ input: incoming, {stages} }} }}\nsinks: {{ kept: {{ input: ordered, parquet: {{ path: o }} }} }}\n{http}"
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

#[test]
fn equal_parts_for_all_but_nobody_gets_more_than_they_wish() {
    let mb = |n: &[u64]| n.iter().map(|n| ByteCount::mb(*n)).collect::<Vec<_>>();
    assert_eq!(shared_out(ByteCount::mb(90), &mb(&[100, 10, 200])), mb(&[40, 10, 40]));
    assert_eq!(shared_out(ByteCount::mb(90), &mb(&[30, 10, 20])), mb(&[30, 10, 20]));
    assert_eq!(shared_out(ByteCount::ZERO, &mb(&[30, 0])), mb(&[0, 0]));
    assert_eq!(shared_out(ByteCount::mb(1), &[]), []);
}

// S4.6
#[test]
fn what_a_step_can_do_at_all_comes_before_what_makes_others_quicker() {
    let mb = ByteCount::mb;
    let steps =
        vec![MemoryNeed::between(mb(16), mb(1000)).at_first(mb(40)), MemoryNeed::between(mb(4), mb(100))];
    let needs = Needs { batch_bytes: mb(1), in_flight: mb(4), record_room: ByteCount::ZERO, steps };
    let divided = |memory| divide(memory, &needs, ByteCount::ZERO, &[None, None]);
    assert_eq!(divided(mb(64)), (mb(16), vec![mb(42), mb(6)]));
    assert_eq!(divided(mb(32)), (mb(8), vec![mb(20), mb(4)]));
}

// S0.4
#[test]
fn there_is_room_for_the_largest_record_and_the_memory_that_is_told_for_it_has_it() {
    let of = |memory: &str, http: &str| planned_with(memory, "limit: 1", http).unwrap();
    let large = "http: { max_record_bytes: 16MiB }\n";
    assert_eq!(of("64MB", "").flow_bytes.human(), "16.0 MB");
    let plan = of("64MB", large);
    let room = plan.record_room;
    assert_eq!(room.in_flight, ByteCount::mib(34), "text and rows of the record, and two batches");
    assert!(plan.flow_bytes >= room.in_flight, "{}", plan.flow_bytes);
    assert!(room.memory < ByteCount::mb(64), "{}", room.memory);
    let smallest = of(&room.memory.round_up_to_mb().to_string(), large);
    assert!(smallest.flow_bytes >= smallest.record_room.in_flight, "{}", smallest.flow_bytes);
    let less = of(&room.memory.percent(90).to_string(), large);
    assert!(less.flow_bytes < less.record_room.in_flight, "{}", less.flow_bytes);
    assert!(of("1GB", large).flow_bytes >= ByteCount::mb(250));
}

#[test]
fn what_a_source_says_itself_goes_before_what_stands_under_http() {
    let flow = |own: &str, http: &str| {
        let text = format!(
            "name: x\nmemory: 512MB\nsource: {{ files: {{ paths: [n]{own} }} }}\nsink: {{ discard: {{}} }}\n{http}"
        );
        plan(&load_yaml(&text).unwrap().remove(0)).unwrap().record_room.in_flight
    };
    let batches = ByteCount::kib(512);
    assert_eq!(flow("", ""), ByteCount::ZERO);
    assert_eq!(flow("", "http: { max_record_bytes: 5000000 }"), ByteCount::mb(10).saturating_add(batches));
    let both = flow(", max_record_bytes: 8MiB", "http: { max_record_bytes: 64MiB, retries: 2 }");
    assert_eq!(both, ByteCount::mib(16).saturating_add(batches));
}

/// One source of records of up to 16 MiB before four sinks, which need much with large batches.
fn planned_for_four_sinks(memory: ByteCount) -> Plan {
    let sinks: String =
        (0..4).map(|n| format!("  s{n}: {{ input: in, parquet: {{ path: o{n} }} }}\n")).collect();
    let text = format!(
        "name: x\nmemory: {memory}\nsources: {{ in: {{ files: {{ paths: [n], max_record_bytes: 16MiB }} }} }}\n\
         sinks:\n{sinks}"
    );
    plan(&load_yaml(&text).unwrap().remove(0)).unwrap_or_else(|errors| panic!("{errors}"))
}

// S0.4
#[test]
fn with_more_memory_there_never_is_less_room_for_records() {
    let mut had_room = false;
    for memory in (4..400).map(ByteCount::mb) {
        let plan = planned_for_four_sinks(memory);
        let has_room = plan.flow_bytes >= plan.record_room.in_flight;
        assert!(has_room || !had_room, "{memory}: {} in flight, {:?}", plan.flow_bytes, plan.record_room);
        assert!(has_room || memory < plan.record_room.memory, "{memory}: {:?}", plan.record_room);
        had_room = has_room;
    }
    assert!(had_room);
}

// S0.4
#[test]
fn the_memory_that_is_told_for_a_record_has_room_for_it() {
    for memory in [4, 9, 33, 64, 100].map(ByteCount::mb) {
        let plan = planned_for_four_sinks(memory);
        for needed in (1..300).map(ByteCount::mb).filter(|needed| *needed > plan.flow_bytes) {
            let told = plan.record_room.memory_for(needed);
            let then = planned_for_four_sinks(told).flow_bytes;
            assert!(told > memory && then >= needed, "{needed} at {memory}: told {told}, which has {then}");
        }
    }
}

fn leased(stages: &str, sinks: &str) -> Plan {
    let text = format!(
        "name: x\nmemory: 64MB\nsources: {{ incoming: {{ files: {{ paths: [n] }} }} }}\n\
         stages: {{ {stages} }}\nsinks: {{ {sinks} }}\n"
    );
    plan(&load_yaml(&text).unwrap().remove(0)).unwrap()
}

// MEM-5
#[test]
fn in_a_chain_of_global_stages_two_leases_are_enough() {
    let sort = |input: &str| format!("{{ input: {input}, sort: {{ by: [id] }} }}");
    let chain = format!("a: {}, b: {}, c: {}", sort("incoming"), sort("a"), sort("b"));
    let plan = leased(&chain, "out: { input: c, discard: {} }");
    assert_eq!(plan.leases, [None, Some(0), Some(1), Some(0), None]);
    assert_eq!(plan.shares[1], plan.shares[3]);
    let at_once = [0, 1, 2, 4].map(|place| plan.shares[place]).into_iter().sum::<ByteCount>();
    assert!(at_once.saturating_add(plan.flow_bytes) <= ByteCount::mb(64));
    // Two readers of one step fill while it gives: three at work.
    let fork = format!("a: {}, b: {}, c: {}", sort("incoming"), sort("a"), sort("a"));
    let plan = leased(&fork, "left: { input: b, discard: {} }, right: { input: c, discard: {} }");
    assert_eq!(plan.leases[1..4], [Some(0), Some(1), Some(2)]);
}

#[test]
fn global_stages_together_get_half_of_the_memory_or_what_the_flow_says() {
    let share = |memory, execution| planned_with(memory, "sort: { by: [id] }", execution).unwrap().shares[1];
    assert_eq!(share("200MB", ""), ByteCount::mb(100));
    assert_eq!(share("200MB", "execution: { spill_threshold_mb: 40 }"), ByteCount::mb(40));
    // A record as large as the source allows takes nothing of the lease.
    assert_eq!(share("150MB", "http: { max_record_bytes: 64MiB }"), ByteCount::mb(75));
}
