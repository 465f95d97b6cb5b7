use aqueduct_primitives::{Budget, ByteCount};

use super::*;

fn stream(options: EventStreamOptions) -> EventStream {
    EventStream::new("news", options, Budget::new("live", ByteCount::mib(64))).unwrap()
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
