//! Prints how long the body of each URL is, ten downloads at a time: `window-urls URL...`

use std::error::Error;
use std::io::Write;

use aqueduct_primitives::Tasks;
use futures::StreamExt;
use window_urls::download;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let tasks = Tasks::default();
    let urls: Vec<String> = std::env::args().skip(1).collect();
    let mut bodies = download(urls.into_iter(), 10, &tasks);
    while let Some(done) = bodies.next().await {
        let done = done?;
        match &*done {
            (url, Ok(body)) => writeln!(std::io::stdout(), "{} {url}", body.len())?,
            (url, Err(error)) => writeln!(std::io::stderr(), "{url}: {error}")?,
        }
    }
    Ok(())
}
