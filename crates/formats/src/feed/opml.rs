//! OPML lists of feeds (<http://opml.org/spec2.opml>).

use aqueduct_core::Result;
use url::Url;

use super::scan::{Piece, Place, Scan};
use super::{cut, data, link_from};

/// The addresses that a list names: `xmlUrl` of its outlines, at whatever depth, in order. Relative ones start from `base`.
///
/// ```
/// let list = "<opml version='2.0'><body><outline text='News'>
///     <outline text='One' type='rss' xmlUrl='https://one.example/feed'/></outline></body></opml>";
/// let urls = aqueduct_formats::feed::outlines(list, None)?;
/// assert_eq!(urls, ["https://one.example/feed"]);
/// # Ok::<(), aqueduct_core::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Data`](aqueduct_core::ErrorKind::Data): it is no OPML, or is cut off;
/// [`ErrorKind::Limit`](aqueduct_core::ErrorKind::Limit): it passes a bound of this module.
pub fn outlines(text: &str, base: Option<&Url>) -> Result<Vec<String>> {
    let mut place = Place::start(base);
    let mut scan = Scan::new(text, &mut place);
    let (mut urls, mut has_root) = (Vec::new(), false);
    loop {
        match scan.next()? {
            Piece::Start(root) if !has_root => {
                if !root.name.eq_ignore_ascii_case("opml") {
                    let name = cut(root.name, 40);
                    return Err(data(format!(
                        "it is no list of feeds: its outermost element is <{name}>; expected opml"
                    )));
                }
                has_root = true;
            }
            Piece::Start(outline) if outline.name.eq_ignore_ascii_case("outline") => {
                let url = outline.attribute("xmlUrl");
                urls.extend(url.and_then(|url| link_from(&url, scan.place.base())));
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
