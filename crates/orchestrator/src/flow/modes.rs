//! How the rows of each sink relate to those that are there, and why.

use aqueduct_core::{Mode, Output};

use crate::flow::error::Mistake;
use crate::flow::{Flow, Step, StepKind};

/// Why rows are added where a flow says otherwise.
const REPLAY: &str = "what was rejected is replayed";

/// How a sink's rows relate to those that earlier runs wrote to the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutputMode {
    pub(crate) mode: Mode,
    /// What decided about it, if that was not the sink.
    pub(crate) because: Option<String>,
}

impl OutputMode {
    /// Why rows of earlier runs would be lost, if they were replaced: this run gives what is new alone.
    pub(crate) fn loses_earlier_rows(&self) -> Option<&str> {
        self.because.as_deref().filter(|_| self.mode == Mode::Replace)
    }

    /// For people: what becomes of what is there, and why.
    pub(crate) fn sentence(&self) -> String {
        let because = self.because.as_ref().map(|because| format!(", because {because}")).unwrap_or_default();
        match self.mode {
            Mode::Replace => format!(
                "mode replace: a finished run replaces what earlier runs of the flow wrote there{because}"
            ),
            Mode::Append => format!("mode append: rows are added to those of earlier runs{because}"),
            Mode::ReplacePartitions => format!(
                "mode replace_partitions: a finished run replaces the partitions that it writes; the others stay{because}"
            ),
            Mode::Merge => format!(
                "mode merge: a finished run leaves one row of each key, the newest; partitions without a key of its \
                 rows stay{because}"
            ),
        }
    }
}

impl Flow {
    /// Where a step writes and how; nothing, if it leaves no files.
    pub(crate) fn output_of(&self, at: usize) -> Option<(Output, OutputMode)> {
        let step = self.steps.get(at)?;
        let StepKind::Sink(sink) = &step.kind else { return None };
        let output = sink.output(&self.planning(step))?;
        // Rows that are merged find their place by their keys, whenever they come.
        if self.adds_only && output.mode != Some(Mode::Merge) {
            return Some((output, OutputMode { mode: Mode::Append, because: Some(REPLAY.to_owned()) }));
        }
        // One file is written anew: Parquet is refused, as for all that adds.
        let is_written_anew =
            output.is_file && output.path.extension().is_some_and(|suffix| suffix != "parquet");
        let anew = |because| format!("one file cannot be added to ({because})");
        let mode = match (output.mode, self.what_remembers(at), self.what_never_ends(at)) {
            (Some(mode), _, _) => OutputMode { mode, because: None },
            (None, Some(because), _) if is_written_anew => {
                OutputMode { mode: Mode::Replace, because: Some(anew(because)) }
            }
            (None, Some(because), _) => OutputMode { mode: Mode::Append, because: Some(because) },
            (None, None, Some(because)) if !is_written_anew => {
                OutputMode { mode: Mode::Append, because: Some(because) }
            }
            (None, None, _) => OutputMode { mode: Mode::Replace, because: None },
        };
        Some((output, mode))
    }

    /// The first step before this one whose rows depend on earlier runs.
    fn what_remembers(&self, at: usize) -> Option<String> {
        self.first_before(at, |step| {
            let does = match &step.kind {
                StepKind::Source(source) => source.is_incremental().then_some("reads"),
                StepKind::Stage(stage) => stage.remembers().then_some("lets pass"),
                StepKind::Sink(_) => None,
            };
            does.map(|does| format!("`{}` {does} only what no earlier run has committed", step.name))
        })
    }

    /// The first source before this one that goes on for ever.
    fn what_never_ends(&self, at: usize) -> Option<String> {
        self.first_before(at, |step| {
            let does = matches!(&step.kind, StepKind::Source(source) if source.is_endless());
            does.then(|| format!("`{}` never ends by itself", step.name))
        })
    }

    /// Whether a stage before this step gives no row before it has taken in all.
    pub(crate) fn is_behind_global(&self, at: usize) -> bool {
        let is_global = |step: &Step| matches!(&step.kind, StepKind::Stage(stage) if stage.spills());
        self.first_before(at, |step| is_global(step).then_some(())).is_some()
    }

    /// What is found first on the ways back from a step.
    fn first_before<T>(&self, at: usize, find: impl Fn(&Step) -> Option<T>) -> Option<T> {
        let mut open = self.steps.get(at)?.inputs.clone();
        let mut seen = std::collections::BTreeSet::new();
        while let Some(before) = open.pop() {
            let step = self.steps.get(before).filter(|_| seen.insert(before));
            let Some(step) = step else { continue };
            if let Some(found) = find(step) {
                return Some(found);
            }
            open.extend(&step.inputs);
        }
        None
    }
}

/// Outputs of one file that would be added to.
pub(crate) fn unfit(flow: &Flow) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (at, step) in flow.steps.iter().enumerate() {
        let Some((output, OutputMode { mode: Mode::Append, because: Some(because) })) = flow.output_of(at)
        else {
            continue;
        };
        if output.is_file {
            let (at, key) = step.at.places.find("/path");
            let message = format!(
                "one file cannot be added to, and {because}; expected a folder, or `mode: replace` for what is new alone"
            );
            mistakes.push(Mistake::new(at, key, flow.masks.mask(&message)));
        }
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use crate::flow::fake::load_yaml;
    use aqueduct_core::Mode;

    fn mode(stages: &str, path: &str) -> Result<(Mode, Option<String>), String> {
        let text = format!(
            "name: x\nsource: {{ files: {{ paths: [a] }} }}\nstages: [{stages}]\nsink: {{ parquet: {{ path: {path} }} }}\n"
        );
        let flow = load_yaml(&text).map_err(|errors| errors.to_string())?.remove(0);
        let (_, mode) = flow.output_of(flow.steps.len() - 1).ok_or("no output")?;
        Ok((mode.mode, mode.because))
    }

    // contract, `mode`: append if a source is endless, into one *.parquet file exit 2
    #[test]
    fn an_output_behind_what_never_ends_is_added_to_but_one_file_of_lines_is_written_anew() {
        let of = |path: &str| {
            let source = "source: { files: { paths: [a], endless: true } }";
            let text = format!("name: x\n{source}\nsink: {{ parquet: {{ path: {path} }} }}\n");
            let flow = load_yaml(&text).map_err(|errors| errors.to_string())?.remove(0);
            let (_, mode) = flow.output_of(flow.steps.len() - 1).ok_or("no output")?;
            Ok::<_, String>((mode.mode, mode.because.is_some()))
        };
        assert_eq!(of("out"), Ok((Mode::Append, true)));
        assert_eq!(of("out.ndjson"), Ok((Mode::Replace, false)));
        assert!(of("out.parquet").unwrap_err().contains("`source` never ends by itself"));
    }

    // one file of lines is written by the first run; the next refuses to replace it
    #[test]
    fn one_file_of_lines_behind_what_remembers_is_not_added_to_and_says_why() {
        let text = "name: x\nsource: { files: { paths: [a] } }\nstages: [{ once: {} }]\nsink: { parquet: { path: out.ndjson } }\n";
        let flow = load_yaml(text).unwrap().remove(0);
        let (_, mode) = flow.output_of(flow.steps.len() - 1).unwrap();
        assert_eq!(mode.mode, Mode::Replace);
        assert!(mode.loses_earlier_rows().unwrap().contains("`once` lets pass only"));
    }

    #[test]
    fn an_output_behind_what_remembers_is_added_to_and_says_why() {
        assert_eq!(mode("", "out"), Ok((Mode::Replace, None)));
        let (appended, because) = mode("{ once: {} }", "out").unwrap();
        assert_eq!(appended, Mode::Append);
        assert!(because.unwrap().contains("`once`"));
        let told = mode("{ once: {} }", "out.parquet").unwrap_err();
        assert!(told.starts_with("flow.yaml:4:") && told.contains("expected a folder"), "{told}");
    }
}
