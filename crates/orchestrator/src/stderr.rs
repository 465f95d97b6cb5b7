//! Standard error, written by a thread of its own: a terminal or a pipe that nobody reads holds nobody up.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Text that waits to be written. With less, a burst of lines would be cut although somebody reads them; with more, a
/// reader that stands still would cost memory that no budget counts.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// How long the end waits for a reader that takes nothing. With less, the last words would be lost on a busy machine.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is drawn below the lines, again and again.
pub(crate) trait Screen: Send {
    /// Draws it as things are now.
    fn draw(&mut self);
    /// Makes room, writes, and draws again what was there.
    fn above(&self, write: &mut dyn FnMut());
    /// Takes it away.
    fn clear(&mut self);
}

enum Message {
    Text(String),
    Show(Box<dyn Screen>),
    Draw,
    Hide,
}

/// A stream of text that never holds up who writes to it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Stderr {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Where it goes; taken by the thread when it starts.
    to: Option<Box<dyn Write + Send>>,
    thread: Option<JoinHandle<()>>,
    waiting: VecDeque<Message>,
    n_waiting_bytes: usize,
    /// What did not fit since a line said so.
    n_lost: u64,
    lost_line: fn(&str) -> String,
    n_done: u64,
    is_draw_waiting: bool,
    is_ending: bool,
    has_ended: bool,
}

impl Default for Stderr {
    fn default() -> Self {
        Self::to(Box::new(io::stderr()))
    }
}

impl Stderr {
    fn to(writer: Box<dyn Write + Send>) -> Self {
        let state = State {
            to: Some(writer),
            thread: None,
            waiting: VecDeque::new(),
            n_waiting_bytes: 0,
            n_lost: 0,
            lost_line: str::to_owned,
            n_done: 0,
            is_draw_waiting: false,
            is_ending: false,
            has_ended: false,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }) }
    }

    /// How the line looks that says how many are lost.
    pub(crate) fn tell_lost(&self, lost_line: fn(&str) -> String) {
        self.shared.lock().lost_line = lost_line;
    }

    /// Writes text, or counts it as lost when too much waits already.
    pub(crate) fn write(&self, text: String) {
        let mut state = self.shared.lock();
        if state.n_waiting_bytes + text.len() > MAX_WAITING_BYTES {
            state.n_lost += 1;
            return;
        }
        state.n_waiting_bytes += text.len();
        self.send(state, Message::Text(text));
    }

    /// From now on this is below the lines.
    pub(crate) fn show(&self, screen: Box<dyn Screen>) {
        self.send(self.shared.lock(), Message::Show(screen));
    }

    /// Draws it again, unless that is still to be done.
    pub(crate) fn draw(&self) {
        let mut state = self.shared.lock();
        if !std::mem::replace(&mut state.is_draw_waiting, true) {
            self.send(state, Message::Draw);
        }
    }

    /// Takes it away.
    pub(crate) fn hide(&self) {
        self.send(self.shared.lock(), Message::Hide);
    }

    fn send(&self, mut state: MutexGuard<'_, State>, message: Message) {
        state.waiting.push_back(message);
        if let Some(writer) = state.to.take() {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("stderr".to_owned());
            // A process that may not start a thread cannot do its work either, and ends with a code that says so.
            state.thread = thread.spawn(move || shared.run(writer)).ok();
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Writes what waits, as long as somebody takes it. A thread that is stuck in the system then ends with the process.
    pub(crate) fn close(&self) {
        let mut state = self.shared.lock();
        state.is_ending = true;
        self.shared.changed.notify_all();
        let Some(thread) = state.thread.take() else { return };
        while !state.has_ended {
            let n_done = state.n_done;
            let (next, waited) = self
                .shared
                .changed
                .wait_timeout_while(state, PATIENCE, |state| !state.has_ended && state.n_done == n_done)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out() {
                return;
            }
        }
        drop(state);
        // Whatever it panicked of, there is nobody left to tell.
        let _ = thread.join();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn run(&self, mut to: Box<dyn Write + Send>) {
        let mut screen: Option<Box<dyn Screen>> = None;
        while let Some(message) = self.next() {
            match message {
                Message::Text(text) => {
                    // Nobody to tell when standard error is closed or full.
                    let mut write = || _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
                    match &screen {
                        Some(screen) => screen.above(&mut write),
                        None => write(),
                    }
                }
                Message::Show(next) => screen = Some(next),
                Message::Draw => screen.iter_mut().for_each(|screen| screen.draw()),
                Message::Hide => screen.take().iter_mut().for_each(|screen| screen.clear()),
            }
            self.lock().n_done += 1;
            self.changed.notify_all();
        }
        self.lock().has_ended = true;
        self.changed.notify_all();
    }

    /// What is next to be done; nothing at the end. What was lost is told as soon as something was written again.
    fn next(&self) -> Option<Message> {
        let mut state = self.lock();
        loop {
            if let Some(message) = state.waiting.pop_front() {
                match &message {
                    Message::Text(text) => state.n_waiting_bytes -= text.len(),
                    Message::Draw => state.is_draw_waiting = false,
                    Message::Show(_) | Message::Hide => {}
                }
                return Some(message);
            }
            let n_lost = std::mem::take(&mut state.n_lost);
            if n_lost > 0 {
                let line = format!("{n_lost} lines are not shown: nobody read what was before them");
                return Some(Message::Text((state.lost_line)(&line) + "\n"));
            }
            if state.is_ending {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// A reader that takes nothing until it is told to, and what it has taken.
    struct Terminal {
        go_on: Receiver<()>,
        taken: Arc<Mutex<String>>,
    }

    impl Write for Terminal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once the other end is gone it takes everything.
            let _ = self.go_on.recv();
            self.taken.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn terminal() -> (Stderr, SyncSender<()>, Arc<Mutex<String>>) {
        let (sender, go_on) = sync_channel(0);
        let taken = Arc::default();
        (Stderr::to(Box::new(Terminal { go_on, taken: Arc::clone(&taken) })), sender, taken)
    }

    // reliability 58
    #[test]
    fn who_writes_is_not_held_up_and_what_is_lost_is_counted() {
        let (stderr, stuck, taken) = terminal();
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..5000 {
            stderr.write(line.clone());
        }
        assert!(stderr.shared.lock().n_waiting_bytes <= MAX_WAITING_BYTES);
        drop(stuck);
        stderr.close();
        let taken = taken.lock().unwrap();
        let n_shown = taken.lines().filter(|line| line.starts_with('x')).count();
        assert!((1024..=1025).contains(&n_shown), "{n_shown}");
        assert_eq!(
            taken.lines().last().unwrap(),
            format!("{} lines are not shown: nobody read what was before them", 5000 - n_shown)
        );
    }

    // reliability 58
    #[test]
    fn the_end_does_not_wait_for_a_reader_that_takes_nothing() {
        let (stderr, stuck, taken) = terminal();
        stderr.write("never\n".to_owned());
        stderr.close();
        assert_eq!(*taken.lock().unwrap(), "");
        drop(stuck);
    }

    #[test]
    fn lines_keep_their_order_and_all_are_written_at_the_end() {
        let (stderr, free, taken) = terminal();
        drop(free);
        for n in 0..1000 {
            stderr.write(format!("{n}\n"));
        }
        stderr.close();
        let expected: String = (0..1000).map(|n| format!("{n}\n")).collect();
        assert_eq!(*taken.lock().unwrap(), expected);
    }

    struct Drawn(Arc<Mutex<String>>);

    impl Screen for Drawn {
        fn draw(&mut self) {
            self.0.lock().unwrap().push_str("[drawn]");
        }

        fn above(&self, write: &mut dyn FnMut()) {
            write();
            self.0.lock().unwrap().push_str("[below]");
        }

        fn clear(&mut self) {
            self.0.lock().unwrap().push_str("[cleared]");
        }
    }

    #[test]
    fn what_is_drawn_is_drawn_once_however_often_it_is_asked_for_meanwhile() {
        let (stderr, stuck, taken) = terminal();
        stderr.write("a".to_owned());
        stderr.show(Box::new(Drawn(Arc::clone(&taken))));
        (0..100).for_each(|_| stderr.draw());
        stderr.write("b".to_owned());
        stderr.hide();
        stderr.write("c".to_owned());
        drop(stuck);
        stderr.close();
        assert_eq!(*taken.lock().unwrap(), "a[drawn]b[below][cleared]c");
    }
}
