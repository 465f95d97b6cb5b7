//! How a document is cut into sections.

use std::ops::Range;

use aqueduct_core::Problem;
use aqueduct_pdf::{Bookmark, Document};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Ranges at most that a flow names.
const MAX_RANGES: usize = 10_000;

/// How a document is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Sections {
    /// Every so many pages.
    Pages(usize),
    /// By the bookmarks of the outermost level; what stands before the first is a section, too.
    Outline(bool),
    /// By pages, under names. Pages that no range names are left out.
    Ranges(Vec<NamedRange>),
}

/// Some pages under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedRange {
    /// What the section is called.
    pub name: String,
    /// Its pages, from 1: `3`, `3-7`, `3-` to the last.
    pub pages: PageRange,
}

/// Pages, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PageRange {
    /// One.
    Page(usize),
    /// As text.
    Text(String),
}

impl PageRange {
    /// The first, and the last unless it is that of the document.
    fn bounds(&self) -> Option<(usize, Option<usize>)> {
        let (first, last) = match self {
            Self::Page(page) => (*page, Some(*page)),
            Self::Text(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                let first = first.trim().parse().ok()?;
                let last = Some(last.trim()).filter(|last| !last.is_empty());
                (first, last.map(str::parse).transpose().ok()?)
            }
        };
        (first > 0 && last.is_none_or(|last| last >= first)).then_some((first, last))
    }
}

impl Sections {
    pub(super) fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Pages(0) => vec![Problem::at("/sections/pages", "expected at least 1 page a section")],
            Self::Outline(false) => {
                vec![Problem::at("/sections/outline", "expected `true`, or `pages: N` instead")]
            }
            Self::Ranges(ranges) if ranges.is_empty() || ranges.len() > MAX_RANGES => {
                vec![Problem::at("/sections/ranges", format!("expected 1 to {MAX_RANGES} ranges"))]
            }
            Self::Ranges(ranges) => {
                let wrong = ranges.iter().enumerate().filter(|(_, range)| range.pages.bounds().is_none());
                let message = "expected pages from 1: `3`, `3-7`, or `3-` to the last";
                wrong.map(|(n, _)| Problem::at(format!("/sections/ranges/{n}/pages"), message)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A section of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    /// From 0. Whoever reads them says whether they are there.
    pub(super) pages: Range<usize>,
}

impl Section {
    /// As people write it.
    pub(super) fn pages_text(&self) -> String {
        let (first, last) = (self.pages.start + 1, self.pages.end);
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    }
}

/// The sections of a document, made as they are asked for.
pub(super) enum Cut {
    Every { n_pages: usize, of: usize },
    Listed(Vec<Section>),
}

impl Cut {
    /// # Errors
    /// It is to be cut by an outline that it does not have; what to say.
    pub(super) fn of(sections: &Sections, document: &Document) -> Result<Self, &'static str> {
        let of = document.n_pages();
        match sections {
            Sections::Pages(n_pages) => Ok(Self::Every { n_pages: (*n_pages).max(1), of }),
            Sections::Outline(_) => match document.bookmarks() {
                none if none.is_empty() => Err(
                    "the PDF has no outline whose bookmarks lead to its pages; cut it with `sections: {pages: N}`",
                ),
                bookmarks => Ok(Self::Listed(by_bookmarks(bookmarks, of))),
            },
            Sections::Ranges(ranges) => {
                let section = |range: &NamedRange| {
                    let (first, last) = range.pages.bounds()?;
                    Some(Section {
                        name: range.name.clone(),
                        pages: first - 1..last.unwrap_or(of.max(first)),
                    })
                };
                Ok(Self::Listed(ranges.iter().filter_map(section).collect()))
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Every { n_pages, of } => of.div_ceil(*n_pages),
            Self::Listed(sections) => sections.len(),
        }
    }

    /// The section of this number, from 0.
    pub(super) fn get(&self, number: usize) -> Option<Section> {
        match self {
            Self::Every { n_pages, of } => {
                let first = number.checked_mul(*n_pages).filter(|first| first < of)?;
                let section = Section { name: String::new(), pages: first..(first + n_pages).min(*of) };
                let is_one = section.pages.len() == 1;
                let name = format!("{} {}", if is_one { "page" } else { "pages" }, section.pages_text());
                Some(Section { name, ..section })
            }
            Self::Listed(sections) => sections.get(number).cloned(),
        }
    }
}

/// From each bookmark to the next one that leads to a later page. Bookmarks that lead to one page are one section.
fn by_bookmarks(mut bookmarks: Vec<Bookmark>, n_pages: usize) -> Vec<Section> {
    const BEFORE: &str = "before the first bookmark";
    bookmarks.sort_by_key(|bookmark| bookmark.page);
    let mut sections: Vec<Section> = Vec::new();
    if bookmarks.first().is_some_and(|first| first.page > 0) {
        sections.push(Section { name: BEFORE.into(), pages: 0..n_pages });
    }
    for Bookmark { title, page } in bookmarks {
        match sections.last_mut() {
            Some(last) if last.pages.start == page => {
                last.name.push_str(" / ");
                last.name.push_str(title.trim());
                continue;
            }
            Some(last) => last.pages.end = page,
            None => {}
        }
        sections.push(Section { name: title.trim().to_owned(), pages: page..n_pages });
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bookmark(title: &str, page: usize) -> Bookmark {
        Bookmark { title: title.into(), page }
    }

    #[test]
    fn every_so_many_pages_the_last_with_what_is_left() {
        let cut = Cut::Every { n_pages: 10, of: 21 };
        let names: Vec<_> = (0..cut.len()).map(|n| cut.get(n).unwrap().name).collect();
        assert_eq!(names, ["pages 1-10", "pages 11-20", "page 21"]);
        assert_eq!(cut.get(2).unwrap().pages, 20..21);
        assert!(cut.get(3).is_none() && cut.get(usize::MAX).is_none());
    }

    #[test]
    fn bookmarks_cut_where_they_lead_and_nothing_is_left_out() {
        let sections = by_bookmarks(vec![bookmark("C", 7), bookmark("A ", 2), bookmark("B", 2)], 9);
        let cut: Vec<_> = sections.iter().map(|one| (one.name.as_str(), one.pages_text())).collect();
        let expected = [("before the first bookmark", "1-2"), ("A / B", "3-7"), ("C", "8-9")];
        assert_eq!(cut, expected.map(|(name, pages)| (name, pages.to_owned())));
    }

    #[test]
    fn ranges_are_read_and_wrong_ones_named() {
        let text = |text: &str| PageRange::Text(text.into()).bounds();
        assert_eq!(PageRange::Page(3).bounds(), Some((3, Some(3))));
        assert_eq!(text("3 - 7"), Some((3, Some(7))));
        assert_eq!(text("3-"), Some((3, None)));
        for wrong in ["", "-3", "0-2", "7-3", "a", "1-2-3"] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
        let ranges =
            ["1", "x"].map(|pages| NamedRange { name: "n".into(), pages: PageRange::Text(pages.into()) });
        let problems = Sections::Ranges(ranges.into()).problems();
        assert_eq!(
            problems.iter().map(|one| one.pointer.as_str()).collect::<Vec<_>>(),
            ["/sections/ranges/1/pages"]
        );
    }
}
