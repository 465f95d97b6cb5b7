//! The flows of a folder: its own files, by the `name:` that they give themselves.

use std::path::{Path, PathBuf};

use crate::flow::{self, Head};

/// More files than this are not looked at: a folder of flows is made by people.
const MAX_FLOWS: usize = 1000;

/// Files with these suffixes are flows.
const SUFFIXES: [&str; 4] = ["yaml", "yml", "json", "toml"];

/// A folder of flows.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) dir: PathBuf,
}

/// A file that is, or should be, a flow.
#[derive(Clone, Debug)]
pub(crate) struct FlowFile {
    pub(crate) path: PathBuf,
    /// What it says of itself, or why it cannot be read.
    pub(crate) head: Result<Head, String>,
}

/// Why no one flow has a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotFound {
    /// There is none.
    #[error("no flow `{name}`; there is {known}{hint}")]
    Unknown { name: String, known: String, hint: String },
    /// Two files use it.
    #[error("{} and {} both are `{name}`; give one of them another name", files[0], files[1])]
    Several { name: String, files: [String; 2] },
    /// The folder cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

impl FlowFile {
    fn name(&self) -> Option<&str> {
        self.head.as_ref().ok().map(|head| head.name.as_str())
    }
}

impl Folder {
    /// The files of the folder, by name, with what they call themselves. Blocks on the disk.
    ///
    /// # Errors
    /// The folder cannot be read, or has too many files.
    pub(crate) fn files(&self) -> Result<Vec<FlowFile>, String> {
        let failed = |error: std::io::Error| format!("{}: cannot be read: {error}", self.dir.display());
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let is_flow = path.extension().is_some_and(|suffix| SUFFIXES.iter().any(|one| suffix == *one));
            if is_flow && path.is_file() {
                paths.push(path);
            }
            if paths.len() > MAX_FLOWS {
                return Err(format!(
                    "{}: more than {MAX_FLOWS} flows; the limit is {MAX_FLOWS}",
                    self.dir.display()
                ));
            }
        }
        paths.sort();
        Ok(paths.into_iter().map(|path| FlowFile { head: flow::head_of(&path), path }).collect())
    }

    /// The file of the flow with this name. Blocks on the disk.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub(crate) fn find(&self, name: &str) -> Result<PathBuf, NotFound> {
        let files = self.files().map_err(NotFound::Unreadable)?;
        let mut found = files.iter().filter(|file| file.name() == Some(name));
        match (found.next(), found.next()) {
            (Some(file), None) => Ok(file.path.clone()),
            (Some(one), Some(other)) => Err(NotFound::Several {
                name: name.to_owned(),
                files: [one, other].map(|file| shown(&file.path)),
            }),
            (None, _) => {
                let known = || files.iter().filter_map(FlowFile::name);
                let hint = flow::did_you_mean(name, known());
                let known = if known().next().is_none() { "none".to_owned() } else { flow::list_of(known()) };
                Err(NotFound::Unknown { name: name.to_owned(), known, hint })
            }
        }
    }
}

fn shown(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_found_by_the_name_that_it_gives_itself() {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("one.yaml", "name: quick\n"),
            ("two.toml", "name = 'slow'\n"),
            ("three.json", "{\"name\": \"both\"}"),
            ("four.yml", "name: both\n"),
            ("broken.yaml", "name: [\n"),
            ("notes.txt", "name: notes\n"),
        ] {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let folder = Folder { dir: folder.path().to_owned() };
        assert_eq!(folder.find("quick").unwrap(), folder.dir.join("one.yaml"));
        assert_eq!(folder.find("slow").unwrap(), folder.dir.join("two.toml"));
        assert!(
            folder
                .find("both")
                .unwrap_err()
                .to_string()
                .starts_with("four.yml and three.json both are `both`")
        );
        let told = folder.find("quic").unwrap_err().to_string();
        assert!(told.contains("no flow `quic`") && told.contains("`quick`"), "{told}");
        assert!(folder.find("notes").is_err() && folder.find("../one").is_err());
        let broken =
            folder.files().unwrap().into_iter().find(|file| file.path.ends_with("broken.yaml")).unwrap();
        assert!(broken.head.unwrap_err().contains("broken.yaml:"));
    }
}
