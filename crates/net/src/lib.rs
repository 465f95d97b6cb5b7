//! The one HTTP client and the object stores: limits, retries, resume, address checks.
