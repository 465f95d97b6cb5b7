use super::*;

fn open(text: &str) -> Result<FeedReader> {
    let base = Url::parse("https://host.example/feeds/all.xml").unwrap();
    FeedReader::open(text, Some(&base))
}

fn read(text: &str) -> (Option<String>, Vec<Entry>) {
    let mut feed = open(text).unwrap();
    let title = feed.title().map(str::to_owned);
    let entries = std::iter::from_fn(|| feed.next_entry().unwrap()).collect();
    (title, entries)
}

/// The entries before the first error, and that.
fn read_to_error(text: &str) -> (usize, Error) {
    let mut feed = match open(text) {
        Ok(feed) => feed,
        Err(error) => return (0, error),
    };
    let mut n_entries = 0;
    loop {
        match feed.next_entry() {
            Ok(Some(_)) => n_entries += 1,
            Ok(None) => panic!("{n_entries} entries and no error"),
            Err(error) => return (n_entries, error),
        }
    }
}

fn rss(items: &str) -> String {
    format!("<rss version=\"2.0\"><channel><title>t</title>{items}</channel></rss>")
}

fn at(time: &str) -> Option<chrono::DateTime<chrono::Utc>> {
    Some(time.parse().unwrap())
}

fn texts(of: &[&str]) -> Vec<String> {
    of.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn rss_2_with_its_modules_is_read() {
    let (title, entries) = read(
        "<?xml version='1.0'?><!-- a comment --><rss version='2.0' xmlns:dc='http://purl.org/dc/elements/1.1/'
           xmlns:content='http://purl.org/rss/1.0/modules/content/' xmlns:atom='http://www.w3.org/2005/Atom'>
         <channel><image><title>not this</title></image><atom:link href='x'/><title>News &amp; more</title>
         <item><title><![CDATA[One <b>bold</b>]]></title><link> /one </link><guid isPermaLink='false'>urn:1</guid>
           <description>&lt;p&gt;caf&eacute;&nbsp;AT&T&lt;/p&gt;</description><content:encoded><![CDATA[<p>all</p>]]></content:encoded>
           <author>a@host (A)</author><dc:creator>B</dc:creator><dc:creator>B</dc:creator>
           <category>x</category><category domain='d'>y</category><pubDate>Thu, 01 Jan 2026 10:00:00 +0100</pubDate></item>
         <item><guid>https://host.example/two</guid><pubDate>some day</pubDate></item>
         </channel></rss>",
    );
    assert_eq!(title.as_deref(), Some("News & more"));
    let [one, two] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(one.title.as_deref(), Some("One <b>bold</b>"));
    assert_eq!(one.link.as_deref(), Some("https://host.example/one"));
    assert_eq!(one.natural_key(), "urn:1");
    assert_eq!(one.summary.as_deref(), Some("<p>caf\u{e9}\u{a0}AT&T</p>"));
    assert_eq!(one.content.as_deref(), Some("<p>all</p>"));
    assert_eq!(one.authors, texts(&["a@host (A)", "B"]));
    assert_eq!(one.categories, texts(&["x", "y"]));
    assert_eq!((one.published, one.updated), (at("2026-01-01T09:00:00Z"), None));
    assert_eq!(two.link.as_deref(), Some("https://host.example/two"));
    assert_eq!((two.published, two.bad_date.as_deref()), (None, Some("some day")));
}

#[test]
fn atom_is_read_with_its_kinds_of_text_and_bases_of_links() {
    let (title, entries) = read(
        "<a:feed xmlns:a='http://www.w3.org/2005/Atom' xml:base='http://base.example/x/'>
         <a:title type='html'>&lt;i&gt;T&lt;/i&gt;</a:title>
         <a:entry xml:base='y/'><a:id>tag:host,2026:A</a:id><a:title type='text'>a &lt; b</a:title>
           <a:link rel='self' href='self'/><a:link href='one?a=1&amp;b=2'/><a:link rel='alternate' href='two'/>
           <a:updated>2026-01-02T00:00:00Z</a:updated><a:published>2026-01-01T00:00:00.5Z</a:published>
           <a:author><a:name>N</a:name><a:email>n@host</a:email></a:author><a:author><a:uri>http://n</a:uri></a:author>
           <a:category term='c' label='C'/>
           <a:source><a:title>other</a:title><a:id>other</a:id></a:source>
           <a:content type='xhtml'><div xmlns='http://www.w3.org/1999/xhtml'><p>p &amp; q</p></div></a:content></a:entry>
         <a:entry><a:title type='application/octet-stream'>PGI+eDwvYj4=</a:title><a:id>http://host/2</a:id></a:entry>
         </a:feed>",
    );
    assert_eq!(title.as_deref(), Some("<i>T</i>"));
    let [one, two] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(one.natural_key(), "tag:host,2026:a");
    assert_eq!(one.title.as_deref(), Some("a < b"));
    assert_eq!(one.link.as_deref(), Some("http://base.example/x/y/one?a=1&b=2"));
    assert_eq!(one.content.as_deref(), Some("<p>p &amp; q</p>"));
    assert_eq!(one.authors, texts(&["N", "http://n"]));
    assert_eq!(one.categories, texts(&["c"]));
    assert_eq!((one.published, one.updated), (at("2026-01-01T00:00:00.5Z"), at("2026-01-02T00:00:00Z")));
    assert_eq!((two.title.as_deref(), two.link.as_deref()), (Some("<b>x</b>"), Some("http://host/2")));
}

#[test]
fn rss_1_and_old_rss_are_read() {
    let (title, entries) = read(
        "<!DOCTYPE rdf:RDF [<!ENTITY nbsp 'not this'>]>
         <rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#' xmlns='http://purl.org/rss/1.0/'
           xmlns:dc='http://purl.org/dc/elements/1.1/'><channel rdf:about='c'><title>C</title></channel>
         <item rdf:about='http://host/1'><title>1&nbsp;</title><dc:date>2026-01-01</dc:date><dc:identifier>DOI:1</dc:identifier></item>
         <item rdf:about='http://host/2'><title>2</title></item></rdf:RDF>",
    );
    assert_eq!(title.as_deref(), Some("C"));
    let keys: Vec<_> = entries.iter().map(Entry::natural_key).collect();
    assert_eq!(keys, ["doi:1", "http://host/2"]);
    assert_eq!(entries[0].published, at("2026-01-01T00:00:00Z"));
    let (title, entries) = read(
        "<!DOCTYPE rss PUBLIC '-//Netscape Communications//DTD RSS 0.91//EN' 'http://my.netscape.com/publish/formats/rss-0.91.dtd'>
         <RSS VERSION='0.91'><CHANNEL><ITEM><TITLE>1</TITLE></ITEM><item/><title>behind its items</title></CHANNEL></RSS>",
    );
    assert_eq!((title.as_deref(), entries.len()), (Some("behind its items"), 2));
}

#[test]
fn json_feeds_are_read() {
    let (title, entries) = read(
        r#"{"version": "https://jsonfeed.org/version/1.1", "title": "J", "items": [
           {"id": 7, "url": "/one", "title": "O", "content_html": "<p>", "content_text": "p", "tags": ["x", 1],
            "authors": [{"name": "N"}, {"url": "http://n"}], "date_published": "2026-01-01T00:00:00Z", "date_modified": "2026-01-02T00:00:00Z",
            "attachments": [{"url": "u"}]},
           {"id": null, "external_url": "http://x/2", "author": {"name": "M"}}]}"#,
    );
    assert_eq!(title.as_deref(), Some("J"));
    let [one, two] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((one.natural_key().as_str(), one.link.as_deref()), ("7", Some("https://host.example/one")));
    assert_eq!(one.content.as_deref(), Some("<p>"));
    assert_eq!((&one.categories, &one.authors), (&texts(&["x", "1"]), &texts(&["N", "http://n"])));
    assert_eq!((one.published, one.updated), (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z")));
    assert_eq!((two.link.as_deref(), &two.authors), (Some("http://x/2"), &texts(&["M"])));
}

// reliability 27: without guid
#[test]
fn entries_without_an_id_are_known_by_link_title_and_date() {
    let item = |link: &str, title: &str, date: &str| {
        format!("<item><link>http://h/{link}</link><title>{title}</title><pubDate>{date}</pubDate></item>")
    };
    let day = "Thu, 01 Jan 2026 10:00:00 GMT";
    let items = [
        item("a", "t", day),
        item("b", "t", day),
        item("a", "u", day),
        item("a", "t", "no date"),
        "<item><description>one</description></item><item><description>two</description></item>".into(),
    ];
    let keys = || read(&rss(&items.concat())).1.iter().map(Entry::natural_key).collect::<Vec<_>>();
    assert_eq!(keys(), keys());
    let distinct: std::collections::BTreeSet<_> = keys().into_iter().collect();
    assert_eq!(distinct.len(), 6, "{distinct:?}");
    let [same, again] = &read(&rss(&item(" a ", " t ", day).repeat(2))).1[..] else { panic!() };
    assert_eq!(same.natural_key(), again.natural_key());
}

// T6, reliability 28
#[test]
fn entities_of_a_document_are_not_expanded_and_none_is_fetched() {
    let nested: String =
        (1..10).map(|n| format!("<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10))).collect();
    let text = format!(
        "<!DOCTYPE l [<!ENTITY l0 \"ha\">{nested}<!ENTITY x SYSTEM \"file:///etc/passwd\">]>{}",
        rss("<item><title>&l9;</title><link>http://h/&x;</link></item>")
    );
    let (_, entries) = read(&text);
    assert_eq!(entries[0].title.as_deref(), Some("&l9;"));
    assert_eq!(entries[0].link.as_deref(), Some("http://h/&x;"));
}

// T6, reliability 29
#[test]
fn documents_are_read_within_bounds_that_are_named() {
    let with_attributes = |n: usize, name: &str| {
        let attributes: String = (0..n).map(|n| format!(" {name}{n}='x'")).collect();
        rss(&format!("<item><guid>1</guid></item><item{attributes}/>"))
    };
    let scopes: String =
        (0..MAX_DEPTH - 3).map(|n| format!("<a xmlns:a{n}='u' xmlns:b{n}='u' xmlns:c{n}='u'>")).collect();
    let cases = [
        (with_attributes(80_000, "a"), "attributes"),
        (with_attributes(200_000, "xmlns:a"), "attributes"),
        (rss(&format!("<item/>{scopes}")), "namespaces"),
        (format!("<rss><channel><item/><item>{}", "<a>".repeat(1_000_000)), "depth"),
    ];
    for (text, bound) in cases {
        let (n_entries, error) = read_to_error(&text);
        assert_eq!((n_entries, error.kind(), error.context("limit_of")), (1, ErrorKind::Limit, Some(bound)));
        assert!(!is_about_one_entry(&error));
    }
    read(&with_attributes(MAX_ATTRIBUTES - 1, "a"));
}

// reliability 26, 29
#[test]
fn an_entry_that_is_too_large_is_left_out_and_those_behind_it_are_read() {
    let wide = "x".repeat(MAX_ENTRY_BYTES + 1);
    let half = "x".repeat(MAX_ENTRY_BYTES / 2 + 1);
    let json = format!(
        r#"{{"version": "https://jsonfeed.org/version/1.1", "items": [{{"id": 1, "title": "{wide}"}}, {{"id": 2}}]}}"#
    );
    let documents = [
        rss(&format!("<item><title>{wide}</title></item><item><guid>2</guid></item>")),
        rss(&format!(
            "<item><title>{half}</title><description>{half}</description></item><item><guid>2</guid></item>"
        )),
        rss(&format!("<item><title><b>{wide}</b></title></item><item><guid>2</guid></item>")),
        json,
    ];
    for text in documents {
        let mut feed = open(&text).unwrap();
        let error = feed.next_entry().unwrap_err();
        assert!(is_about_one_entry(&error), "{error}");
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert_eq!(feed.next_entry().unwrap().unwrap().natural_key(), "2");
        assert!(feed.next_entry().unwrap().is_none());
    }
    // What an entry does not keep may be as long as it likes.
    assert_eq!(read(&rss(&format!("<item><guid>1</guid><other>{wide}</other></item>"))).1.len(), 1);
}

#[test]
fn what_is_cut_off_is_an_error_behind_the_entries_before() {
    let whole = rss("<item><guid>1</guid></item><item><guid>2</guid></item>");
    for end in 0..whole.len() {
        let (n_entries, error) = read_to_error(&whole[..end]);
        assert_eq!(error.kind(), ErrorKind::Data, "{end}: {error}");
        let n_whole = whole[..end].matches("</item>").count();
        assert_eq!(n_entries, n_whole, "{end}: {error}");
    }
}

// reliability 11
#[test]
fn what_is_no_feed_says_what_it_is() {
    for (text, part) in [
        ("", "empty"),
        ("  \n", "empty"),
        ("plain words", "no element"),
        ("<!doctype html><html><body>Log in</body></html>", "<html>"),
        ("<opml><body/></opml>", "<opml>"),
        ("{\"a\": 1}", "items"),
        ("[1]", "JSON"),
        ("{\"items\": [", "cut off"),
    ] {
        let error = open(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.message().contains(part), "{text}: {error}");
    }
}

#[test]
fn sloppy_markup_is_read_as_it_was_meant() {
    let (_, entries) = read(&rss(
        "<item><title>a & b &amp c</title><description>one<br>two</description><guid isPermaLink=false>1</guid></item>
         </stray><item><title>c<title></item><item><media:title>m</media:title><media:group><media:description>d</media:description></media:group></item>",
    ));
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0].title.as_deref(), Some("a & b &amp c"));
    assert_eq!(entries[0].summary.as_deref(), Some("one<br>two"));
    assert_eq!(entries[0].id.as_deref(), Some("1"));
    assert_eq!((entries[2].title.as_deref(), entries[2].summary.as_deref()), (Some("m"), Some("d")));
}

#[test]
fn lists_of_feeds_are_read_at_whatever_depth() {
    let text = "<?xml version='1.0'?><opml xml:base='http://host/x/'><head><title>t</title></head><body>
        <outline text='a'><outline xmlUrl='a.xml?b=1&amp;c=2'/><outline><outline xmlurl='http://b'/></outline></outline>
        <outline htmlUrl='http://no'/></body></opml>";
    let of = |text| outlines(text, None, OutlineLimits { urls: 2, bytes: 100 });
    assert_eq!(of(text).unwrap(), ["http://host/x/a.xml?b=1&c=2", "http://b"]);
    assert!(of("<rss/>").unwrap_err().message().contains("<rss>"));
    assert!(of("<opml><body>").unwrap_err().message().contains("cut off"));
    assert!(of("").is_err());
}

// A list is read no further than it may go: what stands behind that is not even looked at.
#[test]
fn lists_of_feeds_are_bounded_while_they_are_read() {
    let list =
        "<opml><outline xmlUrl='http://a'/><outline xmlUrl='http://b'/><outline xmlUrl='http://c'/><cut off";
    for limits in [OutlineLimits { urls: 2, bytes: 100 }, OutlineLimits { urls: 100, bytes: 17 }] {
        let error = outlines(list, None, limits).unwrap_err();
        assert_eq!(
            (error.kind(), error.context("limit_of")),
            (ErrorKind::Limit, Some("outlines")),
            "{error}"
        );
    }
}

// reliability 27: BOM
#[test]
fn byte_order_marks_are_passed_over_wherever_entries_are_looked_for() {
    let items = "<item a='\u{e9}'><guid>1</guid></item>\u{feff}<item a='\u{e9}'>\u{feff}<guid>2</guid></item>\u{feff}";
    for text in [format!("\u{feff}{}", rss(items)), format!("\u{feff}\u{feff}{}", rss(items))] {
        let (title, entries) = read(&text);
        let ids: Vec<_> = entries.iter().filter_map(|entry| entry.id.as_deref()).collect();
        assert_eq!((title.as_deref(), ids), (Some("t"), vec!["1", "2"]));
    }
}

// T15: a document cannot make a reader hold more than its bounds.
#[test]
fn bases_of_links_do_not_grow_with_each_other() {
    let part = format!("xml:base='{}/' ", "b".repeat(MAX_LINK_BYTES / 4));
    let scopes = format!("<x {part}>").repeat(40);
    let text = format!(
        "<rss xml:base='http://h/' ><channel><item {}>{scopes}<link>a</link></item></channel></rss>",
        part.repeat(100)
    );
    let mut place = scan::Place::start(None);
    let mut scan = scan::Scan::new(&text, &mut place);
    let mut longest = 0;
    while !matches!(scan.next().unwrap(), scan::Piece::Eof) {
        longest = longest.max(scan.place.base().map_or(0, |base| base.as_str().len()));
    }
    assert!((MAX_LINK_BYTES / 2..=MAX_LINK_BYTES).contains(&longest), "{longest}");
}

#[test]
fn the_prefix_of_a_feed_of_an_unknown_namespace_ends_where_its_name_does() {
    let text = "<feed\nxmlns='urn:mine'><title>t</title><entry><id>1</id></entry></feed>";
    let prefixed =
        "<f:feed\txmlns:f='urn:mine'><f:title>t</f:title><f:entry><f:id>1</f:id></f:entry></f:feed>";
    for text in [text, prefixed] {
        let (title, entries) = read(text);
        assert_eq!((title.as_deref(), entries.len()), (Some("t"), 1), "{text}");
    }
}

// reliability 26: one bad entry
#[test]
fn an_entry_of_many_tags_that_are_never_closed_is_left_out_alone() {
    let breaks = "a<br>".repeat(2 * MAX_DEPTH);
    let bad = format!("<item><guid>1</guid><description>{breaks}</description></item>");
    for text in [
        rss(&format!("{bad}<item><guid>2</guid></item>")),
        format!("<rss><channel>{bad}<item><guid>2</guid></item><title>t</title></channel></rss>"),
        format!(
            "<rss><channel><description>{breaks}</description><title>t</title>{bad}<item><guid>2</guid></item></channel></rss>"
        ),
    ] {
        let mut feed = open(&text).unwrap();
        assert_eq!(feed.title(), Some("t"));
        let error = feed.next_entry().unwrap_err();
        assert!(is_about_one_entry(&error) && error.kind() == ErrorKind::Limit, "{error}");
        assert_eq!(feed.next_entry().unwrap().unwrap().id.as_deref(), Some("2"));
        assert!(feed.next_entry().unwrap().is_none());
    }
}

// T15
#[test]
fn names_of_a_document_reach_no_terminal_as_they_are() {
    let name = format!("a\u{1b}[2J{}", "b".repeat(100));
    let errors = [
        open(&format!("<{name}></{name}>")).unwrap_err(),
        open(&format!("<rss><channel><{name}>")).unwrap_err(),
        outlines(&format!("<{name}></{name}>"), None, OutlineLimits { urls: 1, bytes: 1 }).unwrap_err(),
    ];
    for error in errors {
        let told = error.chain();
        assert!(told.contains("a\\u{1b}[2Jbbb") && !told.contains('\u{1b}') && told.len() < 200, "{told:?}");
    }
}
