//! Sources that have the run take back what is not committed: all other sources must be able to give their rows again then, and
//! no sink may have given any away.

use aqueduct_core::Guarantee;

use crate::flow::error::Mistake;
use crate::flow::{Flow, Step, StepKind};

/// Such sources in flows that cannot do that.
pub(crate) fn unfit(flow: &Flow) -> Vec<Mistake> {
    let Some(because) = flow.steps.iter().find_map(why_not) else { return Vec::new() };
    let asks = |step: &Step| match &step.kind {
        StepKind::Source(source) => source.takes_back().map(|pointer| step.at.places.find(pointer)),
        StepKind::Stage(_) | StepKind::Sink(_) => None,
    };
    let mistake = |(at, key)| {
        let message = format!("rows cannot be taken back, because {because}; expected `fail`");
        Mistake::new(at, key, flow.masks.mask(&message))
    };
    flow.steps.iter().filter_map(asks).map(mistake).collect()
}

fn why_not(step: &Step) -> Option<String> {
    match &step.kind {
        StepKind::Source(source) if !source.is_replayable() => {
            Some(format!("what `{}` has read cannot be read again", step.name))
        }
        StepKind::Sink(sink) if sink.guarantee() != Guarantee::ExactlyOnce => {
            Some(format!("`{}` gives them away before they are committed", step.name))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::fake::load_yaml;

    fn told(option: &str, sink: &str) -> Option<String> {
        let source = format!("source: {{ files: {{ paths: [a]{option} }} }}");
        load_yaml(&format!("name: x\n{source}\nsink: {{ {sink} }}\n")).err()
    }

    #[test]
    fn rows_are_taken_back_from_files_alone_and_the_place_is_told() {
        let (reread, files) = (", on_change: reread", "parquet: { path: o }");
        assert_eq!(told(reread, files), None);
        assert_eq!(told("", "discard: {}"), None);
        let told = told(reread, "discard: {}").unwrap();
        let expected = "flow.yaml:2:43: source.files.on_change: rows cannot be taken back, because `sink` gives them away";
        assert!(told.starts_with(expected), "{told}");
    }

    #[test]
    fn a_source_beside_it_must_give_its_rows_again() {
        let flow = "name: x\nsources:\n  a: { files: { paths: [a], on_change: reread } }\n  b: { gdelt: { paths: [b], once: true } }\n\
                    sinks: { o: { input: [a, b], parquet: { path: o } } }\n";
        let told = load_yaml(flow).err().unwrap();
        let expected =
            "flow.yaml:3:40: sources.a.files.on_change: rows cannot be taken back, because what `b` has read";
        assert!(told.starts_with(expected), "{told}");
        assert!(load_yaml(&flow.replace(", once: true", "")).is_ok());
    }
}
