//! nginx with the module nchan: a channel with a publisher and subscribers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Case;
use super::side::{Side, event};
use crate::bench::Bench;
use crate::live::kernel::children;
use crate::live::{PATIENCE, free_address};
use crate::process::{check, command};
use crate::text;

const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A line of an answer to the publisher, and its body.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// It runs. Dropping it ends it, workers and all.
pub(super) struct Nchan {
    child: Child,
    folder: PathBuf,
    address: String,
}

impl Nchan {
    /// Starts it.
    ///
    /// # Errors
    /// It is not installed, or does not listen.
    pub(super) fn start(bench: &Bench) -> Result<Self> {
        ensure!(
            PathBuf::from(MODULE).exists(),
            "{MODULE} is not there: install nginx and nchan (Debian: nginx, libnginx-mod-nchan)"
        );
        let address = free_address()?;
        let folder = bench.output("nchan");
        text::make_dir(&folder.join("tmp"))?;
        text::write(&folder.join("nginx.conf"), &settings(&address))?;
        let child = nginx(&folder).spawn().context("nginx cannot be started")?;
        let mut nchan = Self { child, folder, address };
        let started = Instant::now();
        while TcpStream::connect(&nchan.address).is_err() {
            if let Some(status) = nchan.child.try_wait()? {
                bail!("nginx has ended: {status}");
            }
            ensure!(started.elapsed() < PATIENCE, "nginx does not listen after {PATIENCE:?}");
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(nchan)
    }
}

fn nginx(folder: &PathBuf) -> std::process::Command {
    let mut nginx = command("nginx", folder);
    nginx.arg("-p").arg(folder).args(["-e", "error.log", "-c", "nginx.conf"]);
    nginx
}

/// A worker for each core of two, room for all subscribers, and a buffer that holds every event of a case.
fn settings(address: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = temporary.map(|name| format!("  {name}_temp_path tmp;\n")).concat();
    format!(
        "load_module {MODULE};\n\
         worker_processes 2;\n\
         daemon off;\n\
         pid nginx.pid;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n\
         {temporary}\
         \x20 access_log off;\n\
         \x20 keepalive_requests 1000000;\n\
         \x20 nchan_shared_memory_size 512M;\n\
         \x20 server {{\n\
         \x20   listen {address} backlog=4096;\n\
         \x20   location = /publish {{ nchan_publisher; nchan_channel_id bench; nchan_message_buffer_length 10000; \
         nchan_message_timeout 5m; }}\n\
         \x20   location = /subscribe {{ nchan_subscriber eventsource; nchan_channel_id bench; \
         nchan_subscriber_first_message newest; }}\n\
         \x20 }}\n\
         }}\n"
    )
}

impl Side for Nchan {
    fn name(&self) -> &'static str {
        "nginx with nchan"
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn path(&self) -> &str {
        "/subscribe"
    }

    fn pids(&self) -> Result<Vec<u32>> {
        let master = self.child.id();
        Ok([vec![master], children(master)?].concat())
    }

    /// One request for each, over one connection.
    fn publish(&mut self, case: Case) -> Result<()> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        let mut answers = BufReader::new(stream.try_clone()?);
        for n in 0..case.n_events {
            let data = event(n, case);
            let length = data.len();
            let request = format!(
                "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{data}"
            );
            stream.write_all(request.as_bytes())?;
            take_answer(&mut answers)?;
        }
        Ok(())
    }
}

fn take_answer(answers: &mut impl BufRead) -> Result<()> {
    let mut answers = answers.take(MAX_ANSWER_BYTES);
    let mut line = String::new();
    answers.read_line(&mut line)?;
    ensure!(line.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "nchan answers {line}");
    let mut length = 0;
    while !line.trim().is_empty() {
        line.clear();
        answers.read_line(&mut line)?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    std::io::copy(&mut answers.take(length), &mut std::io::sink())?;
    Ok(())
}

impl Drop for Nchan {
    fn drop(&mut self) {
        // Asked like this it ends its workers; killed, it leaves them behind.
        if check(nginx(&self.folder).args(["-s", "stop"])).is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_whole_and_a_refusal_told() {
        let mut answers: &[u8] =
            b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 202 Accepted\r\n\r\nHTTP/1.1 507 Full\r\n\r\n";
        assert!(take_answer(&mut answers).is_ok() && take_answer(&mut answers).is_ok());
        assert!(take_answer(&mut answers).unwrap_err().to_string().contains("507"));
    }
}
