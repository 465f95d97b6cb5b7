//! The flows of a folder, as a server starts them.

use std::path::Path;

use aqueduct_commit::Start;
use aqueduct_core::StdFs;
use aqueduct_net::server::Mounts;
use aqueduct_primitives::ByteCount;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::begin::Asked;
use super::execute::execute;
use super::listen::open_sinks;
use super::{Program, exit};
use crate::flow::{Flow, RunIdentity, Schedule, SecretMode, Settings, load};
use crate::ledger::Ledger;
use crate::plan::plan;
use crate::progress::ProgressKind;
use crate::report::{Report, Status};
use crate::run::RunOptions;
use crate::serve::{FlowFile, Flows, Folder, JobStatus, NotFound, Outcome, Refused, Schedules, StartRequest, Wanted};

/// The component that runs programs: only where the operator allows it.
const EXEC: &str = "exec";

/// The flows of a folder, carried out as `run` does.
pub(super) struct FolderFlows {
    pub(super) program: Program,
    pub(super) folder: Folder,
    /// What a run may ask for at most.
    pub(super) memory: ByteCount,
    pub(super) allows_exec: bool,
    /// Whether others than this machine's own processes can ask.
    pub(super) is_public: bool,
    /// Where sinks serve their streams.
    pub(super) mounts: Mounts,
}

impl FolderFlows {
    /// The flows of one file, one for each entry of its matrix, each within so much memory.
    fn load(
        &self,
        request: &StartRequest,
        run: RunIdentity,
        secrets: SecretMode,
        max_memory: ByteCount,
    ) -> Result<Vec<Flow>, Refused> {
        let path = self.folder.find(&request.flow).map_err(|error| match error {
            NotFound::Unknown { .. } => Refused::Unknown(error.to_string()),
            NotFound::Several { .. } => Refused::Wrong(error.to_string()),
            NotFound::Unreadable(_) => Refused::Failed(error.to_string()),
        })?;
        let set = request.set.clone().into_iter().collect();
        let settings = Settings { set, secrets, run, ..Settings::from_env() };
        self.load_within(&path, settings, max_memory)
    }

    fn load_within(
        &self,
        path: &Path,
        mut settings: Settings,
        max_memory: ByteCount,
    ) -> Result<Vec<Flow>, Refused> {
        let flows = self.load_file(path, &settings)?;
        if flows.iter().all(|flow| flow.memory <= max_memory) {
            return Ok(flows);
        }
        settings.memory = Some(max_memory);
        self.load_file(path, &settings)
    }

    /// When the flow of a file runs, as a turn of it would be loaded; nothing, if it has no schedule.
    fn schedule(&self, file: &FlowFile) -> Result<Option<(String, Schedule)>, String> {
        let head = file.head.clone()?;
        if head.schedule.is_none() {
            return Ok(None);
        }
        let flows = self.load_within(&file.path, Settings::from_env(), self.memory);
        let first = flows.map_err(|refused| refused.to_string())?.into_iter().next();
        Ok(first.and_then(|flow| flow.schedule).map(|schedule| (head.name, schedule)))
    }

    fn load_file(&self, path: &Path, settings: &Settings) -> Result<Vec<Flow>, Refused> {
        let flows = load(path, settings, &self.program.registry)
            .map_err(|errors| Refused::Wrong(self.program.console.masked(&errors.to_string())))?;
        for flow in &flows {
            self.check_exec(flow)?;
            self.check_tokens(flow)?;
        }
        Ok(flows)
    }

    fn check_exec(&self, flow: &Flow) -> Result<(), Refused> {
        match flow.steps.iter().find(|step| step.component == EXEC && !self.allows_exec) {
            None => Ok(()),
            Some(step) => Err(Refused::Wrong(format!(
                "step `{}` starts a program, which this server does not allow; start it with --allow-exec",
                step.name
            ))),
        }
    }

    /// What a flow serves has a token of its own: that of the server lets in those who start flows.
    fn check_tokens(&self, flow: &Flow) -> Result<(), Refused> {
        match open_sinks(flow).next().filter(|_| self.is_public) {
            None => Ok(()),
            Some(step) => Err(Refused::Wrong(format!(
                "step `{}` gives its rows to whoever comes, and this server can be reached from other machines; give it a `token`",
                step.name
            ))),
        }
    }

    /// How a run begins: one that an earlier server began goes on, whatever was asked for then.
    fn start_of(&self, flow: &Flow, run: &RunIdentity, request: &StartRequest, goes_on: bool) -> Start {
        let has_begun = || {
            let log = flow.open_log().ok()?;
            log.unfinished().map(|unfinished| unfinished.run_id.starts_with(&run.id))
        };
        match (request.full_refresh, request.fresh) {
            _ if goes_on && has_begun() == Some(true) => Start::Resume,
            (true, _) => Start::FullRefresh,
            (false, true) => Start::Fresh,
            (false, false) => Start::Resume,
        }
    }
}

/// The report of a flow that an earlier server has run to its end, as part of this run. What the ledger calls done is public.
fn done_before(flow: &Flow) -> Option<Report> {
    let report = Ledger::new(&StdFs, &flow.state_dir).run(&flow.run.id).ok()??;
    // Begun again for a file that changed it has a number behind its name.
    let is_its = report.run_id.strip_prefix(&flow.run.id).is_some_and(|n| n.is_empty() || n.starts_with('r'));
    (is_its && report.flow == flow.name && report.status == Status::Done).then_some(report)
}

#[async_trait]
impl Flows for FolderFlows {
    fn list(&self) -> Result<Vec<Value>, Refused> {
        let files = self.folder.files().map_err(Refused::Failed)?;
        let told = |file: FlowFile| {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match file.head {
                Ok(head) => json!({ "name": head.name, "file": name, "schedule": head.schedule }),
                Err(error) => json!({ "file": name, "error": error }),
            }
        };
        Ok(files.into_iter().map(told).collect())
    }

    fn schedules(&self) -> Result<Schedules, Refused> {
        let files = self.folder.files().map_err(Refused::Failed)?.into_iter();
        let read = files.filter_map(|file| Some((self.schedule(&file).transpose()?, file.path)));
        Ok(read.map(|(read, path)| (path, read)).collect())
    }

    fn check(&self, request: &StartRequest) -> Result<Wanted, Refused> {
        let mut wanted = Wanted::default();
        for flow in self.load(request, RunIdentity::default(), SecretMode::Hidden, self.memory)? {
            plan(&flow).map_err(|errors| Refused::Wrong(flow.masks.mask(&errors.to_string())))?;
            wanted.masks = wanted.masks.and(&flow.masks);
            wanted.memory = wanted.memory.max(flow.memory);
            wanted.locks.push(flow.state_dir.join(flow.lock_name()).display().to_string());
        }
        Ok(wanted)
    }

    fn accept(&self, wanted: &Wanted) {
        self.program.console.add_masks(&wanted.masks);
    }

    async fn run(
        &self,
        run: RunIdentity,
        request: &StartRequest,
        (admitted, goes_on): (ByteCount, bool),
        options: RunOptions,
    ) -> Outcome {
        let options = RunOptions { mounts: Some(self.mounts.clone()), ..options };
        let (console, heard) = self.program.console.overheard();
        let program =
            Program { console, registry: self.program.registry.clone(), log_format: self.program.log_format };
        let reload = |run| {
            // The file may have been edited since it was admitted.
            let flows = self.load(request, run, SecretMode::Read, admitted).map_err(|refused| {
                program.say_error(&refused.to_string());
                exit::WRONG
            })?;
            flows.iter().for_each(|flow| program.console.add_masks(&flow.masks));
            Ok(flows)
        };
        let mut outcome = Outcome { status: JobStatus::Done, error: None, reports: Vec::new() };
        let Ok(flows) = reload(run.clone()) else { return Outcome::failed(heard.text()) };
        for flow in flows {
            if let Some(report) = done_before(&flow).filter(|_| goes_on) {
                outcome.reports.push(report);
                continue;
            }
            let start = self.start_of(&flow, &run, request, goes_on);
            let asked = Asked { flow, run: run.clone(), start, reload: &reload };
            let ended = Box::pin(execute(&program, asked, options.clone(), ProgressKind::None)).await;
            let status = match (&ended.report, ended.code) {
                (Some(report), _) => report.status,
                (None, exit::INTERRUPTED) => Status::Interrupted,
                (None, _) => Status::Failed,
            };
            outcome.status = outcome.status.max(status.into());
            if status == Status::Failed {
                let error = ended.report.as_ref().and_then(|report| report.error.clone());
                outcome.error.get_or_insert_with(|| error.unwrap_or_else(|| heard.text()));
            }
            outcome.reports.extend(ended.report);
            if options.stop.is_cancelled() {
                break;
            }
        }
        outcome
    }
}
