//! URLs as they may be shown: without user info, without secrets in the query.

use std::borrow::Cow;

use url::Url;

const HIDDEN: &str = "***";

/// Whole names of query parameters that hold secrets.
const SECRET_NAMES: [&str; 7] = ["sig", "key", "auth", "api_key", "apikey", "api-key", "code"];

/// Parts of names of query parameters that hold secrets: presigned URLs among them.
const SECRET_PARTS: [&str; 6] = ["token", "password", "secret", "signature", "credential", "authorization"];

/// The URL with user info and secret query values replaced by `***`, and without its fragment.
pub fn masked_url(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_fragment(None);
    if !url.username().is_empty() || url.password().is_some() {
        // Fails only for URLs that cannot have user info, and those have none.
        let _ = shown.set_password(None);
        let _ = shown.set_username(HIDDEN);
    }
    if url.query_pairs().any(|(name, _)| is_secret(&name)) {
        let pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = url.query_pairs().collect();
        shown.query_pairs_mut().clear().extend_pairs(
            pairs.iter().map(|(name, value)| (name, if is_secret(name) { HIDDEN } else { value.as_ref() })),
        );
    }
    shown.into()
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.contains(&name.as_str()) || SECRET_PARTS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(url: &str) -> String {
        masked_url(&Url::parse(url).unwrap())
    }

    #[test]
    fn user_info_and_secret_parameters_are_hidden_and_the_rest_stays() {
        assert_eq!(masked("https://me:pw-canary@host/a?b=c#d"), "https://***@host/a?b=c");
        assert_eq!(masked("https://host/a?page=2&api_key=canary"), "https://host/a?page=2&api_key=***");
        assert_eq!(
            masked("https://host/a?X-Amz-Signature=canary&x=1"),
            "https://host/a?X-Amz-Signature=***&x=1"
        );
        assert_eq!(masked("https://host/a%20b?q=%C3%A9&r"), "https://host/a%20b?q=%C3%A9&r");
    }
}
