//! Which vocabulary a name is of.

/// The vocabularies that say something about entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// RSS in any version, Atom, and names without a namespace: feeds mix them.
    Feed,
    Rdf,
    /// Dublin Core, 1.0 and 1.1.
    Dc,
    /// Dublin Core's terms.
    DcTerms,
    /// RSS 1.0 module Content.
    Content,
    Itunes,
    Media,
    /// Anything else.
    Other,
}

/// The vocabulary of a namespace.
pub(super) fn of_namespace(uri: &str) -> Space {
    let uri = uri.trim().trim_end_matches(['#', '/']).to_ascii_lowercase();
    let name = uri.split_once("://").map_or(&uri[..], |(_, name)| name);
    match name {
        ""
        | "www.w3.org/2005/atom"
        | "purl.org/atom/ns"
        | "purl.org/rss/1.0"
        | "purl.org/net/rss1.1"
        | "my.netscape.com/rdf/simple/0.9"
        | "channel.netscape.com/rdf/simple/0.9"
        | "my.netscape.com/publish/formats/rss-0.91.dtd"
        | "backend.userland.com/rss"
        | "backend.userland.com/rss2"
        | "backend.userland.com/rss091"
        | "backend.userland.com/rss092"
        | "blogs.law.harvard.edu/tech/rss"
        | "purl.org/rss/1.0/modules/rss091" => Space::Feed,
        "www.w3.org/1999/02/22-rdf-syntax-ns" => Space::Rdf,
        "purl.org/dc/elements/1.1" | "purl.org/dc/elements/1.0" => Space::Dc,
        "purl.org/dc/terms" => Space::DcTerms,
        "purl.org/rss/1.0/modules/content" => Space::Content,
        "www.itunes.com/dtds/podcast-1.0.dtd" => Space::Itunes,
        "search.yahoo.com/mrss" => Space::Media,
        _ => Space::Other,
    }
}

/// The vocabulary that a prefix stands for where it is not declared.
pub(super) fn of_prefix(prefix: &str) -> Space {
    match prefix {
        "" | "atom" | "atom10" | "rss" => Space::Feed,
        "rdf" => Space::Rdf,
        "dc" => Space::Dc,
        "dcterms" => Space::DcTerms,
        "content" => Space::Content,
        "itunes" => Space::Itunes,
        "media" => Space::Media,
        _ => Space::Other,
    }
}
