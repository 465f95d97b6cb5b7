//! Random acts on a budget, each compared with a model that needs no locks, wakers or tickets.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use proptest::prelude::*;

use super::{Budget, Reserve, ReserveError};
use crate::{ByteCount, Reservation};

const TOTAL: u64 = 100;

/// Places are taken modulo how many there are, so that every act finds something to act on.
#[derive(Clone, Debug)]
enum Act {
    Ask(u64),
    Poll(usize),
    Cancel(usize),
    TryReserve(u64),
    Drop(usize),
    PanicHolding(usize),
    Grow(usize, u64),
    ShrinkTo(usize, u64),
    Split(usize, u64),
    Merge(usize, usize),
    Carve(u64),
    DropCarved(usize),
    Pause(bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let bytes = || prop_oneof![8 => 0..=TOTAL / 2, 2 => 0..=TOTAL, 1 => TOTAL..=TOTAL + 9];
    let at = || 0..16_usize;
    let act = prop_oneof![
        6 => bytes().prop_map(Act::Ask),
        10 => at().prop_map(Act::Poll),
        2 => at().prop_map(Act::Cancel),
        2 => bytes().prop_map(Act::TryReserve),
        4 => at().prop_map(Act::Drop),
        1 => at().prop_map(Act::PanicHolding),
        2 => (at(), bytes()).prop_map(|(at, bytes)| Act::Grow(at, bytes)),
        2 => (at(), bytes()).prop_map(|(at, bytes)| Act::ShrinkTo(at, bytes)),
        2 => (at(), bytes()).prop_map(|(at, bytes)| Act::Split(at, bytes)),
        2 => (at(), at()).prop_map(|(to, from)| Act::Merge(to, from)),
        1 => bytes().prop_map(Act::Carve),
        1 => at().prop_map(Act::DropCarved),
        1 => any::<bool>().prop_map(Act::Pause),
    ];
    proptest::collection::vec(act, 1..120)
}

/// What ought to be: plain numbers.
#[derive(Default)]
struct Model {
    held: Vec<u64>,
    carved: Vec<u64>,
    /// Requests that wait, by name, the first in line first.
    queue: VecDeque<(u64, u64)>,
    /// Requests that were served and not yet fetched.
    granted: Vec<(u64, u64)>,
    paused: bool,
    peak: u64,
}

impl Model {
    fn in_flight(&self) -> u64 {
        self.held.iter().sum::<u64>() + self.granted.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }

    fn free(&self) -> u64 {
        TOTAL - self.in_flight() - self.carved.iter().sum::<u64>()
    }

    fn fits(&self, bytes: u64) -> bool {
        bytes <= self.free() && (!self.paused || self.in_flight() == 0)
    }

    /// First come, first served: the line moves up only from its head.
    fn settle(&mut self) {
        self.note_peak();
        while let Some(&(name, bytes)) = self.queue.front()
            && self.fits(bytes)
        {
            self.queue.pop_front();
            self.granted.push((name, bytes));
            self.note_peak();
        }
    }

    fn note_peak(&mut self) {
        self.peak = self.peak.max(TOTAL - self.free());
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Request {
    name: u64,
    bytes: u64,
    future: Pin<Box<Reserve>>,
    woken: Arc<Woken>,
}

struct Pair {
    budget: Budget,
    requests: Vec<Request>,
    held: Vec<Reservation>,
    carved: Vec<Budget>,
    model: Model,
    next_name: u64,
}

impl Pair {
    fn new() -> Self {
        let budget = Budget::new("model", ByteCount::new(TOTAL));
        let (requests, held, carved) = (Vec::new(), Vec::new(), Vec::new());
        Self { budget, requests, held, carved, model: Model::default(), next_name: 0 }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Ask(bytes) => self.ask(bytes),
            Act::Poll(at) => self.poll(at),
            Act::Cancel(at) => self.cancel(at),
            Act::TryReserve(bytes) => self.try_reserve(bytes),
            Act::Drop(at) => drop(self.take_held(at)),
            Act::PanicHolding(at) => self.panic_holding(at),
            Act::Grow(at, bytes) => self.grow(at, bytes),
            Act::ShrinkTo(at, bytes) => self.shrink_to(at, bytes),
            Act::Split(at, bytes) => self.split(at, bytes),
            Act::Merge(to, from) => self.merge(to, from),
            Act::Carve(bytes) => self.carve(bytes),
            Act::DropCarved(at) => self.drop_carved(at),
            Act::Pause(paused) => {
                self.model.paused = paused;
                self.budget.set_paused(paused);
            }
        }
        self.model.settle();
    }

    fn ask(&mut self, bytes: u64) {
        let name = self.next_name;
        self.next_name += 1;
        let future = Box::pin(self.budget.reserve(ByteCount::new(bytes)));
        self.requests.push(Request { name, bytes, future, woken: Arc::default() });
    }

    fn poll(&mut self, at: usize) {
        let Some(at) = place(at, self.requests.len()) else { return };
        let Request { name, bytes, future, woken } = &mut self.requests[at];
        let expected = self.model.poll(*name, *bytes);
        let waker = Waker::from(Arc::clone(woken));
        let found = future.as_mut().poll(&mut Context::from_waker(&waker));
        match found {
            Poll::Pending => assert_eq!(expected, Poll::Pending),
            Poll::Ready(Ok(reservation)) => {
                assert_eq!(expected, Poll::Ready(true));
                assert_eq!(reservation.size().get(), *bytes);
                self.held.push(reservation);
                self.requests.remove(at);
            }
            Poll::Ready(Err(error)) => {
                assert!(matches!(error, ReserveError::TooLarge { .. }));
                assert_eq!(expected, Poll::Ready(false));
                self.requests.remove(at);
            }
        }
    }

    fn cancel(&mut self, at: usize) {
        let Some(at) = place(at, self.requests.len()) else { return };
        let name = self.requests.remove(at).name;
        self.model.queue.retain(|(waiting, _)| *waiting != name);
        self.model.granted.retain(|(granted, _)| *granted != name);
    }

    fn try_reserve(&mut self, bytes: u64) {
        let expected = self.model.queue.is_empty() && self.model.fits(bytes);
        let found = self.budget.try_reserve(ByteCount::new(bytes));
        assert_eq!(found.is_ok(), expected);
        if let Ok(reservation) = found {
            self.held.push(reservation);
            self.model.held.push(bytes);
        }
    }

    fn take_held(&mut self, at: usize) -> Option<Reservation> {
        let at = place(at, self.held.len())?;
        self.model.held.remove(at);
        Some(self.held.remove(at))
    }

    fn panic_holding(&mut self, at: usize) {
        let reservation = self.take_held(at);
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _held = reservation;
            resume_unwind(Box::new("while holding"));
        }));
        assert!(panicked.is_err());
    }

    fn grow(&mut self, at: usize, bytes: u64) {
        let Some(at) = place(at, self.held.len()) else { return };
        let expected = bytes <= self.model.free();
        assert_eq!(self.held[at].try_grow(ByteCount::new(bytes)).is_ok(), expected);
        self.model.held[at] += if expected { bytes } else { 0 };
    }

    fn shrink_to(&mut self, at: usize, bytes: u64) {
        let Some(at) = place(at, self.held.len()) else { return };
        self.held[at].shrink_to(ByteCount::new(bytes));
        self.model.held[at] = self.model.held[at].min(bytes);
    }

    fn split(&mut self, at: usize, bytes: u64) {
        let Some(at) = place(at, self.held.len()) else { return };
        let moved = self.model.held[at].min(bytes);
        let split = self.held[at].split(ByteCount::new(bytes));
        self.held.push(split);
        self.model.held[at] -= moved;
        self.model.held.push(moved);
    }

    fn merge(&mut self, to: usize, from: usize) {
        let Some(from) = place(from, self.held.len()) else { return };
        let other = self.held.remove(from);
        let bytes = self.model.held.remove(from);
        match place(to, self.held.len()) {
            Some(to) => {
                self.held[to].merge(other);
                self.model.held[to] += bytes;
            }
            None => drop(other),
        }
    }

    fn carve(&mut self, bytes: u64) {
        let expected = self.model.queue.is_empty() && self.model.fits(bytes);
        let found = self.budget.carve("share", ByteCount::new(bytes));
        assert_eq!(found.is_ok(), expected);
        if let Ok(share) = found {
            self.carved.push(share);
            self.model.carved.push(bytes);
        }
    }

    fn drop_carved(&mut self, at: usize) {
        let Some(at) = place(at, self.carved.len()) else { return };
        self.carved.remove(at);
        self.model.carved.remove(at);
    }

    /// Compares everything that can be seen, and MEM-1 without the model.
    fn check(&self) {
        let held: u64 = self.held.iter().map(|reservation| reservation.size().get()).sum();
        let carved: u64 = self.carved.iter().map(|share| share.total().get()).sum();
        let granted: u64 = self.model.granted.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(self.budget.free().get() + held + carved + granted, TOTAL, "MEM-1");
        assert_eq!(self.budget.free().get(), self.model.free(), "free bytes");
        assert_eq!(self.budget.n_waiting(), self.model.queue.len(), "requests in line");
        assert_eq!(self.budget.peak().get(), self.model.peak, "peak");
        for Request { name, woken, .. } in &self.requests {
            let is_granted = self.model.granted.iter().any(|(granted, _)| granted == name);
            assert_eq!(woken.0.load(Ordering::Relaxed), is_granted, "woken when served, and only then");
        }
    }
}

impl Model {
    /// `Ready(true)`: it has its bytes. `Ready(false)`: it never can.
    fn poll(&mut self, name: u64, bytes: u64) -> Poll<bool> {
        if bytes > TOTAL {
            return Poll::Ready(false);
        }
        if self.queue.iter().any(|(waiting, _)| *waiting == name) {
            return Poll::Pending;
        }
        let was_granted = self.granted.iter().any(|(granted, _)| *granted == name);
        let is_next = self.queue.is_empty() && self.fits(bytes);
        if !(was_granted || is_next) {
            self.queue.push_back((name, bytes));
            return Poll::Pending;
        }
        self.granted.retain(|(granted, _)| *granted != name);
        self.held.push(bytes);
        Poll::Ready(true)
    }
}

fn place(at: usize, len: usize) -> Option<usize> {
    at.checked_rem(len)
}

proptest! {
    // MEM-1, I1, I8: after every act, whatever came before it.
    #[test]
    fn a_budget_does_what_its_model_does(acts in acts()) {
        let mut pair = Pair::new();
        for act in acts {
            pair.act(act);
            pair.check();
        }
        let Pair { budget, requests, held, carved, .. } = pair;
        drop((requests, held, carved));
        prop_assert_eq!(budget.free(), budget.total());
    }
}

/// The guard can fail: bytes that never come back are missed at once.
#[test]
#[should_panic(expected = "MEM-1")]
fn a_leak_is_found() {
    let mut pair = Pair::new();
    pair.act(Act::TryReserve(10));
    std::mem::forget(pair.take_held(0));
    pair.check();
}

/// The guard can fail: a model that serves the last first disagrees with the budget, so a budget that does
/// would disagree with the model.
#[test]
#[should_panic(expected = "woken when served")]
fn a_line_that_does_not_move_in_order_is_found() {
    let mut pair = Pair::new();
    pair.act(Act::TryReserve(TOTAL));
    for bytes in [10, 10] {
        pair.act(Act::Ask(bytes));
        pair.act(Act::Poll(pair.requests.len() - 1));
    }
    pair.model.queue.make_contiguous().reverse();
    pair.act(Act::ShrinkTo(0, TOTAL - 10));
    pair.check();
}
