//! Serves a tick each hundredth of a second, a hundred of them: `serve-events [ADDRESS]`, then `curl -N ADDRESS/streams/ticks`.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use aqueduct_primitives::ByteCount;
use futures::stream;
use serve_events::serve;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let ticks = stream::unfold(0, |n| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        (n < 100).then(|| (format!("{{\"n\":{n}}}"), n + 1))
    });
    let tell = |address: &str| _ = writeln!(std::io::stderr(), "http://{address}/streams/ticks");
    let n_sent = serve(ticks, &address, 1000, ByteCount::mib(64), tell).await?;
    writeln!(std::io::stdout(), "{n_sent} events")?;
    Ok(())
}
