//! How long `ci` may take, and how times are told.

use std::env;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// The most minutes that all steps may take together, compiling from nothing included. Longer, and people
/// stop waiting for it; much shorter, and a cold machine cannot compile DataFusion.
const MAX_MINUTES: u64 = 50;

/// Raises the limit for a machine that needs it: `90: emulated processor`.
const OVERRIDE: &str = "AQUEDUCT_CI_MINUTES";

/// How long `ci` may take.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limit {
    minutes: u64,
}

impl Limit {
    /// The usual one, or what the environment says with a reason.
    ///
    /// # Errors
    /// The environment says something else.
    pub(super) fn from_env() -> Result<Self> {
        match env::var(OVERRIDE) {
            Err(_) => Ok(Self { minutes: MAX_MINUTES }),
            Ok(text) => Self::parse(&text),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let shape = || format!("{OVERRIDE}=`{text}`: expected `MINUTES: REASON`");
        let (minutes, reason) = text.split_once(':').with_context(shape)?;
        ensure!(
            !reason.trim().is_empty(),
            "{OVERRIDE}=`{text}`: a longer time needs a reason, `MINUTES: REASON`"
        );
        Ok(Self { minutes: minutes.trim().parse().with_context(shape)? })
    }

    /// Whether it was kept.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn check(&self, took: Duration) -> Result<()> {
        if took > Duration::from_secs(self.minutes * 60) {
            bail!(
                "ci took {}, more than {} min; make it quicker, or set {OVERRIDE}=`MINUTES: REASON`",
                minutes(took),
                self.minutes
            );
        }
        Ok(())
    }
}

/// A time in minutes, with one digit behind the point.
pub(super) fn minutes(took: Duration) -> String {
    format!("{:.1} min", took.as_secs_f64() / 60.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_limit_fails() {
        let limit = Limit { minutes: MAX_MINUTES };
        assert!(limit.check(Duration::from_secs(50 * 60)).is_ok());
        let error = limit.check(Duration::from_secs(50 * 60 + 30)).unwrap_err().to_string();
        assert!(error.starts_with("ci took 50.5 min, more than 50 min"), "{error}");
    }

    #[test]
    fn a_longer_time_needs_a_reason() {
        assert_eq!(Limit::parse("90: emulated processor").unwrap(), Limit { minutes: 90 });
        assert!(Limit::parse("90").is_err());
        assert!(Limit::parse("90: ").unwrap_err().to_string().contains("needs a reason"));
        assert!(Limit::parse("long: because").is_err());
    }
}
