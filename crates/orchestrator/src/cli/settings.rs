//! From the arguments of a command to flows.

use super::arguments::{FlowArguments, ValueArguments};
use super::{Program, exit};
use crate::flow::{Flow, RunIdentity, SecretMode, Settings, load, read_env_file};

impl FlowArguments {
    /// What the command line and the environment say.
    ///
    /// # Errors
    /// The file of variables cannot be read.
    pub(super) fn settings(&self, secrets: SecretMode) -> Result<Settings, String> {
        self.values.settings(secrets)
    }
}

impl ValueArguments {
    fn settings(&self, secrets: SecretMode) -> Result<Settings, String> {
        let mut settings = Settings {
            set: self.set.clone(),
            only: self.only.clone(),
            memory: self.memory,
            secrets,
            ..Settings::from_env()
        };
        if let Some(path) = &self.env_file {
            for (key, value) in read_env_file(path)? {
                settings.env.entry(key).or_insert(value);
            }
        }
        Ok(settings)
    }
}

impl Program {
    /// The flows of a file that is about to run, one for each entry of its matrix; from here on their secrets
    /// are masked. Says what is wrong, and gives the exit code, when there are none.
    pub(super) fn load(&self, arguments: &FlowArguments) -> Result<Vec<Flow>, u8> {
        self.load_for(arguments, RunIdentity::default())
    }

    /// The same, filled in for this run.
    pub(super) fn load_for(&self, arguments: &FlowArguments, run: RunIdentity) -> Result<Vec<Flow>, u8> {
        let settings = arguments.settings(SecretMode::Read).map_err(|message| {
            self.say_error(&message);
            exit::WRONG
        })?;
        let settings = Settings { run, ..settings };
        let flows = load(&arguments.flow, &settings, &self.registry).map_err(|errors| {
            self.console.line(&errors.to_string());
            exit::WRONG
        })?;
        for flow in &flows {
            self.console.add_masks(&flow.masks);
        }
        Ok(flows)
    }
}
