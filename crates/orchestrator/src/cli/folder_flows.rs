//! The flows of a folder, as a server starts them.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

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
use crate::logging::HeldMasks;
use crate::plan::plan;
use crate::progress::ProgressKind;
use crate::report::{Report, Status};
use crate::run::RunOptions;
use crate::serve::{
    FlowFile, Flows, Folder, JobStatus, NotFound, Outcome, Refused, Schedules, StartRequest, Wanted,
};

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

    fn accept(&self, wanted: &Wanted) -> HeldMasks {
        self.program.console.hold_masks(&wanted.masks)
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
        // All that tells of the run is over when this returns.
        let hidden = Mutex::new(Vec::new());
        let reload = |run| {
            // The file may have been edited since it was admitted.
            let flows = self.load(request, run, SecretMode::Read, admitted).map_err(|refused| {
                program.say_error(&refused.to_string());
                exit::WRONG
            })?;
            let held = flows.iter().map(|flow| program.console.hold_masks(&flow.masks));
            hidden.lock().unwrap_or_else(PoisonError::into_inner).extend(held);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::fake::serving_registry;
    use crate::logging::{Console, LogFormat};

    const ONE: &str = "name: one\nsource: { files: { paths: [a.csv] } }\n";

    struct House {
        dir: tempfile::TempDir,
        flows: FolderFlows,
    }

    impl House {
        fn with(is_public: bool, files: &[(&str, String)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
            let program = Program {
                registry: serving_registry(),
                console: Console::default(),
                log_format: LogFormat::default(),
            };
            let flows = FolderFlows {
                program,
                folder: Folder { dir: dir.path().to_owned() },
                memory: ByteCount::mb(800),
                allows_exec: false,
                is_public,
                mounts: Mounts::default(),
            };
            Self { dir, flows }
        }

        /// How the flow `one` of these fakes ends, which fail when they are opened.
        async fn run(&self, run: &RunIdentity, admitted: ByteCount, goes_on: bool) -> Outcome {
            let options = RunOptions::default();
            self.flows.run(run.clone(), &request(), (admitted, goes_on), options).await
        }
    }

    fn request() -> StartRequest {
        StartRequest { flow: "one".to_owned(), ..StartRequest::default() }
    }

    // T12; contract "sse": where others can come a stream without a token is refused
    #[test]
    fn what_anybody_could_read_is_not_started_where_others_can_come() {
        let check = |is_public, token: &str| {
            let text = format!("{ONE}sink: {{ live: {{{token}}} }}\n");
            House::with(is_public, &[("one.yaml", text)]).flows.check(&request())
        };
        let Err(Refused::Wrong(told)) = check(true, "") else { panic!("it was not refused") };
        assert!(told.contains("step `sink`") && told.contains("`token`"), "{told}");
        assert!(check(true, "token: tok-4711").is_ok());
        assert!(check(false, "").is_ok());
    }

    // MEM-1: the file was edited while its run waited
    #[tokio::test]
    async fn a_run_keeps_to_the_memory_that_it_was_admitted_with() {
        let house =
            House::with(false, &[("one.yaml", format!("{ONE}sink: {{ discard: {{}} }}\nmemory: 500MB\n"))]);
        let ended = house.run(&RunIdentity::default(), ByteCount::mb(200), false).await;
        assert_eq!(ended.reports[0].memory_limit_bytes, 200_000_000);
    }

    // S1.15: a server that is started again does not do again what was done
    #[tokio::test]
    async fn entries_that_were_done_before_are_not_run_again() {
        let text = format!(
            "{ONE}sink: {{ parquet: {{ path: \"out/${{n}}\" }} }}\nmatrix: [{{ n: 1 }}, {{ n: 2 }}]\n"
        );
        let house = House::with(false, &[("one.yaml", text)]);
        let run = RunIdentity::default();
        let statuses = |ended: &Outcome| ended.reports.iter().map(|report| report.status).collect::<Vec<_>>();
        let first = house.run(&run, ByteCount::mb(500), false).await;
        assert_eq!(statuses(&first), [Status::Failed, Status::Failed]);
        let done = Report { status: Status::Done, ..first.reports[0].clone() };
        Ledger::new(&StdFs, &house.dir.path().join(".aqueduct")).keep(&done).unwrap();
        let again = house.run(&run, ByteCount::mb(500), true).await;
        assert_eq!(statuses(&again), [Status::Done, Status::Failed]);
        let another =
            house.run(&RunIdentity { id: "another".to_owned(), ..run }, ByteCount::mb(500), true).await;
        assert_eq!(statuses(&another), [Status::Failed, Status::Failed]);
    }

    #[test]
    fn files_whose_schedule_cannot_be_read_are_told() {
        let flow = |rest: &str| format!("{ONE}sink: {{ discard: {{}} }}\n{rest}");
        let house = House::with(
            false,
            &[
                ("often.yaml", flow("every: 5m\n")),
                ("once.yaml", flow("")),
                ("wrong.yaml", flow("every: 5m\nmemroy: 1GB\n")),
                ("half.yaml", "name: [\n".to_owned()),
            ],
        );
        let read = house.flows.schedules().unwrap();
        let at = |name: &str| read.get(&house.dir.path().join(name));
        assert!(matches!(at("often.yaml"), Some(Ok((name, _))) if name == "one"));
        assert!(at("once.yaml").is_none());
        assert!(matches!(at("wrong.yaml"), Some(Err(told)) if told.contains("memroy")));
        assert!(matches!(at("half.yaml"), Some(Err(told)) if told.contains("half.yaml")));
    }

    // T11: what is refused leaves nothing behind
    #[test]
    fn only_what_is_accepted_is_masked_from_then_on() {
        let text = "name: one\nsource: { files: { paths: [a.csv], headers: { authorization: \"${KEY}\" } } }\n\
                    sink: { discard: {} }\n";
        let house = House::with(false, &[("one.yaml", text.to_owned())]);
        let set = [("KEY".to_owned(), "hunter2-hunter2".to_owned())].into();
        let wanted = house.flows.check(&StartRequest { set, ..request() }).unwrap();
        let console = &house.flows.program.console;
        assert_eq!(console.masked("hunter2-hunter2"), "hunter2-hunter2");
        let accepted = house.flows.accept(&wanted);
        assert_eq!(console.masked("hunter2-hunter2"), "***");
        drop(accepted);
        assert_eq!(console.masked("hunter2-hunter2"), "hunter2-hunter2");
    }

    // T11: masks of runs that have ended do not pile up
    #[tokio::test]
    async fn what_a_run_hides_is_hidden_in_what_it_tells_and_let_go_after_it() {
        let text = format!("{ONE}sink: {{ parquet: {{ path: \"${{PASSWORD}}/out\" }} }}\n");
        let house = House::with(false, &[("one.yaml", text)]);
        let set = [("PASSWORD".to_owned(), "hunter2-hunter2".to_owned())].into();
        let request = StartRequest { set, ..request() };
        let (run, admitted) = (RunIdentity::default(), (ByteCount::mb(500), false));
        let ended = house.flows.run(run, &request, admitted, RunOptions::default()).await;
        let told = serde_json::to_string(&ended.reports).unwrap() + &ended.error.unwrap_or_default();
        assert!(!told.contains("hunter2"), "{told}");
        assert_eq!(house.flows.program.console.masked("hunter2-hunter2"), "hunter2-hunter2");
    }
}
