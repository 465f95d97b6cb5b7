//! Object stores: S3, Google Cloud Storage, Azure, and one in memory for tests.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_core::{Error, ErrorKind, Problem, Result};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{HttpOptions, Secret};

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

/// Each store holds connections; past so many, those opened before are let go of.
const MAX_OPEN_STORES: usize = 64;

const MAX_IDLE_PER_HOST: usize = 4;

const SCHEMES: [&str; 4] = ["s3://", "gs://", "az://", "memory://"];

impl StorageOptions {
    /// All that is wrong with the options themselves. Pure.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (prefix, settings) in &self.0 {
            let pointer = aqueduct_core::pointer_to(prefix);
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

impl StorageOptions {
    /// The settings for a store: those of the longest prefix that its URL begins with.
    fn settings(&self, root: &str, key: &str) -> Option<&StoreSettings> {
        let whole = format!("{root}/{key}");
        let applies = |prefix: &str| {
            let rest = whole.strip_prefix(prefix.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with("://"))
        };
        let matching = self.0.iter().filter(|(prefix, _)| applies(prefix));
        matching.max_by_key(|(prefix, _)| prefix.len()).map(|(_, settings)| settings)
    }
}

/// A store that is read, and written in pieces.
pub(crate) trait Store: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Store for T {}

/// The stores in use, opened when first needed.
#[derive(Debug)]
pub(crate) struct Stores {
    options: StorageOptions,
    http: HttpOptions,
    open: Mutex<Vec<(StoreKey, Arc<dyn Store>)>>,
    /// These live as long as the fetcher: they are the data.
    in_memory: Mutex<HashMap<String, Arc<InMemory>>>,
}

#[derive(Debug, PartialEq)]
struct StoreKey {
    root: String,
    settings: StoreSettings,
}

impl Stores {
    pub(crate) fn new(options: StorageOptions, http: HttpOptions) -> Self {
        Self { options, http, open: Mutex::default(), in_memory: Mutex::default() }
    }

    /// Whether the flow says how objects under this location are reached.
    pub(crate) fn is_named(&self, root: &str, key: &str) -> bool {
        self.options.settings(root, key).is_some()
    }

    /// The store that holds this object.
    ///
    /// # Errors
    /// The settings or the environment do not suffice to reach it.
    pub(crate) fn store(&self, root: &str, key: &str) -> Result<Arc<dyn Store>> {
        if root.starts_with("memory://") {
            let mut stores = lock(&self.in_memory);
            return Ok(Arc::<InMemory>::clone(stores.entry(root.to_owned()).or_default()));
        }
        let settings = self.options.settings(root, key).cloned().unwrap_or_default();
        let wanted = StoreKey { root: root.to_owned(), settings };
        let mut open = lock(&self.open);
        if let Some((_, store)) = open.iter().find(|(known, _)| *known == wanted) {
            return Ok(Arc::clone(store));
        }
        let store = self.build(&wanted)?;
        if open.len() >= MAX_OPEN_STORES {
            open.remove(0);
        }
        open.push((wanted, Arc::clone(&store)));
        Ok(store)
    }

    /// Lets go of all stores and their connections.
    pub(crate) fn close(&self) {
        lock(&self.open).clear();
        lock(&self.in_memory).clear();
    }

    fn build(&self, wanted: &StoreKey) -> Result<Arc<dyn Store>> {
        let settings = &wanted.settings;
        let (scheme, bucket) = wanted.root.split_once("://").unwrap_or(("", &wanted.root));
        let built = match scheme {
            "s3" => self.s3(bucket, settings),
            "gs" => self.gs(bucket, settings),
            _ => self.az(bucket, settings),
        };
        built.map_err(|error| {
            let message =
                "the object store cannot be set up; see `storage` and the cloud's environment variables";
            Error::new(ErrorKind::Config, "open store", message)
                .with("store", &wanted.root)
                .with_source(error)
        })
    }

    fn s3(&self, bucket: &str, settings: &StoreSettings) -> object_store::Result<Arc<dyn Store>> {
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_client_options(self.client_options(settings))
            .with_retry(self.retry())
            .with_skip_signature(settings.anonymous)
            .with_request_payer(settings.requester_pays);
        if settings.path_style {
            builder = builder.with_virtual_hosted_style_request(false);
        }
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &settings.region {
            builder = builder.with_region(region);
        }
        if let Some((id, secret)) = settings.credentials() {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        }
        Ok(Arc::new(builder.build()?))
    }

    fn gs(&self, bucket: &str, settings: &StoreSettings) -> object_store::Result<Arc<dyn Store>> {
        let mut builder = GoogleCloudStorageBuilder::from_env()
            .with_bucket_name(bucket)
            .with_client_options(self.client_options(settings))
            .with_retry(self.retry())
            .with_skip_signature(settings.anonymous);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_base_url(endpoint);
        }
        Ok(Arc::new(builder.build()?))
    }

    fn az(&self, container: &str, settings: &StoreSettings) -> object_store::Result<Arc<dyn Store>> {
        let mut builder = MicrosoftAzureBuilder::from_env()
            .with_container_name(container)
            .with_client_options(self.client_options(settings))
            .with_retry(self.retry())
            .with_skip_signature(settings.anonymous)
            .with_allow_http(settings.allow_http);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        if let Some((account, key)) = settings.credentials() {
            builder = builder.with_account(account).with_access_key(key);
        }
        Ok(Arc::new(builder.build()?))
    }

    /// Without a limit on a whole request: a large object may take hours. Who reads waits for each piece.
    fn client_options(&self, settings: &StoreSettings) -> ClientOptions {
        ClientOptions::new()
            .with_connect_timeout(self.http.connect_timeout())
            .with_timeout_disabled()
            .with_pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .with_allow_http(settings.allow_http || environment_allows_http())
    }

    fn retry(&self) -> RetryConfig {
        let max_retries = usize::try_from(self.http.retries()).unwrap_or(usize::MAX);
        RetryConfig { max_retries, ..RetryConfig::default() }
    }
}

impl StoreSettings {
    fn credentials(&self) -> Option<(&str, &str)> {
        self.access_key_id.as_deref().zip(self.secret_access_key.as_ref().map(Secret::expose))
    }
}

/// Whether the environment says, as it does to other programs, that a service without TLS is meant.
fn environment_allows_http() -> bool {
    let says =
        |name| std::env::var(name).is_ok_and(|value| value.eq_ignore_ascii_case("true") || value == "1");
    says("AWS_ALLOW_HTTP") || says("AZURE_ALLOW_HTTP")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(prefixes: &[&str]) -> StorageOptions {
        let settings = |prefix: &&str| StoreSettings { region: Some((*prefix).into()), ..Default::default() };
        StorageOptions(prefixes.iter().map(|prefix| ((*prefix).to_owned(), settings(prefix))).collect())
    }

    #[test]
    fn the_longest_prefix_wins_and_ends_at_a_slash() {
        let options = options(&["s3://lake", "s3://lake/raw", "s3://lake2", "gs://"]);
        let found = |root, key| options.settings(root, key).and_then(|settings| settings.region.as_deref());
        assert_eq!(found("s3://lake", "raw/a"), Some("s3://lake/raw"));
        assert_eq!(found("s3://lake", "rawish/a"), Some("s3://lake"));
        assert_eq!(found("s3://lake2", "a"), Some("s3://lake2"));
        assert_eq!(found("s3://lake3", "a"), None);
        assert_eq!(found("gs://any", "a"), Some("gs://"));
    }

    #[test]
    fn half_of_a_key_is_a_problem() {
        let settings = StoreSettings { access_key_id: Some("a".into()), ..Default::default() };
        let options = StorageOptions(BTreeMap::from([("s3://lake".to_owned(), settings)]));
        assert_eq!(options.validate()[0].pointer, "/s3:~1~1lake");
    }
}
