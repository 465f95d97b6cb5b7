//! Where bytes are: a local file, an HTTP URL, an object in a store.

use std::fmt;
use std::path::{Path, PathBuf};

use aqueduct_core::{Error, ErrorKind, Result};
use url::Url;

use crate::mask::masked_url;

const STORE_SCHEMES: [&str; 4] = ["s3", "gs", "az", "memory"];

/// Where bytes are. `Display` shows no credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// At an `http` or `https` URL.
    Http(Url),
    /// In an object store.
    Store {
        /// The store: scheme and bucket, `s3://lake`.
        root: String,
        /// The object's key within it, as it is: not percent-encoded.
        key: String,
    },
    /// In a local file.
    Local(PathBuf),
}

impl Location {
    /// Reads a URL (`http`, `https`, `file`, `s3`, `gs`, `az`, `memory`) or a path. Relative paths start
    /// from `base_dir`.
    ///
    /// # Errors
    /// The URL is malformed, or of another scheme.
    pub fn parse(text: &str, base_dir: &Path) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Local(base_dir.join(text)));
        };
        let scheme = scheme.to_ascii_lowercase();
        match scheme.as_str() {
            "http" | "https" => parse_url(text).map(Self::Http),
            "file" => parse_url(text)?
                .to_file_path()
                .map(Self::Local)
                .map_err(|()| malformed(text, "expected file:///absolute/path")),
            _ if STORE_SCHEMES.contains(&scheme.as_str()) => parse_store(text, &scheme, rest),
            _ => Err(malformed(text, "expected http, https, file, s3, gs, az, memory, or a path")),
        }
    }

    /// The last part of the path, percent-decoded; empty when there is none.
    pub fn file_name(&self) -> String {
        match self {
            Self::Http(url) => {
                let last = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
                percent_decoded(last)
            }
            Self::Store { key, .. } => key.rsplit('/').next().unwrap_or_default().to_owned(),
            Self::Local(path) => {
                path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
            }
        }
    }

    /// Whether reading it touches the network.
    pub fn is_remote(&self) -> bool {
        !matches!(self, Self::Local(_))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(&masked_url(url)),
            Self::Store { root, key } => write!(f, "{root}/{key}"),
            Self::Local(path) => path.display().fmt(f),
        }
    }
}

fn parse_store(text: &str, scheme: &str, rest: &str) -> Result<Location> {
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() && scheme != "memory" {
        return Err(malformed(text, "expected a bucket's name after `://`"));
    }
    Ok(Location::Store { root: format!("{scheme}://{bucket}"), key: key.to_owned() })
}

fn parse_url(text: &str) -> Result<Url> {
    Url::parse(text).map_err(|error| malformed(text, "the URL is malformed").with_source(error))
}

/// What could not be read is not shown whole: it may hold a password where no parser finds it.
fn malformed(text: &str, message: &str) -> Error {
    let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
    let shown: String = shown.split('?').next().unwrap_or_default().chars().take(200).collect();
    Error::new(ErrorKind::Config, "read location", message).with("location", shown)
}

fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Location {
        Location::parse(text, Path::new("/flows")).unwrap()
    }

    #[test]
    fn each_scheme_has_its_place() {
        assert_eq!(parse("data/a.csv"), Location::Local("/flows/data/a.csv".into()));
        assert_eq!(parse("file:///x/a%20b.csv"), Location::Local("/x/a b.csv".into()));
        assert_eq!(
            parse("s3://lake/a/b c.parquet"),
            Location::Store { root: "s3://lake".into(), key: "a/b c.parquet".into() }
        );
        assert_eq!(parse("memory:///a").file_name(), "a");
        assert_eq!(parse("https://host/x/a%20b.csv?v=1#part").file_name(), "a b.csv");
        assert_eq!(parse("https://host").file_name(), "");
    }

    #[test]
    fn other_schemes_are_refused_and_named() {
        let error = Location::parse("ftp://me:canary@host/a", Path::new("")).unwrap_err();
        assert!(error.to_string().contains("host/a") && error.to_string().contains("https"), "{error}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }

    // T2
    #[test]
    fn credentials_are_never_shown() {
        let shown = parse("https://me:canary@host/a?token=canary").to_string();
        assert_eq!(shown, "https://***@host/a?token=***");
    }
}
