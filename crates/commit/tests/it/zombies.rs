//! A writer that was thought dead: it stands still before one of its operations while another process takes over, ends
//! the run, and then it goes on.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use aqueduct_core::{Fs, FsEntry, FsFile, FsLock, FsRead, Objects, Upload, Version};
use aqueduct_testkit::faults::SimFs;

use crate::kills::{
    AGAIN, BEFORE, FILE_APPENDED, FILE_REPLACED, FIRST, FOLDER_APPENDED, FOLDER_REPLACED, LAST, LATER, Trial,
    has_ended, seam,
};

/// A disk on which a process stands still before its operation of this number, and on which it has all locks that it
/// asks for: somebody has taken them away, and it does not know.
#[derive(Debug)]
struct Standing {
    disk: SimFs,
    at: u64,
    n_operations: AtomicU64,
    /// Told when it stands still.
    stands: SyncSender<()>,
    /// Says when to go on.
    go_on: Mutex<Receiver<()>>,
}

impl Standing {
    fn step(&self) {
        if self.n_operations.fetch_add(1, Relaxed) == self.at {
            self.stands.send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
    }
}

/// The same, shared with its files.
#[derive(Clone, Debug)]
struct Process(Arc<Standing>);

struct File {
    file: Box<dyn FsFile>,
    process: Process,
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.process.0.step();
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl FsFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.process.0.step();
        self.file.sync()
    }
}

#[derive(Debug)]
struct NoLock;

impl FsLock for NoLock {
    fn set_content(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl Process {
    fn stepped(&self) -> &SimFs {
        self.0.step();
        &self.0.disk
    }
}

impl Fs for Process {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let file = self.stepped().create_new(path)?;
        Ok(Box::new(File { file, process: self.clone() }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.stepped().create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.stepped().sync_dir(path)
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.stepped().rename_no_replace(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.stepped().rename(from, to)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        self.stepped().exchange(a, b)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.stepped().link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        // A lock that it has not it cannot remove: that is what taking it away means.
        match path.extension().is_some_and(|suffix| suffix == "lock") {
            true => Ok(()),
            false => self.stepped().remove_file(path),
        }
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.stepped().remove_dir_all(path)
    }

    fn remove_empty_dir(&self, path: &Path) -> io::Result<()> {
        self.stepped().remove_empty_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<FsEntry>> {
        self.0.disk.list(path)
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        self.0.disk.read(path, max_bytes)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn FsRead>> {
        self.0.disk.open_read(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<FsEntry>> {
        self.0.disk.stat(path)
    }

    fn objects(&self, path: &Path) -> Option<&dyn Objects> {
        self.0.disk.objects(path).map(|_| self as &dyn Objects)
    }

    fn try_lock(&self, _: &Path) -> io::Result<Option<Box<dyn FsLock>>> {
        Ok(Some(Box::new(NoLock)))
    }
}

impl Objects for Process {
    fn upload(&self, from: &Path, to: &Path) -> io::Result<Upload> {
        self.stepped().upload(from, to)
    }

    fn complete(&self, to: &Path, upload: &Upload) -> io::Result<()> {
        self.stepped().complete(to, upload)
    }

    fn abort(&self, to: &Path, upload: &Upload) -> io::Result<()> {
        self.stepped().abort(to, upload)
    }

    fn read_version(&self, path: &Path, max_bytes: u64) -> io::Result<Option<(Vec<u8>, Version)>> {
        // What was read is old when it is written over.
        self.stepped().read_version(path, max_bytes)
    }

    fn put_over(&self, path: &Path, bytes: &[u8], over: Option<&Version>) -> io::Result<()> {
        self.stepped().put_over(path, bytes, over)
    }

    fn each_below(&self, folder: &Path, give: &mut dyn FnMut(FsEntry) -> io::Result<()>) -> io::Result<()> {
        self.0.disk.each_below(folder, give)
    }
}

/// Stands still before each operation in turn, until a run has fewer. Not before the first: it has not read the log then,
/// and is a later run.
fn stands_still_at_each_operation(trial: &Trial) {
    let start = trial.disk();
    for at in 1.. {
        let disk = start.reboot();
        let ((stands, stood), (go_on, wait)) = (sync_channel(1), sync_channel(1));
        let (n_operations, go_on_when) = (AtomicU64::new(0), Mutex::new(wait));
        let standing = Standing { disk: disk.clone(), at, n_operations, stands, go_on: go_on_when };
        let zombie: Arc<dyn Fs> = Arc::new(Process(Arc::new(standing)));
        let (flow, case) = (trial.flow, format!("stands still at {at}"));
        let run = std::thread::spawn(move || flow.run(&zombie, FIRST).map_err(|error| error.chain()));
        // It stands still, or has ended and is no more there to say so.
        if stood.recv().is_err() {
            run.join().unwrap().unwrap();
            break;
        }
        trial.n_cases.fetch_add(1, Relaxed);
        let work = if has_ended(&disk, FIRST) { LATER } else { AGAIN };
        let taken_over = trial.flow.run(&seam(&disk.another_process()), work);
        go_on.send(()).unwrap();
        // That it fails is as well as that it finds all done.
        let _ = run.join().unwrap();
        let mut works =
            if work.run_id == LATER.run_id { vec![BEFORE, FIRST, LATER] } else { vec![BEFORE, AGAIN] };
        if let Err(error) = taken_over {
            trial.violated(&disk, &format!("{case}: who took over failed: {}", error.chain()));
            continue;
        }
        works.push(LAST);
        match trial.flow.run(&seam(&disk.another_process()), LAST) {
            Ok(()) => trial.judge(&disk, &works, &case),
            Err(error) => trial.violated(&disk, &format!("{case}: a later run failed: {}", error.chain())),
        }
    }
}

#[test]
fn of_two_folders_replaced() {
    let trial = Trial::of([FOLDER_REPLACED, FOLDER_REPLACED]);
    stands_still_at_each_operation(&trial);
    trial.end("two folders replaced, a writer thought dead");
}

#[test]
fn of_two_folders_appended_to() {
    let trial = Trial::of([FOLDER_APPENDED, FOLDER_APPENDED]);
    stands_still_at_each_operation(&trial);
    trial.end("two folders appended to, a writer thought dead");
}

#[test]
fn of_a_file_replaced_and_one_appended_to() {
    let trial = Trial::of([FILE_REPLACED, FILE_APPENDED]);
    stands_still_at_each_operation(&trial);
    trial.end("a file replaced and one appended to, a writer thought dead");
}

#[test]
fn of_two_folders_replaced_in_a_store() {
    let trial = Trial::of([FOLDER_REPLACED.in_store(), FOLDER_REPLACED.in_store()]);
    stands_still_at_each_operation(&trial);
    trial.end("two folders replaced in a store, a writer thought dead");
}

#[test]
fn of_two_folders_appended_to_in_a_store() {
    let trial = Trial::of([FOLDER_APPENDED.in_store(), FOLDER_APPENDED.in_store()]);
    stands_still_at_each_operation(&trial);
    trial.end("two folders appended to in a store, a writer thought dead");
}

#[test]
fn of_all_in_a_store() {
    let trial = Trial::with_log_in_store([FOLDER_REPLACED.in_store(), FOLDER_APPENDED.in_store()]);
    stands_still_at_each_operation(&trial);
    trial.end("all in a store, a writer thought dead");
}
