use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use aqueduct_primitives::{Budget, ByteCount};

use super::*;

fn stream(options: EventStreamOptions) -> EventStream {
    within(ByteCount::mib(64), options)
}

fn within(memory: ByteCount, options: EventStreamOptions) -> EventStream {
    EventStream::new("news", options, Budget::new("live", memory)).unwrap()
}

// T14, reliability.md 61
#[tokio::test]
async fn a_client_is_told_what_was_dropped_between_its_asking_and_its_coming_in() {
    let stream = stream(EventStreamOptions::default());
    let send = async |n: usize| {
        for _ in 0..n {
            stream.send(Event { name: "row", data: &[b'x'; 100_000] }).await.unwrap();
        }
    };
    send(10).await;
    let start = stream.shared.start(Some("5")).unwrap();
    send(50).await;
    let (reader, first) = stream.shared.enter(start);
    assert!(reader.first_id() > 11);
    let (first, to) = (String::from_utf8(first).unwrap(), reader.first_id() - 1);
    assert!(first.ends_with(&format!("event: lagged\ndata: {{\"from\":6,\"to\":{to}}}\n\n")), "{first}");
}

#[tokio::test]
async fn small_events_are_kept_until_all_wait_for_the_one_that_does_not_read() {
    let options = EventStreamOptions {
        queue: 50_000,
        max_clients: 10,
        slow_client: SlowClient::Wait,
        ..EventStreamOptions::default()
    };
    for memory in [2, 3, 64].map(ByteCount::mib) {
        let stream = within(memory.saturating_add(ByteCount::kib(110)), options.clone());
        let (_reader, _) = stream.shared.enter(stream.shared.start(None).unwrap());
        let cx = &mut Context::from_waker(Waker::noop());
        for n in 1..=options.queue + 1 {
            let mut send = pin!(tokio::task::unconstrained(stream.send(Event { name: "row", data: b"{}" })));
            if send.as_mut().poll(cx).is_pending() {
                assert!(n > 500, "{n} events may wait with {memory}");
                break;
            }
        }
        assert_eq!(stream.shared.ring.oldest_id(), 1, "dropped while it had room, with {memory}");
    }
}

#[test]
fn a_stream_is_told_of_as_long_as_it_is_mounted() {
    let (stream, mounts) = (stream(EventStreamOptions::default()), Mounts::default());
    let mounted = stream.mount(&mounts, "/streams/news").unwrap();
    assert_eq!(mounts.stream_stats().len(), 1);
    drop(mounted);
    assert!(mounts.stream_stats().is_empty());
}

// Contract "sse": after a crash what was not committed is sent again, after a `restart` event
#[tokio::test]
async fn who_has_what_was_never_committed_is_told_restart_however_late_it_comes() {
    // Events up to 399 were committed, and others sent when the process was killed.
    let options = EventStreamOptions { first_id: 1000, n_uncommitted: 600, ..EventStreamOptions::default() };
    let stream = stream(options);
    for _ in 0..50 {
        stream.send(Event { name: "row", data: b"{}" }).await.unwrap();
    }
    let told = |last: &str| {
        let (reader, first) = stream.shared.enter(stream.shared.start(Some(last)).unwrap());
        let first = String::from_utf8(first).unwrap();
        (reader.first_id(), first.split_once('\n').unwrap().1.to_owned())
    };
    assert_eq!(told("399"), (1000, String::new()));
    assert_eq!(told("1010"), (1011, String::new()));
    let lagged = "event: lagged\ndata: {\"from\":301,\"to\":399}\n\n";
    assert_eq!(told("300"), (1000, lagged.to_owned()));
    for last in ["400", "500", "999", "1050"] {
        let restart = format!("event: restart\ndata: {{\"last\":{last},\"next\":1050}}\n\n");
        assert_eq!(told(last), (1000, restart));
    }
}
