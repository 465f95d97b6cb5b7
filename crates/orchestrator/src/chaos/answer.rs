//! What a fault does to an answer.

use std::ops::Range;

use aqueduct_chaos::{Answer, Body, Request};
use aqueduct_primitives::ByteCount;

use super::script::{Chunked, Fault, Route, WrongLength};

/// A body in chunks is made in memory, and larger ones are not.
const MAX_CHUNKED_BYTES: u64 = 64 << 20;
const CHUNK_BYTES: usize = 16 << 10;
const ZEROS: &[u8] = &[0; 16 << 10];

/// One request at a route.
pub(super) struct Asked<'a> {
    pub(super) route: &'a Route,
    pub(super) request: &'a Request,
    /// What goes wrong; `None`: all is well.
    pub(super) fault: Option<&'a Fault>,
    /// Which request with this fault it is, from 1.
    pub(super) nth: u64,
}

impl Asked<'_> {
    /// The answer, with what the file holds; `None`: there is no such file. Reads a byte of it at most. Blocks.
    pub(super) fn answer(&self, body: Option<Body>) -> Answer {
        let default = Fault::default();
        let fault = self.fault.unwrap_or(&default);
        if let Some(raw) = &fault.raw {
            return slowed(Answer::raw(raw.clone().into_bytes()), fault);
        }
        if fault.hang {
            return Answer::silence();
        }
        let answer = match (self.leads_to(fault), fault.status.is_some() || fault.text.is_some()) {
            (Some(target), _) => self
                .with_headers(Answer::new(fault.status.unwrap_or(302)), fault)
                .header("Location", target)
                .body(""),
            (None, true) => {
                let text = fault.text.clone().unwrap_or_default();
                let body = Body::Bytes(text.into_bytes().into());
                self.send(Answer::new(fault.status.unwrap_or(200)), &body, 0..body.n_bytes(), fault)
            }
            (None, false) => match body {
                Some(body) => self.file(&body, fault),
                None => Answer::new(404).body("no such file\n"),
            },
        };
        slowed(answer, fault)
    }

    fn leads_to(&self, fault: &Fault) -> Option<String> {
        if let Some(target) = &fault.redirect {
            return Some(target.clone());
        }
        fault.hops.map(|_| format!("{}?hop={}", self.request.path, self.nth))
    }

    /// As a file server answers, but for what goes wrong.
    fn file(&self, body: &Body, fault: &Fault) -> Answer {
        let n_bytes = body.n_bytes();
        let etag = self.etag(fault);
        let is_same = self.request.header("if-range").is_none_or(|wanted| Some(wanted) == etag.as_deref());
        let range = self.request.range(n_bytes).filter(|_| is_same && !fault.ignore_range);
        let validated = |answer: Answer| match &etag {
            Some(etag) => answer.header("ETag", etag).header("Accept-Ranges", "bytes"),
            None => answer,
        };
        let Some(asked) = range else {
            return self.send(validated(Answer::new(200)), body, 0..n_bytes, fault);
        };
        if asked.start >= n_bytes || asked.is_empty() {
            let range = format!("bytes */{n_bytes}");
            return validated(Answer::new(416)).header("Content-Range", range).body("");
        }
        let start = asked.start.saturating_add(fault.shift_range.unwrap_or(0).into()).min(n_bytes);
        let end = asked.end.saturating_add(fault.long_range.unwrap_or(0).into()).clamp(start, n_bytes);
        let off = u64::from(fault.wrong_range);
        let told = format!("bytes {}-{}/{n_bytes}", start + off, end.saturating_sub(1) + off);
        self.send(validated(Answer::new(206)).header("Content-Range", told), body, start..end, fault)
    }

    fn etag(&self, fault: &Fault) -> Option<String> {
        match fault.etag.as_deref() {
            None => Some("\"v1\"".into()),
            Some("none") => None,
            Some("weak") => Some("W/\"v1\"".into()),
            Some("changing") => Some(format!("\"v{}\"", self.nth + 1)),
            Some(own) => Some(own.into()),
        }
    }

    fn with_headers(&self, mut answer: Answer, fault: &Fault) -> Answer {
        let is_replaced = |name: &str| fault.headers.keys().any(|other| other.eq_ignore_ascii_case(name));
        for (name, value) in self.route.headers.iter().filter(|(name, _)| !is_replaced(name)) {
            answer = answer.header(name, value);
        }
        for (name, value) in &fault.headers {
            answer = answer.header(name, value);
        }
        if let Some(after) = &fault.retry_after {
            let seconds = humantime::parse_duration(after).map(|time| time.as_secs().to_string());
            answer = answer.header("Retry-After", seconds.unwrap_or_else(|_| after.clone()));
        }
        if let Some(bytes) = fault.header_bytes {
            answer = answer.header("X-Long", "x".repeat(usize::try_from(bytes.get()).unwrap_or(0)));
        }
        for n in 0..fault.n_headers.unwrap_or(0) {
            answer = answer.header(&format!("X-{n}"), "x");
        }
        answer
    }

    /// Sends a part of a body, framed and cut as the fault wants.
    fn send(&self, answer: Answer, body: &Body, range: Range<u64>, fault: &Fault) -> Answer {
        let answer = self.with_headers(answer, fault);
        let n_bytes = range.end - range.start;
        let answer = match fault.chunked {
            Some(chunked) if n_bytes <= MAX_CHUNKED_BYTES => {
                return self.in_chunks(answer, body, range, fault, chunked);
            }
            _ => framed(answer, n_bytes, fault),
        };
        let mut answer = with_flipped(answer, body, range.clone(), fault);
        if fault.endless {
            answer = answer.repeat(ZEROS);
        }
        // A length that does not fit the bytes would leave the connection in the middle of nowhere.
        if fault.length_off_by.is_some() || fault.length.is_some() {
            answer = answer.hang_up();
        }
        self.stopped(answer, range.start, fault)
    }

    fn in_chunks(
        &self,
        answer: Answer,
        body: &Body,
        range: Range<u64>,
        fault: &Fault,
        chunked: Chunked,
    ) -> Answer {
        let mut bytes: Vec<u8> = body.read(range.clone()).unwrap_or_default().into();
        let flipped = fault.flip_at.and_then(|at| at.get().checked_sub(range.start));
        if let Some(byte) = flipped.and_then(|at| bytes.get_mut(usize::try_from(at).ok()?)) {
            *byte ^= 1;
        }
        let answer = answer.chunks(bytes.chunks(CHUNK_BYTES));
        let answer = match chunked {
            Chunked::Whole => answer.last_chunk(),
            Chunked::Cut => answer.hang_up(),
        };
        self.stopped(answer, range.start, fault)
    }

    /// Ends what is sent where the fault says; `start` is the first byte of it in the file.
    fn stopped(&self, answer: Answer, start: u64, fault: &Fault) -> Answer {
        let within = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
        let place = |at: Option<ByteCount>| at.map(|at| within(at.get()));
        if fault.cut_everywhere {
            return answer.cut_after(within(self.nth));
        }
        if let Some(n) = place(fault.cut_at) {
            return answer.cut_after(n);
        }
        if let Some(n) = place(fault.reset_at) {
            return answer.reset_after(n);
        }
        match place(fault.stall_at) {
            Some(n) => answer.stall_after(n),
            None => answer,
        }
    }
}

fn framed(answer: Answer, n_bytes: u64, fault: &Fault) -> Answer {
    let told = n_bytes.saturating_add_signed(fault.length_off_by.unwrap_or(0));
    match fault.length {
        _ if fault.endless => answer,
        None => answer.header("Content-Length", told),
        Some(WrongLength::Negative) => answer.header("Content-Length", "-1"),
        Some(WrongLength::Twice) => {
            answer.header("Content-Length", told).header("Content-Length", told.saturating_add(7))
        }
        Some(WrongLength::None) => answer,
    }
}

fn with_flipped(answer: Answer, body: &Body, range: Range<u64>, fault: &Fault) -> Answer {
    let flipped = fault.flip_at.map(ByteCount::get).filter(|at| range.contains(at));
    match flipped.and_then(|at| Some((at, body.read(at..at + 1).ok()?))) {
        None => answer.part(body, range),
        Some((at, byte)) => {
            let flipped: Vec<u8> = byte.iter().map(|byte| byte ^ 1).collect();
            answer.part(body, range.start..at).send(flipped).part(body, at + 1..range.end)
        }
    }
}

fn slowed(answer: Answer, fault: &Fault) -> Answer {
    let answer = match fault.delay {
        Some(time) => answer.delay(time),
        None => answer,
    };
    match fault.rate {
        Some(rate) => answer.bytes_per_second(rate.get()),
        None => answer,
    }
}
