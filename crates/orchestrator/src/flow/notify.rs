//! `notify`: whom to tell how runs end, and of which ends.

use std::fmt;

use aqueduct_core::Problem;
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::flow::masks::HIDDEN;

/// Where the report of a run is posted, and when.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Notify {
    /// The report is posted there as JSON, without secrets: http:// or https://. The kind of end is in the header
    /// `Aqueduct-Event`. Tried four times; whether somebody took it changes nothing of the run.
    pub(crate) url: String,
    /// Of which ends is told. Default: of each of these.
    #[serde(default = "all")]
    #[schemars(length(min = 1))]
    pub(crate) on: Vec<Event>,
}

/// A kind of end that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Event {
    /// The run failed.
    Failed,
    /// The run is done, but rows or files were rejected, or something was missing.
    Partial,
    /// The run is done, and the one before it had failed.
    Recovered,
}

fn all() -> Vec<Event> {
    vec![Event::Failed, Event::Partial, Event::Recovered]
}

impl Event {
    /// The word in the flow and in the header.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::Recovered => "recovered",
        }
    }
}

impl Notify {
    /// What is wrong with it.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let problem = |is_wrong: bool, pointer: &str, message: &str| {
            is_wrong.then(|| Problem::at(pointer, message.to_owned()))
        };
        // While secrets are not read, nothing is known of a URL that holds one.
        let is_known = !self.url.contains(HIDDEN);
        let is_http = |url: Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        let is_wrong = is_known && !Url::parse(&self.url).is_ok_and(is_http);
        let url = problem(is_wrong, "/url", "expected an http:// or https:// URL");
        let on = problem(self.on.is_empty(), "/on", "expected one at least of failed, partial and recovered");
        url.into_iter().chain(on).collect()
    }
}

/// The path of such a URL is often its only secret.
impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notify").field("on", &self.on).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::fake::load_yaml;

    const FLOW: &str = "name: x\nsource: { files: { paths: [a] } }\nsink: { discard: {} }\n";

    // contract "Steps": `notify`
    #[test]
    fn where_and_when_are_checked_with_the_flow() {
        let notify =
            |line: &str| load_yaml(&format!("{FLOW}{line}\n")).map(|mut flows| flows.remove(0).notify);
        let told = notify("notify: { url: 'https://h/x', on: [failed, recovered] }").unwrap().unwrap();
        assert_eq!(told.on, [Event::Failed, Event::Recovered]);
        assert_eq!(notify("notify: { url: 'http://h' }").unwrap().unwrap().on, all());
        assert_eq!(notify("").unwrap(), None);
        for (line, told) in [
            (
                "notify: { url: 'ftp://h/x' }",
                "flow.yaml:4:16: notify.url: expected an http:// or https:// URL",
            ),
            ("notify: { url: somewhere }", "flow.yaml:4:16: notify.url: expected an http"),
            ("notify: { on: [failed] }", "flow.yaml:4:1"),
            ("notify: { url: 'http://h', on: [broken] }", "flow.yaml:4:33: notify.on"),
            ("notify: { url: 'http://h', on: [] }", "flow.yaml:4:"),
        ] {
            let errors = notify(line).unwrap_err();
            assert!(errors.starts_with(told) && errors.lines().count() == 1, "{errors}");
        }
    }

    #[test]
    fn a_url_that_is_a_secret_is_not_judged_while_secrets_are_not_read() {
        let hidden = Notify { url: HIDDEN.to_owned(), on: all() };
        assert!(hidden.problems().is_empty());
    }
}
