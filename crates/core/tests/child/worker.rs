//! A child process that tries what it may not.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use aqueduct_core::worker::{WorkerIo, WorkerTask, serve};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    serve(&[WorkerTask { name: "try", run }], &words)
}

fn run(io: &mut WorkerIo) -> io::Result<()> {
    while let Some(request) = io.next_request()? {
        let answer = match &request[..] {
            b"file" => told(std::fs::File::open("/proc/self/status")),
            b"socket" => told(std::net::TcpListener::bind("127.0.0.1:0")),
            b"program" => told(std::process::Command::new("/bin/true").spawn()),
            b"environment" => format!("{} variables", std::env::vars_os().count()),
            b"hoard" => hoard(),
            b"spin" => spin(),
            b"flood" => flood(io)?,
            b"die" => std::process::abort(),
            other => String::from_utf8_lossy(other).into_owned(),
        };
        io.send(answer.as_bytes())?;
    }
    Ok(())
}

fn told<T>(tried: io::Result<T>) -> String {
    tried.map_or_else(|_| "refused".into(), |_| "allowed".into())
}

fn hoard() -> String {
    let all: Vec<Vec<u8>> = (0..1000).map(|_| vec![1; 1 << 20]).collect();
    format!("{} MiB", all.len())
}

fn spin() -> String {
    let mut n = 0_u64;
    while std::hint::black_box(n) < u64::MAX {
        n = n.wrapping_add(1);
    }
    "came to an end".into()
}

/// Answers for ever.
fn flood(io: &mut WorkerIo) -> io::Result<String> {
    loop {
        io.send(&[7; 1 << 16])?;
    }
}
