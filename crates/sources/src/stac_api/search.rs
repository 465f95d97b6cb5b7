//! The question that a search is asked, by GET or by POST, and where its next page is.

use std::path::Path;

use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_net::Location;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Config;
use crate::paged::{Ask, Envelope};

/// Longer URLs are refused by servers and proxies.
const MAX_URL_BYTES: usize = 2000;

/// A search, and all that it is asked but the time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Search {
    url: String,
    is_posted: bool,
    question: Map<String, Value>,
    /// The parameter of URLs that holds a secret: servers repeat it in links, and it is added to each request anyway.
    #[serde(default)]
    hidden: Option<String>,
}

impl Search {
    /// The search of an API: what its root links to, else what stands below it by the standard.
    pub(super) fn of(
        root: &str,
        landing: Option<&Envelope>,
        question: Map<String, Value>,
        hidden: Option<String>,
    ) -> Result<Self> {
        let root = joined(root, "", hidden.as_deref())?;
        let Some(landing) = landing else {
            return Ok(Self { url: root, is_posted: needs_post(&question), question, hidden });
        };
        let links = links(landing).filter(|link| link.get("rel").and_then(Value::as_str) == Some("search"));
        let (mut by_get, mut by_post) = (None, None);
        for link in links {
            let place = if is_post(link) { &mut by_post } else { &mut by_get };
            *place = place.take().or(link.get("href").and_then(Value::as_str));
        }
        let is_posted = by_post.is_some() && (by_get.is_none() || needs_post(&question));
        let href = if is_posted { by_post } else { by_get };
        let url = match href {
            Some(href) => joined(&root, href, hidden.as_deref())?,
            None => format!("{}/search", root.trim_end_matches('/')),
        };
        Ok(Self { url, is_posted: is_posted || needs_post(&question), question, hidden })
    }

    /// The request of the first page of a time.
    pub(super) fn first(&self, datetime: Option<String>) -> Ask {
        let question = self.question(datetime);
        if !self.is_posted
            && let Some(url) = with_query(&self.url, &question)
        {
            return Ask { url, body: None };
        }
        Ask { url: self.url.clone(), body: Some(Value::Object(question)) }
    }

    fn question(&self, datetime: Option<String>) -> Map<String, Value> {
        let mut question = self.question.clone();
        question.extend(datetime.map(|text| ("datetime".to_owned(), Value::String(text))));
        question
    }

    /// The request of the page after one.
    ///
    /// # Errors
    /// The link to it has no `href`, or one that is no URL.
    pub(super) fn next(&self, datetime: Option<String>, asked: &Ask, page: &Envelope) -> Result<Option<Ask>> {
        let is_next = |link: &&Envelope| link.get("rel").and_then(Value::as_str) == Some("next");
        let Some(link) = links(page).find(is_next) else { return Ok(None) };
        let Some(href) = link.get("href").and_then(Value::as_str) else {
            let message = "the link to the next page has no `href`; expected a URL";
            return Err(Error::new(ErrorKind::Data, "follow pages", message).with("url", &asked.url));
        };
        let url = joined(&asked.url, href, self.hidden.as_deref())?;
        if !is_post(link) {
            return Ok(Some(Ask { url, body: None }));
        }
        let before = || match &asked.body {
            Some(body) => body.clone(),
            None => Value::Object(self.question(datetime)),
        };
        let body = match (link.get("body"), link.get("merge").and_then(Value::as_bool)) {
            (Some(Value::Object(body)), Some(true)) => merged(before(), body),
            (Some(body), _) => body.clone(),
            (None, _) => before(),
        };
        Ok(Some(Ask { url, body: Some(body) }))
    }
}

fn merged(mut before: Value, body: &Map<String, Value>) -> Value {
    if let Value::Object(fields) = &mut before {
        fields.extend(body.clone());
    }
    before
}

/// The links of a page, or of the root.
fn links(page: &Envelope) -> impl Iterator<Item = &Envelope> {
    page.get("links").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

fn is_post(link: &Envelope) -> bool {
    link.get("method").and_then(Value::as_str).is_some_and(|method| method.eq_ignore_ascii_case("post"))
}

/// What no query of a URL can say, or not in a way that servers agree on.
fn needs_post(question: &Map<String, Value>) -> bool {
    question.get("intersects").is_some() || question.get("filter").is_some_and(Value::is_object)
}

/// A link as it stands on a page, without a user and a password, and without a parameter that is hidden.
fn joined(base: &str, href: &str, hidden: Option<&str>) -> Result<String> {
    let wrong = |error: Option<Error>| {
        let message = "the link leads to no http or https URL";
        let wrong = Error::new(ErrorKind::Data, "follow pages", message).with("href", href);
        match error {
            Some(error) => wrong.with_source(error),
            None => wrong,
        }
    };
    let Location::Http(base) = Location::parse(base, Path::new("")).map_err(|error| wrong(Some(error)))?
    else {
        return Err(wrong(None));
    };
    let Ok(mut url) = base.join(href) else { return Err(wrong(None)) };
    let is_bare = url.set_username("").and_then(|()| url.set_password(None)).is_ok();
    if !is_bare || !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(None));
    }
    if let Some(hidden) = hidden {
        let pairs: Vec<_> = url
            .query_pairs()
            .filter(|(name, _)| name != hidden)
            .map(|(a, b)| (a.into_owned(), b.into_owned()))
            .collect();
        url.query_pairs_mut().clear().extend_pairs(pairs);
        if url.query() == Some("") {
            url.set_query(None);
        }
    }
    Ok(url.to_string())
}

/// The question as a query, if it is short enough.
fn with_query(url: &str, question: &Map<String, Value>) -> Option<String> {
    let Ok(Location::Http(mut url)) = Location::parse(url, Path::new("")) else { return None };
    for (name, value) in question {
        url.query_pairs_mut().append_pair(name, &plain(value));
    }
    if url.query() == Some("") {
        url.set_query(None);
    }
    Some(url.to_string()).filter(|url| url.len() <= MAX_URL_BYTES)
}

/// Lists are written with commas.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

impl Config {
    /// What is asked for, but the time. `since` is what incremental runs ask for beside.
    pub(super) fn question(&self, since: Option<(&str, &str)>) -> Map<String, Value> {
        let mut question = Map::new();
        let mut add = |name: &str, value: Value| drop(question.insert(name.to_owned(), value));
        if !self.collections.is_empty() {
            add("collections", json!(self.collections));
        }
        if !self.ids.is_empty() {
            add("ids", json!(self.ids));
        }
        if let Some(bbox) = &self.bbox {
            add("bbox", json!(bbox));
        }
        if let Some(place) = &self.intersects {
            add("intersects", place.clone());
        }
        if let Some(filter) = filter(self.filter.as_ref(), since) {
            let language = if filter.is_string() { "cql2-text" } else { "cql2-json" };
            add("filter", filter);
            add("filter-lang", json!(language));
        }
        if let Some(size) = self.page_size.or(self.limit) {
            add("limit", json!(size));
        }
        question
    }
}

/// The user's condition, and that an item is no older than so.
fn filter(asked: Option<&Value>, since: Option<(&str, &str)>) -> Option<Value> {
    let Some((column, instant)) = since else { return asked.cloned() };
    match asked {
        Some(Value::Object(asked)) => Some(json!({
            "op": "and",
            "args": [asked, {"op": ">=", "args": [{"property": column}, {"timestamp": instant}]}],
        })),
        Some(asked) => Some(json!(format!("({}) AND {column} >= TIMESTAMP('{instant}')", plain(asked)))),
        None => Some(json!(format!("{column} >= TIMESTAMP('{instant}')"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Envelope {
        value.as_object().unwrap().clone()
    }

    fn search(question: Value) -> Search {
        let landing = object(json!({"links": [
            {"rel": "search", "href": "./search", "method": "GET"},
            {"rel": "search", "href": "./search", "method": "POST"},
        ]}));
        Search::of("http://me:secret@host/v1/", Some(&landing), object(question), Some("key".into())).unwrap()
    }

    #[test]
    fn what_is_kept_of_links_has_no_secrets() {
        let search = search(json!({}));
        let first = search.first(None);
        assert_eq!(first.url, "http://host/v1/search");
        let page =
            object(json!({"links": [{"rel": "next", "href": "http://me:secret@host/s?token=2&key=canary"}]}));
        assert_eq!(search.next(None, &first, &page).unwrap().unwrap().url, "http://host/s?token=2");
    }

    #[test]
    fn short_questions_are_urls_and_others_bodies() {
        let get = search(json!({"collections": ["a", "b"], "bbox": [1.5, 2, 3, 4], "limit": 10}));
        let ask = get.first(Some("2026-01-01T00:00:00Z/..".into()));
        assert_eq!(
            ask.url,
            "http://host/v1/search?collections=a%2Cb&bbox=1.5%2C2%2C3%2C4&limit=10&datetime=2026-01-01T00%3A00%3A00Z%2F.."
        );
        assert_eq!(ask.body, None);
        let post = search(json!({"intersects": {"type": "Point", "coordinates": [1, 2]}}));
        assert_eq!(
            post.first(None).body,
            Some(json!({"intersects": {"type": "Point", "coordinates": [1, 2]}}))
        );
        let ids: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
        assert_eq!(search(json!({"ids": ids})).first(None).body, Some(json!({"ids": ids})));
    }

    #[test]
    fn the_next_page_is_a_link_or_a_body() {
        let search = search(json!({"collections": ["a"], "limit": 2}));
        let next = |asked: &Ask, link: Value| {
            let page = object(json!({"links": [{"rel": "root", "href": "/"}, link]}));
            search.next(Some("d".into()), asked, &page).unwrap().unwrap()
        };
        let first = search.first(Some("d".into()));
        let link = next(&first, json!({"rel": "next", "href": "?token=2"}));
        assert_eq!((link.url.as_str(), link.body), ("http://host/v1/search?token=2", None));
        let merge =
            json!({"rel": "next", "href": "/s", "method": "POST", "merge": true, "body": {"token": "2"}});
        let second = next(&first, merge.clone());
        assert_eq!(second.url, "http://host/s");
        assert_eq!(
            second.body,
            Some(json!({"collections": ["a"], "limit": 2, "datetime": "d", "token": "2"}))
        );
        let mut again = merge;
        again["body"]["token"] = json!("3");
        assert_eq!(next(&second, again).body.unwrap()["token"], "3");
        let whole =
            next(&first, json!({"rel": "next", "href": "/s", "method": "post", "body": {"token": "2"}}));
        assert_eq!(whole.body, Some(json!({"token": "2"})));
        assert_eq!(search.next(None, &first, &object(json!({"links": []}))).unwrap(), None);
        for wrong in [json!({"rel": "next"}), json!({"rel": "next", "href": "file:///etc/passwd"})] {
            let page = object(json!({"links": [wrong]}));
            assert!(search.next(None, &first, &page).is_err());
        }
    }

    #[test]
    fn what_is_new_is_asked_for_beside_the_users_condition() {
        let since = Some(("updated", "2026-01-01T00:00:00Z"));
        assert_eq!(filter(None, since), Some(json!("updated >= TIMESTAMP('2026-01-01T00:00:00Z')")));
        let text = filter(Some(&json!("a = 1 OR b = 2")), since);
        assert_eq!(text, Some(json!("(a = 1 OR b = 2) AND updated >= TIMESTAMP('2026-01-01T00:00:00Z')")));
        let asked = json!({"op": "=", "args": [{"property": "a"}, 1]});
        assert_eq!(filter(Some(&asked), since).unwrap()["args"][0], asked);
    }
}
