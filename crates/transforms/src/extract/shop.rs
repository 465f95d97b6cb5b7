//! What happens to one section: look whether it was answered; upload, ask, keep the answer; delete, whatever happened.
//!
//! A section is a task that is seen through ([`Tasks::spawn_owed`](aqueduct_primitives::Tasks::spawn_owed)): where the run is
//! stopped, or what it does panics, it still deletes the file that it has uploaded, and ends within the time of that.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use aqueduct_core::{Error, Result};
use aqueduct_primitives::{Tasks, panic_message};
use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answers::{Answered, Answers, Key};
use super::call::{Allowance, CallFailed};
use super::journal::RemoteFile;
use super::remote::Remotes;
use super::section::{Content, Section, SharedSection, key_of};
use super::service::{Upload, Uploaded};
use super::trouble::{Trouble, TroubleKind};

/// What became of a section.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Answered),
    Failed(Trouble),
    /// No more questions may be asked in this run.
    Drained,
}

/// Asks about sections.
pub(super) struct Shop {
    pub(super) remotes: Remotes,
    /// Nothing where a run leaves nothing behind.
    pub(super) answers: Option<Answers>,
    pub(super) allowance: Allowance,
    pub(super) tasks: Tasks,
    /// What all questions have in common, as part of what answers are known by.
    pub(super) salt: Vec<u8>,
    pub(super) delay: Duration,
    /// So many begin without a pause.
    pub(super) n_at_once: usize,
    pub(super) n_begun: AtomicUsize,
}

/// How an attempt ended.
enum Attempt {
    /// It is not to be made again.
    Done(Outcome),
    /// The section did not get to the service.
    NotUploaded(CallFailed),
}

impl Shop {
    /// Sees a section through.
    ///
    /// # Errors
    /// The run cannot go on: the disk fails, the service does not know us, something panicked, or the run is stopped.
    pub(super) async fn see_through(
        self: Arc<Self>,
        section: SharedSection,
        stop: CancellationToken,
    ) -> Result<Outcome> {
        let begun = Instant::now();
        let label = section.label.clone();
        let outcome = self.answered(section, &stop).await;
        let elapsed_ms = begun.elapsed().as_millis();
        match &outcome {
            Ok(Outcome::Answered(answer)) => tracing::debug!(
                document = label.document,
                nth_document = label.nth_document,
                section = label.section,
                index = label.index,
                answer_bytes = answer.text.len(),
                tokens = answer.tokens,
                elapsed_ms,
                "Successfully processed"
            ),
            Ok(Outcome::Failed(trouble)) => tracing::warn!(
                document = label.document,
                nth_document = label.nth_document,
                section = label.section,
                index = label.index,
                error = %trouble,
                elapsed_ms,
                "a section has no answer"
            ),
            Ok(Outcome::Drained) | Err(_) => {}
        }
        outcome
    }

    async fn answered(&self, section: SharedSection, stop: &CancellationToken) -> Result<Outcome> {
        let Some(answers) = &self.answers else { return self.asked(section, None, stop).await };
        let (salt, hashed) = (self.salt.clone(), Arc::clone(&section));
        let key = self.tasks.compute(move || key_of(&salt, &hashed)).await?;
        let _turn = tokio::select! {
            turn = answers.turn(key) => turn,
            () = stop.cancelled() => return Err(Error::cancelled("ask service")),
        };
        match answers.get(key).await? {
            Some(answer) => {
                self.remotes.metrics.count("cached", 1);
                Ok(Outcome::Answered(answer))
            }
            None => self.asked(section, Some((answers, key)), stop).await,
        }
    }

    /// Asks, as often as it takes for the section to get to the service. What an attempt has left there is deleted before the
    /// next.
    async fn asked(
        &self,
        section: SharedSection,
        keep: Option<(&Answers, Key)>,
        stop: &CancellationToken,
    ) -> Result<Outcome> {
        if !self.allowance.take() {
            return Ok(Outcome::Drained);
        }
        let is_first = self.n_begun.fetch_add(1, SeqCst) < self.n_at_once;
        let mut n_failed = 0;
        loop {
            let mut open = None;
            let attempt = {
                let work = async {
                    if !is_first && n_failed == 0 {
                        tokio::time::sleep(self.delay).await;
                    }
                    self.attempt(&section, keep, &mut open).await
                };
                tokio::select! {
                    biased;
                    () = stop.cancelled() => None,
                    attempt = AssertUnwindSafe(work).catch_unwind() => Some(attempt),
                }
            };
            let Some(attempt) = attempt else {
                // Its row goes with the run: so do its bytes.
                drop(section);
                self.release(open).await;
                return Err(Error::cancelled("ask service"));
            };
            self.release(open).await;
            let attempt = attempt.map_err(|panic| {
                Error::bug("ask service", format!("it panicked: {}", panic_message(&*panic)))
            })?;
            let failed = match attempt? {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::NotUploaded(failed) => failed,
            };
            n_failed += 1;
            let again = tokio::select! {
                again = self.remotes.caller.is_tried_again(&failed, n_failed) => again,
                () = stop.cancelled() => return Err(Error::cancelled("ask service")),
            };
            if !again {
                self.allowance.give_back();
                return match failed.is_about_the_run() || failed.status == Some(403) {
                    true => Err(failed.into_error()),
                    false => Ok(Outcome::Failed(failed.into_trouble(TroubleKind::UploadFailed))),
                };
            }
        }
    }

    async fn release(&self, open: Option<RemoteFile>) {
        if let Some(file) = open {
            self.remotes.release(&file).await;
        }
    }

    /// Uploads and asks. What may then be at the service is in `open`.
    async fn attempt(
        &self,
        section: &Section,
        keep: Option<(&Answers, Key)>,
        open: &mut Option<RemoteFile>,
    ) -> Result<Attempt> {
        let about = match &section.content {
            Some(content) => match self.upload(section, content.clone(), open).await? {
                Ok(uploaded) => Some(uploaded),
                Err(failed) => return Ok(Attempt::NotUploaded(failed)),
            },
            None => None,
        };
        let outcome = self.ask(&section.prompt, about.as_ref()).await?;
        if let (Outcome::Answered(answer), Some((answers, key))) = (&outcome, keep) {
            answers.put(key, answer).await?;
        }
        Ok(Attempt::Done(outcome))
    }

    async fn upload(
        &self,
        section: &Section,
        content: Content,
        open: &mut Option<RemoteFile>,
    ) -> Result<Result<Uploaded, CallFailed>> {
        let unique = format!("{:032x}", rand::random::<u128>());
        let shown_name = format!("{}_{}.{}", section.label.base_name(), &unique[..8], content.extension);
        let file = RemoteFile {
            service: self.remotes.place.0.to_owned(),
            url: self.remotes.place.1.clone(),
            name: format!("aq-{}", &unique[..24]),
            shown_name,
            id: None,
        };
        self.remotes.note(&file).await?;
        tracing::debug!(
            bytes = content.bytes.len(),
            "Uploading section {} as {}",
            section.label.section,
            file.shown_name
        );
        let upload = Upload {
            name: file.name.clone(),
            shown_name: file.shown_name.clone(),
            media_type: content.media_type,
            bytes: content.bytes,
        };
        let file = open.insert(file);
        self.remotes.metrics.count("uploads", 1);
        let uploaded = self.remotes.service.upload(&self.remotes.caller, upload).await;
        if let Ok(uploaded) = &uploaded {
            file.id = Some(uploaded.id.clone());
            self.remotes.note(file).await?;
        }
        Ok(uploaded)
    }

    /// Asks, as often as it may help. The first question is allowed already.
    async fn ask(&self, prompt: &str, about: Option<&Uploaded>) -> Result<Outcome> {
        let Remotes { service, caller, metrics, .. } = &self.remotes;
        let question = service.question(prompt, about);
        let mut n_failed = 0;
        loop {
            metrics.count("questions", 1);
            let failed = match caller.once(&question).await {
                Ok(reply) => {
                    caller.pace.went_well();
                    return Ok(match service.answer(&reply.body) {
                        Ok(answer) => {
                            metrics.count("tokens", answer.tokens.unwrap_or_default());
                            Outcome::Answered(answer)
                        }
                        Err(trouble) => Outcome::Failed(trouble),
                    });
                }
                Err(failed) => failed,
            };
            n_failed += 1;
            if !caller.is_tried_again(&failed, n_failed).await {
                return match failed.is_about_the_run() {
                    true => Err(failed.into_error()),
                    false => Ok(Outcome::Failed(failed.into_trouble(TroubleKind::AskFailed))),
                };
            }
            if !self.allowance.take() {
                return Ok(Outcome::Drained);
            }
        }
    }
}
