//! What a budget does in cases that are too rare, or too particular, for the random model.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::{Budget, Reserve, ReserveError};
use crate::{ByteCount, Charged, Reservation};

fn bytes(n: u64) -> ByteCount {
    ByteCount::new(n)
}

fn poll(request: Pin<&mut Reserve>) -> Poll<Result<Reservation, ReserveError>> {
    request.poll(&mut Context::from_waker(Waker::noop()))
}

// MEM-1: what can never be served fails at once, also when others wait.
#[test]
fn larger_than_the_budget_fails_at_once() {
    let budget = Budget::new("small", bytes(10));
    let _all = budget.try_reserve(bytes(10)).unwrap();
    let mut waits = pin!(budget.reserve(bytes(1)));
    assert!(poll(waits.as_mut()).is_pending());
    let Poll::Ready(Err(error)) = poll(pin!(budget.reserve(bytes(11)))) else { panic!("it must not wait") };
    assert_eq!(error.to_string(), "11 asked of `small`, which has 10 in all");
}

// MEM-1: small requests do not starve a large one.
#[test]
fn small_requests_do_not_overtake_a_large_one() {
    let budget = Budget::new("fair", bytes(10));
    let held = budget.try_reserve(bytes(5)).unwrap();
    let mut large = pin!(budget.reserve(bytes(10)));
    let mut small = pin!(budget.reserve(bytes(1)));
    assert!(poll(large.as_mut()).is_pending());
    assert!(poll(small.as_mut()).is_pending(), "5 bytes are free, but the large request came first");
    assert!(matches!(budget.try_reserve(bytes(1)), Err(ReserveError::NotNow { .. })));
    drop(held);
    let Poll::Ready(Ok(large)) = poll(large) else { panic!("it was first in line") };
    assert!(poll(small.as_mut()).is_pending());
    drop(large);
    assert!(poll(small).is_ready());
}

// MEM-2: who holds data already never waits, and does not queue.
#[test]
fn growing_passes_by_the_queue() {
    let budget = Budget::new("grow", bytes(10));
    let mut held = budget.try_reserve(bytes(4)).unwrap();
    let mut waits = pin!(budget.reserve(bytes(8)));
    assert!(poll(waits.as_mut()).is_pending());
    held.try_grow(bytes(6)).unwrap();
    assert!(matches!(held.try_grow(bytes(1)), Err(ReserveError::NotNow { .. })));
    assert_eq!(held.size(), bytes(10));
    drop(held);
    assert!(poll(waits).is_ready());
}

#[test]
fn a_reservation_of_nothing_can_grow() {
    let budget = Budget::new("zero", bytes(10));
    let mut none = budget.try_reserve(ByteCount::ZERO).unwrap();
    none.try_grow(bytes(3)).unwrap();
    let mut split = none.split(ByteCount::ZERO);
    split.try_grow(bytes(7)).unwrap();
    assert_eq!(budget.free(), ByteCount::ZERO);
    assert!(Reservation::empty().try_grow(bytes(1)).is_err());
}

#[test]
fn polled_again_it_asks_anew() {
    let budget = Budget::new("again", bytes(10));
    let mut request = pin!(budget.reserve(bytes(5)));
    let first = poll(request.as_mut());
    let second = poll(request.as_mut());
    assert!(first.is_ready() && second.is_ready());
    assert_eq!(budget.free(), ByteCount::ZERO, "each reservation is paid for");
}

#[test]
fn pieces_of_several_budgets_go_back_to_their_own() {
    let (one, two) = (Budget::new("one", bytes(10)), Budget::new("two", bytes(10)));
    let mut mixed = one.try_reserve(bytes(4)).unwrap();
    mixed.merge(two.try_reserve(bytes(6)).unwrap());
    mixed.merge(one.try_reserve(bytes(1)).unwrap());
    assert_eq!(mixed.size(), bytes(11));
    let split = mixed.split(bytes(8));
    assert_eq!((split.size(), mixed.size()), (bytes(8), bytes(3)));
    drop(split);
    assert_eq!((one.free(), two.free()), (bytes(7), bytes(10)));
    mixed.shrink_to(bytes(1));
    assert_eq!((one.free(), two.free()), (bytes(9), bytes(10)));
    drop(mixed);
    assert_eq!(one.free(), bytes(10));
}

#[test]
fn a_carved_share_comes_back_when_all_of_it_is_gone() {
    let whole = Budget::new("whole", bytes(10));
    let share = whole.carve("share", bytes(6)).unwrap();
    let of_share = share.try_reserve(bytes(2)).unwrap();
    drop(share);
    assert_eq!(whole.free(), bytes(4), "somebody still holds bytes of the share");
    drop(of_share);
    assert_eq!(whole.free(), bytes(10));
}

// MEM-6: pressure pauses sources, and what is in flight drains.
#[test]
fn a_pause_serves_one_at_a_time() {
    let budget = Budget::new("paused", bytes(10));
    let _share = budget.carve("share", bytes(4)).unwrap();
    budget.set_paused(true);
    let first = budget.try_reserve(bytes(1)).expect("nobody holds any; waiting would be for ever");
    let mut second = pin!(budget.reserve(bytes(1)));
    assert!(poll(second.as_mut()).is_pending());
    drop(first);
    assert!(poll(second).is_ready());
}

#[test]
fn what_is_attached_lives_as_long_as_what_it_is_merged_into() {
    let budget = Budget::new("attached", bytes(10));
    let guard = Arc::new(());
    let mut first = Charged::new('a', budget.try_reserve(bytes(1)).unwrap());
    first.reservation_mut().attach(Arc::clone(&guard));
    let (_, reservation) = first.into_parts();
    let mut second = budget.try_reserve(bytes(1)).unwrap();
    second.merge(reservation);
    assert_eq!(Arc::strong_count(&guard), 2);
    drop(second);
    assert_eq!(Arc::strong_count(&guard), 1);
}

/// A waker may own the last of a task, and the task a reservation of the same budget.
struct WakerWithBytes(#[expect(dead_code, reason = "held to be dropped")] Reservation);

impl Wake for WakerWithBytes {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn dropping_a_waker_may_give_bytes_back() {
    let budget = Budget::new("wakers", bytes(10));
    let [first, second, _held] = [1, 1, 8].map(|n| budget.try_reserve(bytes(n)).unwrap());
    let mut request = Box::pin(budget.reserve(bytes(5)));
    for reservation in [first, second] {
        let waker = Waker::from(Arc::new(WakerWithBytes(reservation)));
        assert!(request.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(request);
    assert_eq!(budget.free(), bytes(2));
}
