//! The hosts that a flow file names: addresses that come out of data may be on them, even when they are private.

use std::collections::BTreeSet;

use url::Url;

use crate::flow::load::NOT_FILLED;
use crate::flow::node::Node;

/// The hosts of all http(s) URLs that are the text of some key, each once.
pub(crate) fn named(file: &Node) -> Vec<String> {
    let mut hosts = BTreeSet::new();
    for entry in file.entries().iter().filter(|entry| !NOT_FILLED.contains(&entry.key.as_str())) {
        collect(&entry.value, &mut hosts);
    }
    hosts.into_iter().collect()
}

fn collect(node: &Node, hosts: &mut BTreeSet<String>) {
    let url = node.text().filter(|text| text.contains("://")).and_then(|text| Url::parse(text).ok());
    if let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https")) {
        hosts.extend(url.host_str().map(str::to_owned));
    }
    for below in node.items().iter().chain(node.entries().iter().map(|entry| &entry.value)) {
        collect(below, hosts);
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::fake::{load_as, settings};

    // A flow file is its operator's: what it names is trusted.
    #[test]
    fn every_host_that_the_file_names_is_trusted_wherever_it_stands() {
        let text = "name: x
vars: { base: 'http://in-vars.example/a', unused: 'http://unused.example' }
sources:
  a: { files: { paths: ['https://one.example:8443/a', 'HTTP://[::1]/b', data/c.csv, 's3://bucket/d'] } }
  b: { files: { paths: ['${base}/x', '${host}/y', 'say http://prose.example'] } }
sinks: { o: { input: [a, b], discard: {} } }
";
        let given = settings(&[("host", "http://10.0.0.7:9")], &[]);
        let flow = load_as("f.yaml", text, &given).unwrap().remove(0);
        assert_eq!(flow.hosts, ["10.0.0.7", "[::1]", "in-vars.example", "one.example"]);
    }
}
