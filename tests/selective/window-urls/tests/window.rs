//! Against a server that counts what is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aqueduct_primitives::{Task, Tasks};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use window_urls::download;

#[derive(Default)]
struct Server {
    n_open: AtomicUsize,
    most_open: AtomicUsize,
    n_asked: AtomicUsize,
}

impl Server {
    async fn start(self: &Arc<Self>, tasks: &Tasks) -> (String, Task<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = Arc::clone(self);
        let accepting = tasks.spawn({
            let tasks = tasks.clone();
            async move {
                let mut open = Vec::new();
                while let Ok((client, _)) = listener.accept().await {
                    let server = Arc::clone(&server);
                    open.retain(|task: &Task<()>| !task.is_finished());
                    open.push(tasks.spawn(async move { server.answer(client).await }));
                }
            }
        });
        (base, accepting)
    }

    /// `/N` gives N bytes, and `/404` nothing.
    async fn answer(&self, mut client: TcpStream) {
        let open = self.n_open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_open.fetch_max(open, Ordering::SeqCst);
        self.n_asked.fetch_add(1, Ordering::SeqCst);
        let mut request = [0; 1024];
        let n_read = client.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..n_read]);
        let n_bytes: usize = request.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let status = if n_bytes == 404 { "404 Not Found" } else { "200 OK" };
        let answer = format!("HTTP/1.0 {status}\r\n\r\n{}", "x".repeat(n_bytes));
        self.n_open.fetch_sub(1, Ordering::SeqCst);
        client.write_all(answer.as_bytes()).await.unwrap();
    }
}

// S0.1, S0.4, S0.7: never more than the window, as the server counts; a failure is skipped, the rest goes on.
#[tokio::test]
async fn the_server_never_sees_more_than_the_window() {
    let tasks = Tasks::default();
    let server = Arc::new(Server::default());
    let (base, accepting) = server.start(&tasks).await;
    let urls = (350..450).map(move |n| format!("{base}/{n}"));
    let mut bodies = download(urls, 5, &tasks);
    let (mut n_bytes, mut failed, mut n_taken) = (0, Vec::new(), 0);
    while let Some(done) = bodies.next().await {
        let done = done.unwrap();
        n_taken += 1;
        assert!(server.n_asked.load(Ordering::SeqCst) <= n_taken + 4, "this result still has its place");
        match &*done {
            (_, Ok(body)) => n_bytes += body.len(),
            (url, Err(error)) => failed.push(format!("{} {error}", url.rsplit('/').next().unwrap())),
        }
    }
    assert_eq!(n_bytes, (350..450).sum::<usize>() - 404);
    assert_eq!(failed, ["404 status 404"]);
    assert!(server.most_open.load(Ordering::SeqCst) <= 5);
    drop(accepting);
    tasks.join().await;
}

// S0.10: an early stop leaves nothing running.
#[tokio::test]
async fn an_early_stop_leaves_no_download() {
    let tasks = Tasks::default();
    let server = Arc::new(Server::default());
    let (base, accepting) = server.start(&tasks).await;
    let mut bodies = download((0..1_000_000).map(move |_| format!("{base}/10")), 5, &tasks);
    drop(bodies.next().await);
    bodies.shutdown().await;
    drop(accepting);
    tasks.join().await;
    assert!(server.n_asked.load(Ordering::SeqCst) <= 6);
}
