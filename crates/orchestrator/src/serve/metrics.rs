//! What is counted, as Prometheus reads it.
//!
//! The names and labels are fixed, and their values are few: names of flows, at most [`MAX_FLOW_LABELS`] of them, of the steps
//! of the one flow that `run` runs, and words of ours. No URL, no path, no name of a run stands in a label (T13).

use std::collections::BTreeMap;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{Counts, Job, JobStatus, Runs};
use crate::process_memory;

/// Flows beyond this are counted together, as `other`. With more, every scrape and every dashboard would grow with the folder.
pub(super) const MAX_FLOW_LABELS: usize = 100;
const OTHER: &str = "other";

/// The kind of text that [`text`] gives.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// All samples of one metric.
#[derive(Debug)]
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Counter(Vec<(Labels, u64)>),
    Gauge(Vec<(Labels, u64)>),
}

/// The metrics of a server as text.
pub(super) fn text(runs: &Runs, more: impl IntoIterator<Item = Family>) -> String {
    let mut families = of_process(runs);
    families.extend(of_runs(runs));
    families.extend(more);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(families)));
    let mut text = String::new();
    // Writing to a text does not fail.
    let _ = text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Snapshot(Vec<Family>);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        for Family { name, help, values } in &self.0 {
            match values {
                Values::Counter(samples) => {
                    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                    for (labels, value) in samples {
                        if labels.is_empty() {
                            metric.encode_counter::<NoLabelSet, u64, u64>(value, None)?;
                        } else {
                            metric
                                .encode_family(labels)?
                                .encode_counter::<NoLabelSet, u64, u64>(value, None)?;
                        }
                    }
                }
                Values::Gauge(samples) => {
                    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                    for (labels, value) in samples {
                        let value = i64::try_from(*value).unwrap_or(i64::MAX);
                        if labels.is_empty() {
                            metric.encode_gauge(&value)?;
                        } else {
                            metric.encode_family(labels)?.encode_gauge(&value)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl Family {
    pub(super) fn counter(name: &'static str, help: &'static str, samples: Vec<(Labels, u64)>) -> Self {
        Self { name, help, values: Values::Counter(samples) }
    }

    pub(super) fn gauge(name: &'static str, help: &'static str, samples: Vec<(Labels, u64)>) -> Self {
        Self { name, help, values: Values::Gauge(samples) }
    }
}

fn of_process(runs: &Runs) -> Vec<Family> {
    let one = |name, help, value| Family::gauge(name, help, vec![(Vec::new(), value)]);
    let memory = runs.memory();
    vec![
        one("aqueduct_memory_limit_bytes", "What all runs together may reserve", memory.total().get()),
        one(
            "aqueduct_memory_admitted_bytes",
            "The memory of the runs that are admitted",
            memory.total().saturating_sub(memory.free()).get(),
        ),
        one("aqueduct_memory_reserved_bytes", "What is reserved now", runs.reserved().get()),
        one(
            "aqueduct_allocated_bytes",
            "What the allocator has given out",
            process_memory::allocated_bytes(),
        ),
        one("process_resident_memory_bytes", "What is resident", process_memory::rss_bytes()),
    ]
}

fn of_runs(runs: &Runs) -> Vec<Family> {
    let by_status = runs.n_by_status();
    let with_status = |has_ended| {
        let all = JobStatus::ALL.into_iter().filter(move |status| status.has_ended() == has_ended);
        let of = |status: JobStatus| {
            (vec![("status", status.word().to_owned())], by_status.get(&status).copied().unwrap_or_default())
        };
        all.map(of).collect()
    };
    let mut families = vec![
        Family::gauge("aqueduct_runs_active", "Runs that wait or run", with_status(false)),
        Family::counter("aqueduct_runs", "Runs that have ended", with_status(true)),
    ];
    families.extend(of_budgets(runs));
    families.extend(of_flows(runs));
    families
}

/// What each share of the budgets of running flows holds. Where several flows run, the shares of each are summed up.
fn of_budgets(runs: &Runs) -> Vec<Family> {
    let mut shares: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    let is_server = runs.starts_runs();
    for (flow, job) in runs.labelled() {
        let Some(live) = job.live() else { continue };
        let steps = live.steps.iter().filter(|step| !step.takes_turns);
        let budgets = steps.map(|step| (step.name.as_str(), &step.share)).chain([("in flight", &live.flow)]);
        for (share, budget) in budgets {
            let share = if is_server { "all" } else { share };
            let (free, reserved) = shares.entry((flow.clone(), share.to_owned())).or_default();
            *free += budget.free().get();
            *reserved += budget.total().saturating_sub(budget.free()).get();
        }
    }
    let samples = |of: fn(&(u64, u64)) -> u64| {
        let labels =
            |(flow, share): &(String, String)| vec![("flow", flow.clone()), ("share", share.clone())];
        shares.iter().map(|(key, bytes)| (labels(key), of(bytes))).collect()
    };
    vec![
        Family::gauge(
            "aqueduct_budget_free_bytes",
            "Of the memory of a flow that runs, what is free",
            samples(|b| b.0),
        ),
        Family::gauge(
            "aqueduct_budget_reserved_bytes",
            "Of the memory of a flow that runs, what is reserved",
            samples(|b| b.1),
        ),
    ]
}

fn of_flows(runs: &Runs) -> Vec<Family> {
    let counted = runs.counted();
    let labels = |flow: &String| vec![("flow", flow.clone())];
    let counter = |name, help, of: fn(&Counts) -> u64| {
        Family::counter(name, help, counted.iter().map(|(flow, counts)| (labels(flow), of(counts))).collect())
    };
    let mut now: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (flow, job) in runs.labelled() {
        let Some(live) = job.live() else { continue };
        let (waiting, open) = now.entry(flow).or_default();
        *waiting += live.steps.iter().map(|step| live.rows_waiting(step)).sum::<u64>();
        *open += live.total(|metrics| metrics.n_in_flight());
    }
    let gauge = |name, help, of: fn(&(u64, u64)) -> u64| {
        Family::gauge(name, help, now.iter().map(|(flow, values)| (labels(flow), of(values))).collect())
    };
    vec![
        counter("aqueduct_rows_read", "Rows read by sources, bad ones among them", |c| c.rows_in),
        counter("aqueduct_rows_written", "Rows written by sinks", |c| c.rows_out),
        counter("aqueduct_rows_rejected", "Bad rows that the policy took", |c| c.rows_rejected),
        counter("aqueduct_bytes_read", "Bytes read from outside", |c| c.bytes_in),
        counter("aqueduct_bytes_written", "Bytes written by sinks", |c| c.bytes_out),
        counter("aqueduct_retries", "Requests made again", |c| c.retries),
        counter("aqueduct_spilled_bytes", "Bytes written to spill files", |c| c.spilled_bytes),
        counter("aqueduct_turns_skipped", "Turns of a schedule that were left out", |c| c.turns_skipped),
        gauge("aqueduct_rows_waiting", "Rows that wait between steps", |n| n.0),
        gauge("aqueduct_files_in_flight", "Files of the sliding windows that are being read", |n| n.1),
    ]
}

/// The flows that have labels of their own, the first to come; the label of each.
#[derive(Debug, Default)]
pub(super) struct FlowLabels(BTreeMap<String, Counts>);

impl FlowLabels {
    /// The label of a flow; from now on it has one, if there are not too many.
    pub(super) fn label(&mut self, flow: &str) -> String {
        let flow = if self.0.contains_key(flow) || self.0.len() < MAX_FLOW_LABELS { flow } else { OTHER };
        self.0.entry(flow.to_owned()).or_default();
        flow.to_owned()
    }

    /// Adds what a run of a flow has counted.
    pub(super) fn add(&mut self, flow: &str, counts: Counts) {
        let label = self.label(flow);
        let sum = self.0.entry(label).or_default();
        *sum = sum.plus(counts);
    }

    /// What has been counted, with what these jobs have counted so far.
    pub(super) fn with(&self, jobs: &[(String, std::sync::Arc<Job>)]) -> BTreeMap<String, Counts> {
        let mut sums = self.0.clone();
        for (label, job) in jobs {
            let sum = sums.entry(label.clone()).or_default();
            *sum = sum.plus(job.metered());
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // T13: the number of flows does not make the number of series
    #[test]
    fn flows_beyond_the_limit_have_one_label_together() {
        let mut labels = FlowLabels::default();
        let one = Counts { rows_in: 1, ..Counts::default() };
        for n in 0..100_000 {
            labels.add(&format!("flow-{n}"), one);
        }
        let counted = labels.with(&[]);
        assert_eq!(counted.len(), MAX_FLOW_LABELS + 1);
        assert_eq!(counted[OTHER].rows_in, 100_000 - MAX_FLOW_LABELS as u64);
    }

    #[test]
    fn labels_cannot_leave_their_quotes() {
        let labels = vec![("flow", "a\"} 1\nx{b=\"\\".to_owned())];
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Snapshot(vec![Family::gauge("g", "help", vec![(labels, 7)])])));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 1, "{text}");
    }
}
