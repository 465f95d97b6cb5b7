use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn ring(queue: u64, slow: SlowReader) -> Ring {
    let limits = RingLimits { queue, slow, ..RingLimits::default() };
    Ring::new(&Budget::new("test", ByteCount::mib(16)), limits, 1).unwrap()
}

/// Events of so many bytes each, every one of its own number.
fn events(first_id: u64, sizes: &[usize]) -> Events {
    let mut events = Events::new();
    for (id, size) in (first_id..).zip(sizes) {
        events.add(usize::MAX, |bytes| bytes.extend(text(id, *size)));
    }
    events
}

fn text(id: u64, size: usize) -> Vec<u8> {
    id.to_le_bytes().iter().copied().cycle().take(size.max(8)).collect()
}

/// Takes at most so many bytes.
fn take(reader: &mut Reader, max_bytes: usize, into: &mut Vec<u8>) -> Next {
    let mut runs = Runs::default();
    let next = reader.next(max_bytes, &mut runs);
    let before = into.len();
    runs.pieces().for_each(|piece| into.extend_from_slice(piece));
    drop(runs);
    reader.advance_if_any(into.len() - before);
    next
}

impl Reader {
    fn advance_if_any(&mut self, n_bytes: usize) {
        if n_bytes > 0 {
            self.advance(n_bytes);
        }
    }
}

fn lag(ring: &Ring) -> u64 {
    ring.stats().max_lag_events
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

// S1.1, RING-1
#[tokio::test(start_paused = true)]
async fn a_queue_of_10_never_holds_more_though_100_events_are_sent() {
    let ring = ring(10, SlowReader::Skip);
    let mut reader = ring.read_from(1);
    for id in 1..=100 {
        reader.blocked();
        let events = events(id, &[100]);
        let mut sending = pin!(ring.send(events));
        while poll_once(sending.as_mut()).is_pending() {
            assert!(lag(&ring) <= 10);
            tokio::time::sleep(Duration::from_millis(100)).await;
            if reader.is_asked() {
                reader.blocked();
            }
        }
        assert!(lag(&ring) <= 10, "{} wait", lag(&ring));
    }
    let mut bytes = Vec::new();
    assert_eq!(take(&mut reader, usize::MAX, &mut bytes), Next::Lagged { from: 1, to: 90 });
    while take(&mut reader, usize::MAX, &mut bytes) == Next::Bytes {}
    assert_eq!(bytes, (91..=100).flat_map(|id| text(id, 100)).collect::<Vec<_>>());
}

// RING-4
#[tokio::test(start_paused = true)]
async fn the_writer_waits_once_for_a_reader_whose_peer_takes_nothing_and_cuts_it_off() {
    let ring = ring(2, SlowReader::Cut);
    let (mut stuck, mut well) = (ring.read_from(1), ring.read_from(1));
    ring.send(events(1, &[8, 8])).await.unwrap();
    take(&mut well, usize::MAX, &mut Vec::new());
    stuck.blocked();
    let mut sending = pin!(ring.send(events(3, &[8])));
    assert!(poll_once(sending.as_mut()).is_pending(), "there is still hope");
    tokio::time::advance(Duration::from_millis(99)).await;
    assert!(poll_once(sending.as_mut()).is_pending() && !stuck.is_asked());
    tokio::time::advance(Duration::from_millis(2)).await;
    assert!(poll_once(sending.as_mut()).is_pending() && stuck.is_asked(), "it is asked first");
    stuck.blocked();
    assert!(poll_once(sending.as_mut()).is_ready());
    assert_eq!(take(&mut stuck, usize::MAX, &mut Vec::new()), Next::Cut(Cut::Slow));
    assert_eq!(take(&mut well, usize::MAX, &mut Vec::new()), Next::Bytes);
    assert_eq!(ring.stats().n_cut, 1);
}

// RING-4
#[tokio::test(start_paused = true)]
async fn a_reader_that_is_not_called_is_not_slow_and_one_that_takes_when_asked_is_well() {
    let ring = ring(2, SlowReader::Cut);
    let mut reader = ring.read_from(1);
    ring.send(events(1, &[8, 8])).await.unwrap();
    let mut sending = pin!(ring.send(events(3, &[8])));
    assert!(poll_once(sending.as_mut()).is_pending());
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(poll_once(sending.as_mut()).is_pending() && !reader.is_asked());
    let mut bytes = Vec::new();
    assert_eq!(take(&mut reader, usize::MAX, &mut bytes), Next::Bytes);
    assert!(poll_once(sending.as_mut()).is_ready());
    assert_eq!((bytes.len(), ring.stats().n_cut), (16, 0));
}

#[tokio::test(start_paused = true)]
async fn a_byte_now_and_then_is_no_progress() {
    let ring = ring(100, SlowReader::Cut);
    let mut reader = ring.read_from(1);
    ring.send(events(1, &[8; 100])).await.unwrap();
    reader.blocked();
    let mut n_events = 100;
    for _ in 0..20 {
        take(&mut reader, 8, &mut Vec::new());
        reader.blocked();
        n_events += 1;
        let events = events(n_events, &[8]);
        let mut sending = pin!(ring.send(events));
        while poll_once(sending.as_mut()).is_pending() {
            tokio::time::advance(Duration::from_millis(10)).await;
            if reader.is_asked() {
                reader.blocked();
            }
        }
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert_eq!(ring.stats().n_cut, 0, "it had room");
    let more = vec![8; 200];
    let mut sending = pin!(ring.send(events(n_events + 1, &more)));
    assert!(poll_once(sending.as_mut()).is_pending());
    take(&mut reader, 8, &mut Vec::new());
    assert!(poll_once(sending.as_mut()).is_pending() && reader.is_asked());
    reader.blocked();
    assert!(poll_once(sending.as_mut()).is_ready());
    assert_eq!(ring.stats().n_cut, 1);
}

#[tokio::test]
async fn a_reader_that_is_moved_on_gets_the_rest_of_the_event_it_is_in() {
    let limits = RingLimits { bytes: ByteCount::kib(4), slow: SlowReader::Skip, ..RingLimits::default() };
    let ring = Ring::new(&Budget::new("test", ByteCount::mib(1)), limits, 1).unwrap();
    let mut reader = ring.read_from(1);
    let mut bytes = Vec::new();
    ring.send(events(1, &[1000])).await.unwrap();
    assert_eq!(take(&mut reader, 400, &mut bytes), Next::Bytes);
    for id in 2..=9 {
        ring.send(events(id, &[1000])).await.unwrap();
    }
    assert_eq!(take(&mut reader, usize::MAX, &mut bytes), Next::Bytes);
    assert_eq!(bytes, text(1, 1000));
    let Next::Lagged { from: 2, to } = take(&mut reader, 1, &mut bytes) else { panic!("not told") };
    bytes.clear();
    take(&mut reader, 1000, &mut bytes);
    assert_eq!(bytes, text(to + 1, 1000));
}

#[tokio::test]
async fn levels_are_crossed_once_until_the_queue_is_all_but_empty() {
    let ring = ring(10, SlowReader::Skip);
    let mut reader = ring.read_from(1);
    let mut levels = Vec::new();
    for id in 1..=9 {
        levels.extend(ring.send(events(id, &[8])).await.unwrap().iter().map(|crossing| crossing.level));
    }
    assert_eq!(levels, [Level::Warn, Level::Critical]);
    take(&mut reader, 24, &mut Vec::new());
    assert_eq!(ring.send(events(10, &[8])).await.unwrap(), []);
    while take(&mut reader, 24, &mut Vec::new()) == Next::Bytes {}
    assert_eq!(ring.send(events(11, &[8; 5])).await.unwrap().len(), 1);
    assert_eq!((ring.stats().n_warned, ring.stats().n_critical), (2, 1));
}

#[tokio::test]
async fn a_closed_ring_gives_what_it_has_and_takes_no_more() {
    let ring = ring(10, SlowReader::Cut);
    let mut reader = ring.read_from(1);
    ring.send(events(1, &[8])).await.unwrap();
    ring.close_with(events(2, &[8]));
    assert_eq!(ring.send(events(3, &[8])).await, Err(RingClosed));
    let mut bytes = Vec::new();
    assert_eq!(take(&mut reader, usize::MAX, &mut bytes), Next::Bytes);
    assert_eq!((take(&mut reader, 1, &mut bytes), bytes.len()), (Next::End, 16));
    assert_eq!(take(&mut ring.read_from(0), 8, &mut Vec::new()), Next::Bytes);
}

#[tokio::test(start_paused = true)]
async fn what_a_call_that_was_given_up_left_unseen_is_shown_by_the_next() {
    let ring = ring(2, SlowReader::Cut);
    let mut reader = ring.read_from(1);
    {
        let mut given_up = pin!(ring.send(events(1, &[8; 3])));
        assert!(poll_once(given_up.as_mut()).is_pending());
    }
    let mut bytes = Vec::new();
    take(&mut reader, usize::MAX, &mut bytes);
    assert_eq!(bytes.len(), 16);
    assert!(poll_once(pin!(ring.send(events(4, &[8])))).is_ready());
    take(&mut reader, usize::MAX, &mut bytes);
    take(&mut reader, usize::MAX, &mut bytes);
    assert_eq!(bytes, (1..=4).flat_map(|id| text(id, 8)).collect::<Vec<_>>());
}

#[derive(Clone, Debug)]
enum Step {
    Send(Vec<usize>),
    Enter(u64),
    Take(usize, usize),
    Blocked(usize),
    Leave(usize),
    Wait,
}

/// What [`Step::Send`] sends at once, without the last event.
const MAX_AT_ONCE: ByteCount = ByteCount::new(10 * 299);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec(8..300_usize, 1..12).prop_map(Step::Send),
        1 => (0..200_u64).prop_map(Step::Enter),
        4 => (0..4_usize, 1..2000_usize).prop_map(|(reader, n)| Step::Take(reader, n)),
        2 => (0..4_usize).prop_map(Step::Blocked),
        1 => (0..4_usize).prop_map(Step::Leave),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..120)
}

/// What a reader must get: bytes of events in order, from one on.
struct Model {
    reader: Reader,
    /// The event that it takes next, and how much of it was taken.
    at: u64,
    offset: usize,
    is_cut: bool,
    /// What came before it came in it may lose, and more where who is slow is moved on.
    may_lose_before: u64,
}

impl Model {
    /// Takes, and checks every byte against what was sent (RING-3).
    fn take(&mut self, max_bytes: usize, sizes: &VecDeque<usize>) -> Result<(), TestCaseError> {
        let mut bytes = Vec::new();
        match take(&mut self.reader, max_bytes, &mut bytes) {
            Next::Lagged { from, to } => {
                prop_assert_eq!((from, self.offset), (self.at, 0), "lost from another place");
                prop_assert!(to >= from);
                prop_assert!(to < self.may_lose_before, "{} is lost within the limits", to);
                self.at = to + 1;
            }
            Next::Cut(_) => self.is_cut = true,
            _ => {}
        }
        for byte in bytes {
            let size = sizes[usize::try_from(self.at - 1).unwrap()];
            prop_assert_eq!(byte, text(self.at, size)[self.offset], "event {} byte {}", self.at, self.offset);
            self.offset += 1;
            if self.offset == size {
                (self.at, self.offset) = (self.at + 1, 0);
            }
        }
        Ok(())
    }
}

proptest! {
    // RING-1, RING-2, RING-3; who is within its limits loses nothing
    #[test]
    fn whatever_comes_readers_get_all_in_order_or_are_told(steps in steps(), skips: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let slow = if skips { SlowReader::Skip } else { SlowReader::Cut };
            let queue_bytes = ByteCount::kib(2);
            let bytes = RingLimits::least_bytes(10, queue_bytes, MAX_AT_ONCE);
            let limits = RingLimits { bytes, queue: 10, queue_bytes, slow, ..RingLimits::default() };
            let ring = Ring::new(&Budget::new("test", ByteCount::kib(64)), limits, 1).unwrap();
            let mut sizes = VecDeque::new();
            let mut readers: Vec<Model> = Vec::new();
            for step in steps {
                match step {
                    Step::Send(new) => {
                        let sending = ring.send(events(ring.next_id(), &new));
                        sizes.extend(&new);
                        let mut sending = pin!(sending);
                        while poll_once(sending.as_mut()).is_pending() {
                            tokio::time::advance(Duration::from_millis(101)).await;
                            // One that is asked takes nothing; one that is not waits to be called.
                            readers.iter_mut().for_each(|one| one.reader.blocked());
                        }
                    }
                    Step::Enter(from) if readers.len() < 4 => {
                        let reader = ring.read_from(from);
                        let at = reader.next_id();
                        let may_lose_before = if skips { u64::MAX } else { ring.next_id() };
                        readers.push(Model { reader, at, offset: 0, is_cut: false, may_lose_before });
                    }
                    Step::Take(reader, n) => if let Some(one) = readers.get_mut(reader) { one.take(n, &sizes)?; },
                    Step::Blocked(reader) => if let Some(one) = readers.get_mut(reader) { one.reader.blocked(); },
                    Step::Leave(reader) if reader < readers.len() => drop(readers.swap_remove(reader)),
                    Step::Wait => tokio::time::advance(Duration::from_millis(50)).await,
                    _ => {}
                }
                let stats = ring.stats();
                prop_assert!(stats.held <= bytes, "{} held", stats.held);
                if !readers.iter().any(|one| one.is_cut) {
                    prop_assert!(skips || stats.n_cut > 0 || stats.max_lag_events <= 10, "{}", stats.max_lag_events);
                    prop_assert!(!skips || (stats.max_lag_events <= 10 && stats.max_lag_bytes <= 2048));
                }
            }
            ring.close();
            for mut one in readers {
                while !one.is_cut && one.at < ring.next_id() { one.take(usize::MAX, &sizes)?; }
                prop_assert!(one.is_cut || one.at == ring.next_id(), "{} of {}", one.at, ring.next_id());
            }
            Ok(())
        })?;
    }
}
