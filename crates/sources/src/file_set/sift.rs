//! Of the files that a search comes upon, those that no earlier run has committed.
//!
//! Some files at a time: what is not known of their versions is asked for, as many at once as are read at once, and their
//! keys are looked up together.

use std::collections::BTreeSet;

use aqueduct_core::{Context, Error, ErrorKind, Result};
use aqueduct_net::{Fetcher, Validator};
use aqueduct_primitives::{WindowLimit, window_ordered};
use async_stream::try_stream;
use futures::{StreamExt, stream};

use super::gaps::are_given_up;
use super::give_up;
use super::input::{Found, Input, Inputs};
use super::memory::Division;
use super::on_change::OnChange;
use super::seen::{By, Key, Seen, content};

/// So many files are looked up together. More would wait for each other, and be held, for no gain.
const FILES_AT_ONCE: usize = 256;

/// So many files that are known are passed on, for their columns: where nothing is new, they are all there is to tell them.
pub(crate) const MAX_KNOWN: u64 = 16;

/// Tells new files from known ones.
pub(crate) struct Sift {
    cx: Context,
    fetcher: Fetcher,
    division: Division,
    seen: Seen,
    on_change: OnChange,
    /// The files that were come upon of those that are committed in part.
    met: BTreeSet<Key>,
}

/// What is to be found out about a file.
#[derive(Clone, Copy)]
enum Ask {
    Version,
    Digest,
}

/// A file, and what is known of it so far.
struct Looked {
    input: Box<Input>,
    verdict: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    New,
    Known,
    /// It is not read, and not known: the policy was told, or it stays missing.
    GivenUp,
}

impl Sift {
    pub(crate) fn new(
        cx: Context,
        fetcher: Fetcher,
        division: Division,
        seen: Seen,
        on_change: OnChange,
    ) -> Self {
        Self { cx, fetcher, division, seen, on_change, met: BTreeSet::new() }
    }

    /// What is new, in order, and the first few that are known. Says at the end how many those are.
    pub(crate) fn only_new(mut self, inputs: Inputs) -> Inputs {
        Box::pin(try_stream! {
            let (mut n_new, mut n_known) = (0_u64, 0_u64);
            let mut chunks = inputs.chunks(FILES_AT_ONCE);
            while let Some(chunk) = chunks.next().await {
                let (mut files, mut failed) = (Vec::new(), None);
                for found in chunk {
                    match found {
                        Ok(Found::Input(input)) => files.push(Looked { input, verdict: Verdict::New }),
                        Ok(other) => yield other,
                        Err(error) => failed = Some(error),
                    }
                }
                for Looked { input, verdict } in self.sift(files).await? {
                    match verdict {
                        Verdict::New => {
                            n_new += 1;
                            yield Found::Input(input);
                        }
                        Verdict::Known => {
                            n_known += 1;
                            if n_known <= MAX_KNOWN {
                                yield Found::Known(input);
                            }
                        }
                        Verdict::GivenUp => {}
                    }
                }
                failed.map_or(Ok(()), Err)?;
            }
            self.end(n_new, n_known);
        })
    }

    fn end(&self, n_new: u64, n_known: u64) {
        self.cx.metrics().files_known.add(n_known);
        for gone in self.seen.forget_begun(&self.met) {
            self.cx.warn(format!(
                "{}: {} rows (or bytes) of it are committed, and the rest is not there any more",
                gone.file, gone.upto.rows
            ));
        }
        let step = self.cx.step();
        match (n_new, n_known) {
            (0, 0) => {}
            (0, _) => tracing::info!(step, "nothing new: {n_known} files were committed by earlier runs"),
            _ => tracing::info!(step, "{n_new} files are new, {n_known} were committed by earlier runs"),
        }
    }

    async fn sift(&mut self, files: Vec<Looked>) -> Result<Vec<Looked>> {
        let files = match self.seen.by() {
            By::Name => self.by_name(files).await?,
            By::Modified => self.by_version(files).await?,
            By::Content => self.by_content(files).await?,
        };
        self.find_begun(files).await
    }

    /// A name that is known is known for good, unless it is one of a bad file: that one by its version.
    async fn by_name(&self, mut files: Vec<Looked>) -> Result<Vec<Looked>> {
        self.settle(&mut files, |input| Some(self.seen.name(input))).await?;
        self.leave_out_gone(&mut files).await?;
        let names: Vec<_> = files.iter().map(|file| self.seen.bad(&file.input)).collect();
        let are_bad = self.seen.are_known(names.clone()).await?;
        let bad: BTreeSet<_> =
            names.into_iter().zip(are_bad).filter(|(_, bad)| *bad).map(|(name, _)| name).collect();
        if bad.is_empty() {
            return Ok(files);
        }
        let (seen, asked) = (self.seen.clone(), bad.clone());
        let is_wanted = move |input: &Input| is_unknown(input) && asked.contains(&seen.bad(input));
        let mut files = self.ask(files, Ask::Version, is_wanted).await?;
        let version = |input: &Input| self.seen.version(input, &input.listed);
        self.settle(&mut files, |input| version(input).filter(|_| bad.contains(&self.seen.bad(input))))
            .await?;
        Ok(files)
    }

    /// What a list names and nobody has found for long is not asked for any more.
    async fn leave_out_gone(&self, files: &mut [Looked]) -> Result<()> {
        let mut unsure: Vec<_> = files
            .iter_mut()
            .filter(|file| file.verdict == Verdict::New && file.input.may_be_missing)
            .collect();
        let given_up = are_given_up(&self.seen, unsure.iter().map(|file| &*file.input)).await?;
        for (file, _) in unsure.iter_mut().zip(given_up).filter(|(_, is_given_up)| *is_given_up) {
            file.verdict = Verdict::GivenUp;
        }
        Ok(())
    }

    async fn by_version(&self, files: Vec<Looked>) -> Result<Vec<Looked>> {
        let mut files = self.ask(files, Ask::Version, is_unknown).await?;
        for Looked { input, .. } in files.iter().filter(|file| file.verdict == Verdict::New) {
            if input.listed.name().is_none() {
                let message = "where it is, nothing tells one version of a file from another, no ETag and no time of change; \
                               set `incremental: { by: name }`, or `by: content`";
                return Err(
                    Error::new(ErrorKind::Config, "find new files", message).with("file", &input.name)
                );
            }
        }
        self.settle(&mut files, |input| self.seen.version(input, &input.listed)).await?;
        Ok(files)
    }

    async fn by_content(&self, files: Vec<Looked>) -> Result<Vec<Looked>> {
        let is_far = |input: &Input| input.location.is_remote() && is_unknown(input);
        let mut files = self.ask(files, Ask::Version, is_far).await?;
        self.settle(&mut files, |input| self.seen.strong(input, &input.listed)).await?;
        let mut files = self.ask(files, Ask::Digest, |_| true).await?;
        self.settle(&mut files, |input| input.digest.as_deref().map(content)).await?;
        Ok(files)
    }

    /// Those whose key is committed are known.
    async fn settle(&self, files: &mut [Looked], key: impl Fn(&Input) -> Option<Key>) -> Result<()> {
        let unsettled = files.iter_mut().filter(|file| file.verdict == Verdict::New);
        let (files, keys): (Vec<_>, Vec<_>) =
            unsettled.filter_map(|file| key(&file.input).map(|key| (file, key))).unzip();
        for (file, is_known) in files.into_iter().zip(self.seen.are_known(keys).await?) {
            if is_known {
                file.verdict = Verdict::Known;
            }
        }
        Ok(())
    }

    /// Asks about new files where something is wanting; the policy is told of those that cannot be asked about.
    async fn ask(
        &self,
        files: Vec<Looked>,
        ask: Ask,
        is_wanted: impl Fn(&Input) -> bool + Send + Sync + 'static,
    ) -> Result<Vec<Looked>> {
        let is_asked = move |file: &Looked| file.verdict == Verdict::New && is_wanted(&file.input);
        if !files.iter().any(&is_asked) {
            return Ok(files);
        }
        let (cx, fetcher, on_change) = (self.cx.clone(), self.fetcher.clone(), self.on_change);
        let limit = WindowLimit::tasks(self.division.n_files).with_bytes(cx.share(), self.division.per_file);
        let look = move |file: Looked| {
            let (cx, fetcher) = (cx.clone(), fetcher.clone());
            let is_asked = is_asked(&file);
            async move {
                match is_asked {
                    true => asked(&cx, &fetcher, on_change, file, ask).await,
                    false => Ok(file),
                }
            }
        };
        let mut looks = window_ordered(stream::iter(files), limit, self.cx.tasks(), look);
        let mut files = Vec::new();
        while let Some(looked) = looks.next().await {
            let (looked, _place) = looked?.into_parts();
            files.push(looked?);
        }
        Ok(files)
    }

    /// Of files that were committed in part, the rest is read, if they are still what they were.
    async fn find_begun(&mut self, files: Vec<Looked>) -> Result<Vec<Looked>> {
        let begun = files.iter().filter(|file| self.seen.begun(&file.input).is_some());
        self.met.extend(begun.map(|file| self.seen.name(&file.input)));
        let seen = self.seen.clone();
        let is_begun = move |input: &Input| is_unknown(input) && seen.begun(input).is_some();
        let mut files = self.ask(files, Ask::Version, is_begun).await?;
        for Looked { input, .. } in files.iter_mut().filter(|file| file.verdict == Verdict::New) {
            let Some(begun) = self.seen.begun(input) else { continue };
            if !begun.upto.is.is_empty() && !begun.upto.is.has_become_another(&input.listed) {
                input.begun = Some(begun.upto);
                continue;
            }
            self.cx.warn(format!(
                "{}: {} rows (or bytes) of it are committed that an earlier run read before it was dropped; it changed since, \
                 or is read otherwise now, and is read from its beginning",
                input.name, begun.upto.rows
            ));
        }
        Ok(files)
    }
}

fn is_unknown(input: &Input) -> bool {
    input.listed.is_empty()
}

/// A file with what was asked about it.
async fn asked(
    cx: &Context,
    fetcher: &Fetcher,
    on_change: OnChange,
    mut file: Looked,
    ask: Ask,
) -> Result<Looked> {
    let looked = match ask {
        Ask::Version => version(cx, fetcher, &file.input).await.map(|version| (version, None)),
        Ask::Digest => {
            digest(cx, fetcher, &file.input).await.map(|(version, digest)| (version, Some(digest)))
        }
    };
    match looked {
        Ok((version, digest)) => (file.input.listed, file.input.digest) = (version, digest),
        Err(error) => {
            let error = on_change.unless_again(&file.input, error)?;
            cx.metrics().files_total.add(1);
            give_up(cx, &file.input, 0, error)?;
            file.verdict = Verdict::GivenUp;
        }
    }
    Ok(file)
}

async fn version(cx: &Context, fetcher: &Fetcher, input: &Input) -> Result<Validator> {
    Ok(fetcher.meta(&input.location, input.trust.clone(), cx.metrics()).await?.validator())
}

/// The BLAKE3 of a file's bytes, and of which version they are. They are read a block at a time, and are counted.
async fn digest(cx: &Context, fetcher: &Fetcher, input: &Input) -> Result<(Validator, String)> {
    let fetched = fetcher.get(&input.location, input.trust.clone(), cx.metrics()).await?;
    let (mut body, mut hasher) = (fetched.body, blake3::Hasher::new());
    while let Some(block) = body.next().await {
        let block = block?;
        cx.metrics().bytes.add_len(block.len());
        hasher = cx
            .tasks()
            .compute(move || {
                hasher.update(&block);
                hasher
            })
            .await?;
    }
    Ok((fetched.meta.validator(), hasher.finalize().to_hex().to_string()))
}
