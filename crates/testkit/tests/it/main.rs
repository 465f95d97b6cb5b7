//! The suites against components that break a promise each: every promise that a suite speaks of it also checks.
//! And the disk in memory against the system's, and against what it says of itself.

#[cfg(test)]
mod sim_fs;
#[cfg(test)]
mod sim_fs_like_std_fs;
#[cfg(test)]
mod sinks;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod stages;

/// Out of the names of all cases, a type with a fault for each: a case without one does not compile.
#[cfg(test)]
macro_rules! faults {
    ($suite:ident; $($case:ident,)+) => {
        /// For each case a component that breaks the promise, and what is said of it.
        struct Faults {
            $($case: (Fault, &'static str),)+
        }

        impl Faults {
            fn check(self) {
                $(
                    let (fault, expected) = self.$case;
                    let found = crate::told(|| $suite::judge(suite(fault), stringify!($case), $suite::$case));
                    crate::check_told(&found, expected);
                )+
            }
        }

        #[test]
        fn a_good_one_passes() {
            $($suite::judge(suite(Fault::None), stringify!($case), $suite::$case);)+
        }
    };
}
#[cfg(test)]
use faults;

/// One more fault of a case.
#[cfg(test)]
macro_rules! check_fault {
    ($suite:ident, $case:ident, $fault:expr, $expected:expr) => {
        let found = crate::told(|| $suite::judge(suite($fault), stringify!($case), $suite::$case));
        crate::check_told(&found, $expected);
    };
}
#[cfg(test)]
use check_fault;

/// What is wrong is told, with the component and the case.
#[cfg(test)]
fn check_told(found: &str, expected: &str) {
    assert!(found.contains(expected), "expected `{expected}` in {found}");
    assert!(found.contains(" `bad`, case `") || found.contains(" `bad` (of 40 rows), case `"), "{found}");
}

/// What a suite says of a component that it does not let pass.
#[cfg(test)]
fn told(judge: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(judge)).unwrap_err();
    *panic.downcast::<String>().unwrap()
}
