//! A static file server for benches: HTTP/1.1 (RFC 9112), GET and HEAD, connections kept open, files handed to
//! the kernel. Serves one machine's own programs; it trusts them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The longest request head. No peer sends more than a few hundred bytes.
const MAX_HEAD_BYTES: u64 = 16 * 1024;

/// How long a connection may say nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves the files of a folder until the process ends.
#[derive(Debug)]
pub(crate) struct FileServer {
    address: SocketAddr,
}

impl FileServer {
    /// A server at a free port of the loopback device.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn start(folder: PathBuf) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port for the file server")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let folder = folder.clone();
                // A connection that breaks is its peer's to tell; the outcome of the bench shows it.
                thread::spawn(move || serve(&stream, &folder).ok());
            }
        });
        Ok(Self { address })
    }

    /// The URL of a file.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// The URL of the folder.
    pub(crate) fn root(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(stream: &TcpStream, folder: &Path) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_write_timeout(Some(IDLE_TIMEOUT))?;
    let mut reader = BufReader::new(stream);
    while let Some((method, name)) = request(&mut reader)? {
        answer(stream, &method, &folder.join(name))?;
    }
    Ok(())
}

/// Method and file name of the next request; nothing when the peer has closed.
fn request(reader: &mut impl BufRead) -> Result<Option<(String, String)>> {
    let mut head = reader.take(MAX_HEAD_BYTES);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().context("no method")?, words.next().context("no target")?);
    while line.trim_end() != "" {
        line.clear();
        ensure!(head.read_line(&mut line)? > 0, "the head is cut off, or longer than {MAX_HEAD_BYTES} bytes");
    }
    let name = target.rsplit('/').next().unwrap_or_default().to_owned();
    Ok(Some((method, name)))
}

fn answer(mut stream: &TcpStream, method: &str, path: &Path) -> Result<()> {
    let Some(file) = File::open(path).ok().filter(|_| path.is_file()) else {
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(());
    };
    let n_bytes = file.metadata()?.len();
    // An object store's client wants to know when the file last changed.
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {n_bytes}\r\n\
         Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    if method == "HEAD" {
        return Ok(());
    }
    send(stream, &file, n_bytes)
}

fn send(stream: &TcpStream, file: &File, n_bytes: u64) -> Result<()> {
    let mut offset = 0;
    while offset < n_bytes {
        let rest = usize::try_from(n_bytes - offset)?;
        // `sendfile` moves the offset itself.
        let n_sent = rustix::fs::sendfile(stream, file, Some(&mut offset), rest)?;
        ensure!(n_sent > 0, "the file became shorter");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(server: &FileServer, requests: &str) -> String {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(requests.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn one_connection_serves_several_files_and_no_other_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.bin"), "content of a").unwrap();
        let server = FileServer::start(folder.path().to_path_buf()).unwrap();
        assert_eq!(server.url("a.bin"), format!("{}/a.bin", server.root()));
        let requests = "GET /a.bin HTTP/1.1\r\nHost: x\r\n\r\nHEAD /a.bin HTTP/1.1\r\n\r\nGET /../etc/passwd HTTP/1.1\r\n\r\n";
        let answers = exchange(&server, requests);
        assert_eq!(answers.matches("200 OK").count(), 2, "{answers}");
        assert_eq!(answers.matches("content of a").count(), 1, "{answers}");
        assert!(answers.ends_with("404 Not Found\r\nContent-Length: 0\r\n\r\n"), "{answers}");
    }
}
