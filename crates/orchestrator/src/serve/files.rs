//! The page: a handful of files in the binary. It loads nothing from elsewhere, and a browser lets it do nothing else.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::api::page;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, kind, text.
const FILES: [(&str, &str, &str); 9] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/page/page.css", CSS, include_str!("page/page.css")),
    ("/page/page.js", SCRIPT, include_str!("page/page.js")),
    ("/page/api.js", SCRIPT, include_str!("page/api.js")),
    ("/page/lists.js", SCRIPT, include_str!("page/lists.js")),
    ("/page/plot.js", SCRIPT, include_str!("page/plot.js")),
    ("/page/run.js", SCRIPT, include_str!("page/run.js")),
    ("/page/show.js", SCRIPT, include_str!("page/show.js")),
];

/// The file at a path.
pub(super) fn answer(request: &Request<Bytes>) -> Response<Bytes> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused =
            page(StatusCode::METHOD_NOT_ALLOWED, "text/plain", Bytes::from_static(b"expected GET\n"));
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let Some((_, kind, text)) = FILES.iter().find(|(path, ..)| *path == request.uri().path()) else {
        return page(StatusCode::NOT_FOUND, "text/plain", Bytes::from_static(b"no such file\n"));
    };
    let mut answer = page(StatusCode::OK, kind, Bytes::from_static(text.as_bytes()));
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    answer.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    // T11: nothing is loaded from elsewhere, nothing is run that stands in the page
    #[test]
    fn the_page_is_its_own_files_and_nothing_else() {
        for (path, kind, text) in FILES {
            let request = Request::get(path).body(Bytes::new()).unwrap();
            let answer = answer(&request);
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
            assert!(
                answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'")
            );
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "style=\"",
                "onclick=",
            ] {
                assert!(!text.contains(forbidden), "{path}: {forbidden}");
            }
            let is_svg = |line: &&str| line.contains("www.w3.org/2000/svg");
            let links = text.lines().filter(|line| line.contains("://") && !is_svg(line)).count();
            assert_eq!(links, 0, "{path}");
            if kind == SCRIPT {
                for from in text.lines().filter_map(|line| line.split(" from \"./").nth(1)) {
                    let name = format!("/page/{}", from.trim_end_matches("\";"));
                    assert!(FILES.iter().any(|(path, ..)| *path == name), "{path} needs {name}");
                }
            }
        }
        let post = Request::post("/").body(Bytes::new()).unwrap();
        assert_eq!(answer(&post).status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
