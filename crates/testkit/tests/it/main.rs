//! The suites against components that break a promise each: every promise that a suite speaks of it also checks.

#[cfg(test)]
mod sinks;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod stages;

/// What a suite says of a component that it does not let pass.
#[cfg(test)]
fn told(judge: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(judge)).unwrap_err();
    *panic.downcast::<String>().unwrap()
}
