//! Keys that flows will have and that are not built yet: refused in words of their own, so that nobody thinks they
//! are misspelt, and nobody that they work.

use crate::flow::error::Mistake;
use crate::flow::node::Node;

const LATER: [(&str, &str); 1] = [(
    "notify",
    "telling others how a run went is not built yet; leave it out, and read the exit code or `--report`",
)];

/// Takes such keys off, and tells them.
pub(crate) fn take(file: &mut Node, mistakes: &mut Vec<Mistake>) {
    for (key, message) in LATER {
        if let Some(entry) = file.take(key) {
            mistakes.push(Mistake::new(entry.key_at, key, message));
        }
    }
    // With `cron` it is the zone whose clock says when.
    let is_by_clock = file.get("cron").is_some();
    let zone = file.get("timezone").filter(|zone| zone.text().is_some_and(|text| text != "UTC"));
    let Some(at) = zone.filter(|_| !is_by_clock).map(|zone| zone.at) else { return };
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

    #[test]
    fn a_flow_has_at_most_one_schedule() {
        let schedule =
            |lines: &str| load_yaml(&format!("{FLOW}{lines}\n")).map(|mut flows| flows.remove(0).schedule);
        assert_eq!(schedule("every: 5m").unwrap().unwrap().text(), "every 5m");
        let cron = schedule("cron: '30 6 * * *'\ntimezone: Europe/Paris").unwrap().unwrap();
        assert_eq!(cron.text(), "cron 30 6 * * * (Europe/Paris)");
        for (lines, told) in [
            ("every: 0s", "flow.yaml:4:8: every: expected a second or more"),
            ("cron: often", "flow.yaml:4:7: cron: `often`: "),
            ("every: 5m\ncron: '0 1 * * *'", "flow.yaml:5:7: cron: `every` stands here, too"),
            ("cron: '0 1 * * *'\ntimezone: Mars/Base", "flow.yaml:5:11: timezone: "),
        ] {
            let errors = schedule(lines).unwrap_err();
            assert!(errors.starts_with(told), "{errors}");
        }
    }
}
