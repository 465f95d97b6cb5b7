//! Keys that flows will have and that are not built yet: refused in words of their own, so that nobody thinks they
//! are misspelt, and nobody that they work.

use crate::flow::error::Mistake;
use crate::flow::node::Node;

const LATER: [(&str, &str); 3] = [
    (
        "every",
        "a flow that runs for ever is not built yet; leave it out, and let a timer start `aqueduct run`",
    ),
    (
        "cron",
        "a flow that runs by the clock is not built yet; leave it out, and let a timer start `aqueduct run`",
    ),
    (
        "notify",
        "telling others how a run went is not built yet; leave it out, and read the exit code or `--report`",
    ),
];

/// Takes such keys off, and tells them.
pub(crate) fn take(file: &mut Node, mistakes: &mut Vec<Mistake>) {
    for (key, message) in LATER {
        if let Some(entry) = file.take(key) {
            mistakes.push(Mistake::new(entry.key_at, key, message));
        }
    }
    let zone = file.get("timezone").filter(|zone| zone.text().is_some_and(|text| text != "UTC"));
    let Some(at) = zone.map(|zone| zone.at) else { return };
    file.take("timezone");
    let message = "times without a zone are read as UTC, other zones are not built yet; leave it out, and give the zone \
                   in a column's type: timestamp('%Y-%m-%d %H:%M', 'Europe/Paris')";
    mistakes.push(Mistake::new(at, "timezone", message));
}

#[cfg(test)]
mod tests {
    use crate::flow::fake::load_yaml;

    const FLOW: &str = "name: x\nsource: { files: { paths: [a] } }\nsink: { discard: {} }\n";

    #[test]
    fn what_is_not_built_yet_is_told_as_such_and_never_taken() {
        for (line, told) in [
            ("every: 5m", "flow.yaml:4:1: every: a flow that runs for ever is not built yet"),
            ("cron: '0 1 * * *'", "flow.yaml:4:1: cron: a flow that runs by the clock is not built yet"),
            (
                "notify: { url: 'http://h/' }",
                "flow.yaml:4:1: notify: telling others how a run went is not built yet",
            ),
            ("timezone: Europe/Paris", "flow.yaml:4:11: timezone: times without a zone are read as UTC"),
            ("timezone: [UTC]", "flow.yaml:4:11: timezone: found a list"),
        ] {
            let errors = load_yaml(&format!("{FLOW}{line}\n")).err().unwrap();
            assert!(errors.starts_with(told), "{errors}");
            assert_eq!(errors.lines().count(), 1, "{errors}");
        }
        assert!(load_yaml(&format!("{FLOW}timezone: UTC\n")).is_ok());
    }
}
