//! Columns side by side: a few threads share a list of pieces of work and are joined before it returns.

use std::sync::{Mutex, PoisonError};

use aqueduct_core::Result;

/// Does `work` on every item, on so many threads at once, the caller's among them; results in order.
///
/// The threads live no longer than the call. A panic of one is a panic of the call.
///
/// # Errors
/// The first one in the order of the items.
pub(super) fn map<T: Send, R: Send>(
    items: Vec<T>,
    n_threads: usize,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    if n_threads < 2 || items.len() < 2 {
        return items.into_iter().map(work).collect();
    }
    let n_items = items.len();
    let queue = Mutex::new(items.into_iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(n_items));
    let take_turns = || {
        while let Some((at, item)) = lock(&queue).next() {
            let result = work(item);
            lock(&done).push((at, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..n_threads.min(n_items) {
            scope.spawn(take_turns);
        }
        take_turns();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aqueduct_core::{Error, ErrorKind};

    #[test]
    fn results_keep_the_order_and_the_first_error_wins() {
        for n_threads in [1, 2, 5] {
            let doubled = map((0..100).collect(), n_threads, |n: u32| Ok(n * 2)).unwrap();
            assert_eq!(doubled, (0..100).map(|n| n * 2).collect::<Vec<_>>());
            let odd = |n: u32| match n % 2 {
                0 => Ok(n),
                _ => Err(Error::new(ErrorKind::Data, "test", format!("{n} is odd"))),
            };
            assert_eq!(map(vec![2, 5, 4, 7], n_threads, odd).unwrap_err().message(), "5 is odd");
        }
    }
}
