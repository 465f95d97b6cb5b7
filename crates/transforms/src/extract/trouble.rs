//! Why a section has no answer.

use std::fmt;

/// What stands in the column `error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TroubleKind {
    /// There is no section: null.
    SplitFailed,
    /// The section has no bytes.
    EmptyDownload,
    /// The prompt, with the row's values in it, is longer than it may be.
    PromptTooLong,
    /// The service did not take the section.
    UploadFailed,
    /// The service did not answer.
    AskFailed,
    /// It refused to answer.
    Refused,
    /// It answered with nothing.
    EmptyAnswer,
    /// It answered in another form than asked for, too much, or broke off.
    BadAnswer,
    /// A call took too long, each time.
    TimedOut,
}

impl TroubleKind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::SplitFailed => "split_failed",
            Self::EmptyDownload => "empty_download",
            Self::PromptTooLong => "prompt_too_long",
            Self::UploadFailed => "upload_failed",
            Self::AskFailed => "ask_failed",
            Self::Refused => "refused",
            Self::EmptyAnswer => "empty_answer",
            Self::BadAnswer => "bad_answer",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Longer messages are cut: they may quote what a service says.
const MAX_MESSAGE_CHARS: usize = 500;

/// Why a section has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) kind: TroubleKind,
    /// For people, in one line.
    pub(super) message: String,
}

impl Trouble {
    pub(super) fn new(kind: TroubleKind, message: impl Into<String>) -> Self {
        Self { kind, message: one_line(&message.into()) }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.word(), self.message)
    }
}

/// A text in one line, cut where it is too long.
pub(super) fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(MAX_MESSAGE_CHARS) {
        line.truncate(end);
        line.push('…');
    }
    line
}
