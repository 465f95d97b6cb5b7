//! The pages that a walk has been to, to know when it goes in a circle.

use std::collections::HashMap;

use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_primitives::ByteCount;

use super::Ask;

/// A walk over more pages goes nowhere.
pub(crate) const MAX_PAGES: usize = 100_000;

/// A slice is walked so often from its start, if the way to a page is lost.
pub(crate) const MAX_WALKS: u32 = 3;

/// What a trail of so many pages takes in memory.
pub(crate) const TRAIL_BYTES: ByteCount = ByteCount::mib(4);

/// Hashes of requests and of what came, with the number of the page. Of 64 bits: that any two of a hundred thousand
/// pages look alike by accident has a chance of one in a thousand million.
#[derive(Default)]
pub(crate) struct Trail {
    pages: HashMap<u64, u32>,
}

impl Trail {
    /// Goes to a page.
    ///
    /// # Errors
    /// It was asked for before, or there are too many.
    pub(crate) fn ask(&mut self, number: u64, ask: &Ask) -> Result<()> {
        if self.pages.len() >= 2 * MAX_PAGES {
            let message =
                format!("more than {MAX_PAGES} pages; ask for larger ones, or split what is asked for");
            return Err(Error::new(ErrorKind::Limit, "follow pages", message));
        }
        let body = ask.body.as_ref().map(ToString::to_string).unwrap_or_default();
        let Some(before) = self.enter(number, &[b"ask", ask.url.as_bytes(), body.as_bytes()]) else {
            return Ok(());
        };
        let message = format!(
            "page {} leads back to page {before}: the links to the next page go in a circle",
            number.saturating_sub(1)
        );
        Err(Error::new(ErrorKind::Data, "follow pages", message).with("page", number))
    }

    /// A page with these items came.
    ///
    /// # Errors
    /// Another page had the very same.
    pub(crate) fn came(&mut self, number: u64, items: &ItemsOfPage) -> Result<()> {
        if items.n_items == 0 {
            return Ok(());
        }
        let hash = items.hasher.finalize();
        let Some(before) = self.enter(number, &[b"came", hash.as_bytes()]) else { return Ok(()) };
        let message = format!(
            "page {number} has the same items as page {before}: the server does not go on to the next page"
        );
        Err(Error::new(ErrorKind::Data, "follow pages", message).with("page", number))
    }

    /// The page that had the same, if one had.
    fn enter(&mut self, number: u64, parts: &[&[u8]]) -> Option<u32> {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let mut hash = [0; 8];
        hasher.finalize_xof().fill(&mut hash);
        self.pages.insert(u64::from_le_bytes(hash), u32::try_from(number).unwrap_or(u32::MAX))
    }
}

/// The items of a page, by a hash of their keys.
#[derive(Default)]
pub(crate) struct ItemsOfPage {
    hasher: blake3::Hasher,
    n_items: usize,
}

impl ItemsOfPage {
    /// Adds items that stand behind these.
    pub(crate) fn add(&mut self, keys: &[u128]) {
        self.n_items += keys.len();
        for key in keys {
            self.hasher.update(&key.to_le_bytes());
        }
    }
}

/// Whether a server knows no page behind a link that it gave itself: tokens of pages may be good for a time only.
pub(crate) fn is_lost(error: &Error) -> bool {
    matches!(error.context("status"), Some("400" | "403" | "404" | "410" | "422"))
}

/// Says that a slice is walked once more, because the way to a page is lost.
pub(crate) fn tell_lost(slice: &str, page: u64, error: &Error) {
    let error = error.chain();
    tracing::warn!(
        slice,
        page,
        error,
        "the link to this page is no longer good: from the first page on once more"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(n: u64) -> Ask {
        Ask { url: format!("http://host/?page={n}"), body: None }
    }

    // reliability 23
    #[test]
    fn circles_are_named_by_page() {
        let mut trail = Trail::default();
        for n in 1..=5 {
            trail.ask(n, &ask(n)).unwrap();
        }
        let error = trail.ask(6, &ask(3)).unwrap_err();
        assert!(error.message().contains("page 5 leads back to page 3"), "{error}");
        let post = Ask { body: Some(serde_json::json!({"token": "a"})), ..ask(3) };
        trail.ask(6, &post).unwrap();
        assert!(trail.ask(7, &post).unwrap_err().message().contains("page 6 leads back to page 6"));
    }

    #[test]
    fn a_server_that_gives_the_same_page_for_ever_is_found_out() {
        let mut trail = Trail::default();
        let mut came = |number, keys: &[u128]| {
            let mut items = ItemsOfPage::default();
            keys.chunks(1).for_each(|keys| items.add(keys));
            trail.came(number, &items)
        };
        came(1, &[1, 2]).unwrap();
        came(2, &[2, 1]).unwrap();
        came(3, &[]).unwrap();
        came(4, &[]).unwrap();
        assert!(came(5, &[1, 2]).unwrap_err().message().contains("same items as page 1"));
    }
}
