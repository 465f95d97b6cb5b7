//! OPML lists of feeds (<http://opml.org/spec2.opml>).

use aqueduct_core::{Error, Result};
use url::Url;

use super::scan::{Piece, Place, Scan};
use super::{data, limit, link_from, shown};

/// How much a list may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlineLimits {
    /// Addresses, at most; one that comes twice counts twice.
    pub urls: usize,
    /// Bytes of them all, at most.
    pub bytes: usize,
}

/// The addresses that a list names: `xmlUrl` of its outlines, at whatever depth, in order. Relative ones start from `base`.
/// Memory: what `limits` let through.
///
/// ```
/// let list = "<opml version='2.0'><body><outline text='News'>
///     <outline text='One' type='rss' xmlUrl='https://one.example/feed'/></outline></body></opml>";
/// let limits = aqueduct_formats::feed::OutlineLimits { urls: 1000, bytes: 1 << 20 };
/// let urls = aqueduct_formats::feed::outlines(list, None, limits)?;
/// assert_eq!(urls, ["https://one.example/feed"]);
/// # Ok::<(), aqueduct_core::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Data`](aqueduct_core::ErrorKind::Data): it is no OPML, or is cut off;
/// [`ErrorKind::Limit`](aqueduct_core::ErrorKind::Limit): it passes a bound of this module, or `limits`.
pub fn outlines(text: &str, base: Option<&Url>, limits: OutlineLimits) -> Result<Vec<String>> {
    let mut place = Place::start(base);
    let mut scan = Scan::new(text, &mut place);
    let (mut urls, mut n_bytes, mut has_root) = (Vec::new(), 0, false);
    loop {
        match scan.next()? {
            Piece::Start(root) if !has_root => {
                if !root.name.eq_ignore_ascii_case("opml") {
                    let name = shown(root.name);
                    return Err(data(format!(
                        "it is no list of feeds: its outermost element is <{name}>; expected opml"
                    )));
                }
                has_root = true;
            }
            Piece::Start(outline) if outline.name.eq_ignore_ascii_case("outline") => {
                let url = outline.attribute("xmlUrl");
                let Some(url) = url.and_then(|url| link_from(&url, scan.place.base())) else { continue };
                n_bytes += url.len();
                if urls.len() >= limits.urls || n_bytes > limits.bytes {
                    return Err(too_long(limits));
                }
                urls.push(url);
            }
            Piece::End(_) if scan.place.depth() == 0 => return Ok(urls),
            Piece::Eof if has_root => return Err(scan.cut_off()),
            Piece::Eof => {
                return Err(data("it is no list of feeds: there is no element in it; expected opml"));
            }
            _ => {}
        }
    }
}

fn too_long(OutlineLimits { urls, bytes }: OutlineLimits) -> Error {
    let message =
        format!("the list names more than {urls} feeds, or they have more than {bytes} bytes of names");
    limit("outlines", format!("{message}; read them in several flows"))
}
