//! Object stores: S3, Google Cloud Storage, Azure, and one in memory for tests.

use std::collections::BTreeMap;

use aqueduct_core::Problem;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::Secret;

/// The keys of `storage:` in a flow file: a prefix such as `s3://lake`, and how what is below it is reached.
/// The longest prefix wins; without one, the cloud's usual environment variables count.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct StorageOptions(pub BTreeMap<String, StoreSettings>);

/// How one object store is reached.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// The URL of the service, when it is not the cloud's own.
    pub endpoint: Option<String>,
    /// The region (S3).
    pub region: Option<String>,
    /// The profile of the shared credentials file (S3).
    pub profile: Option<String>,
    /// The access key's id (S3), or the account's name (Azure).
    pub access_key_id: Option<String>,
    /// The access key's secret (S3), or the account's key (Azure).
    pub secret_access_key: Option<Secret>,
    /// Whether requests go without credentials.
    pub anonymous: bool,
    /// Whether the bucket stands in the path instead of the host's name (S3).
    pub path_style: bool,
    /// Whether the one who asks pays (S3).
    pub requester_pays: bool,
    /// Whether an `http://` endpoint is allowed.
    pub allow_http: bool,
}

const SCHEMES: [&str; 4] = ["s3://", "gs://", "az://", "memory://"];

impl StorageOptions {
    /// All that is wrong with the options themselves. Pure.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (prefix, settings) in &self.0 {
            let pointer = format!("/{}", prefix.replace('~', "~0").replace('/', "~1"));
            if !SCHEMES.iter().any(|scheme| prefix.starts_with(scheme)) {
                problems.push(Problem::at(&pointer, "expected a prefix such as s3://bucket, gs://, az://"));
            }
            if settings.profile.is_some() {
                problems.push(Problem::at(
                    format!("{pointer}/profile"),
                    "profiles are not read yet; give access_key_id and secret_access_key, or set AWS_* variables",
                ));
            }
            if settings.access_key_id.is_some() != settings.secret_access_key.is_some() {
                problems.push(Problem::at(
                    &pointer,
                    "`access_key_id` and `secret_access_key` go together; one is missing",
                ));
            }
        }
        problems
    }
}
