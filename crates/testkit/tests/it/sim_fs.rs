//! What a crash leaves on the disk in memory: no more than a real one would keep, and no less.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aqueduct_core::{Fs, FsFile};
use aqueduct_testkit::faults::{Fault, SimFs};

/// More than any test here has.
const MAX_DISKS: usize = 10_000;

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn at(path: &str) -> &Path {
    Path::new(path)
}

fn files(list: &[(&str, &str)]) -> Files {
    list.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).collect()
}

fn all(fs: &SimFs) -> Files {
    fs.files_below("/")
}

/// A new file with these bytes, not synced.
fn write(fs: &dyn Fs, path: &str, text: &str) -> io::Result<Box<dyn FsFile>> {
    let mut file = fs.create_new(at(path))?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// A disk with folders and files, all of it durable.
fn disk(folders: &[&str], list: &[(&str, &str)]) -> SimFs {
    let fs = SimFs::new();
    folders.iter().for_each(|folder| fs.create_dir_all(at(folder)).unwrap());
    list.iter().for_each(|(path, text)| drop(write(&fs, path, text).unwrap()));
    fs.sync();
    fs.reboot()
}

/// The files of every disk that a loss of power may leave.
fn left(fs: &SimFs) -> BTreeSet<Files> {
    fs.power_losses(7, MAX_DISKS).map(|after| all(&after)).collect()
}

fn left_is(fs: &SimFs, expected: &[&[(&str, &str)]]) {
    assert_eq!(left(fs), expected.iter().map(|list| files(list)).collect(), "{:#?}", fs.names());
}

#[test]
fn bytes_that_were_not_synced_may_be_lost() {
    let fs = disk(&[], &[]);
    write(&fs, "a", "xyz").unwrap();
    fs.sync_dir(at("/")).unwrap();
    left_is(&fs, &[&[("a", "")], &[("a", "x")], &[("a", "xy")], &[("a", "xyz")], &[("a", "\0\0\0")]]);
}

#[test]
fn bytes_that_were_synced_stay_and_those_behind_them_may_not() {
    let fs = disk(&[], &[]);
    let mut file = write(&fs, "a", "ab").unwrap();
    file.sync().unwrap();
    fs.sync_dir(at("/")).unwrap();
    left_is(&fs, &[&[("a", "ab")]]);
    file.write_all(b"cd").unwrap();
    left_is(&fs, &[&[("a", "ab")], &[("a", "abc")], &[("a", "abcd")], &[("a", "ab\0\0")]]);
}

#[test]
fn a_synced_file_may_lose_its_name() {
    let fs = disk(&["folder"], &[]);
    write(&fs, "folder/a", "1").unwrap().sync().unwrap();
    left_is(&fs, &[&[], &[("folder/a", "1")]]);
    fs.sync_dir(at("/")).unwrap();
    left_is(&fs, &[&[], &[("folder/a", "1")]]);
    fs.sync_dir(at("folder")).unwrap();
    left_is(&fs, &[&[("folder/a", "1")]]);
}

#[test]
fn what_is_in_a_folder_goes_with_the_folder() {
    let fs = disk(&[], &[]);
    fs.create_dir_all(at("new/deep")).unwrap();
    write(&fs, "new/deep/a", "1").unwrap().sync().unwrap();
    fs.sync_dir(at("new/deep")).unwrap();
    fs.sync_dir(at("new")).unwrap();
    left_is(&fs, &[&[], &[("new/deep/a", "1")]]);
    let folders: Vec<_> = fs.power_losses(7, MAX_DISKS).map(|after| after.folders_below("/").len()).collect();
    assert_eq!(folders, [0, 2], "both or none");
}

#[test]
fn a_rename_is_durable_when_either_folder_is_synced() {
    for synced in ["from", "to"] {
        let fs = disk(&["from", "to"], &[("from/a", "new"), ("to/a", "old")]);
        fs.rename(at("from/a"), at("to/a")).unwrap();
        left_is(&fs, &[&[("from/a", "new"), ("to/a", "old")], &[("to/a", "new")]]);
        fs.sync_dir(at(synced)).unwrap();
        left_is(&fs, &[&[("to/a", "new")]]);
    }
}

#[test]
fn an_exchange_is_one_act() {
    let fs = disk(&["a", "b/deep"], &[("a/1", "1"), ("b/deep/2", "2")]);
    fs.exchange(at("a"), at("b/deep")).unwrap();
    left_is(&fs, &[&[("a/1", "1"), ("b/deep/2", "2")], &[("a/2", "2"), ("b/deep/1", "1")]]);
    fs.sync_dir(at("b")).unwrap();
    left_is(&fs, &[&[("a/2", "2"), ("b/deep/1", "1")]]);
}

#[test]
fn a_second_name_is_as_little_durable_as_a_first() {
    let fs = disk(&["other"], &[("a", "1")]);
    fs.link(at("a"), at("other/b")).unwrap();
    left_is(&fs, &[&[("a", "1")], &[("a", "1"), ("other/b", "1")]]);
    fs.sync_dir(at("other")).unwrap();
    left_is(&fs, &[&[("a", "1"), ("other/b", "1")]]);
}

#[test]
fn removals_may_be_undone_one_by_one() {
    let fs = disk(&["folder"], &[("folder/a", "1"), ("folder/b", "2")]);
    fs.remove_dir_all(at("folder")).unwrap();
    let (a, b) = (("folder/a", "1"), ("folder/b", "2"));
    left_is(&fs, &[&[], &[a], &[b], &[a, b]]);
    fs.sync_dir(at("/")).unwrap();
    left_is(&fs, &[&[]]);
}

#[test]
fn a_name_leads_to_its_file_though_what_it_builds_on_is_lost() {
    let fs = disk(&[], &[]);
    write(&fs, "a", "1").unwrap().sync().unwrap();
    fs.rename(at("a"), at("b")).unwrap();
    fs.rename(at("b"), at("c")).unwrap();
    let seen = left(&fs);
    assert!(seen.contains(&files(&[("a", "1"), ("c", "1")])), "only the rename to b is lost: {seen:?}");
    assert!(seen.contains(&files(&[("c", "1")])));
    assert!(seen.contains(&files(&[])));
}

#[test]
fn a_folder_has_one_name_whatever_is_lost() {
    let fs = disk(&["a"], &[("a/file", "1")]);
    fs.rename_no_replace(at("a"), at("b")).unwrap();
    fs.rename_no_replace(at("b"), at("c")).unwrap();
    left_is(&fs, &[&[("a/file", "1")], &[("b/file", "1")], &[("c/file", "1")]]);
}

#[test]
fn what_is_synced_brings_what_it_builds_on() {
    let fs = disk(&["x", "y"], &[("x/a", "1")]);
    fs.rename(at("x/a"), at("x/b")).unwrap();
    fs.rename(at("x/b"), at("y/c")).unwrap();
    write(&fs, "x/d", "").unwrap();
    fs.rename(at("x/d"), at("x/e")).unwrap();
    fs.sync_dir(at("y")).unwrap();
    left_is(&fs, &[&[("y/c", "1")], &[("x/d", ""), ("y/c", "1")], &[("x/e", ""), ("y/c", "1")]]);
}

#[test]
fn a_killed_process_loses_nothing_and_secures_nothing() {
    let fs = disk(&[], &[]);
    write(&fs, "a", "x").unwrap();
    let before = left(&fs);
    let next = fs.reboot();
    assert_eq!(all(&next), files(&[("a", "x")]));
    assert_eq!(left(&next), before);
    assert!(before.contains(&files(&[])), "still not durable");
    write(&next, "b", "").unwrap();
    assert_eq!(all(&fs), files(&[("a", "x")]), "a copy");
}

/// A commit as it should be, with the parts that can be left out numbered.
fn commit(fs: &dyn Fs, left_out: Option<u32>) -> io::Result<()> {
    fs.remove_file(at("stage/next"))?;
    let mut file = write(fs, "stage/next", "new")?;
    if left_out != Some(0) {
        file.sync()?;
    }
    fs.rename(at("stage/next"), at("data/now"))?;
    if left_out != Some(1) {
        fs.sync_dir(at("data"))?;
    }
    Ok(())
}

/// What a reader finds after any crash of a commit: every fault at every operation.
fn after_any_crash(left_out: Option<u32>) -> BTreeSet<Vec<u8>> {
    let start = disk(&["stage", "data"], &[("data/now", "old")]);
    let unharmed = start.reboot();
    commit(&unharmed, left_out).unwrap();
    let mut seen = BTreeSet::new();
    for (nth, fault) in (0..unharmed.n_operations()).flat_map(|nth| Fault::ALL.map(|fault| (nth, fault))) {
        let fs = start.reboot().with_fault(nth, fault);
        let told = commit(&fs, left_out);
        assert!(told.is_err(), "{fault:?} at {nth}");
        assert_eq!(fs.is_killed(), fault.is_deadly());
        let disks = fs.power_losses(nth, MAX_DISKS).chain([fs.reboot()]);
        seen.extend(disks.map(|after| all(&after).remove(at("data/now")).unwrap_or(b"nothing".to_vec())));
    }
    // One that was told that all is well.
    let told_well = unharmed.power_losses(0, MAX_DISKS).map(|after| after.files_below("data/now"));
    seen.extend(
        told_well.map(|found| if found == files(&[("", "new")]) { b"kept" } else { b"lost" }.to_vec()),
    );
    seen
}

#[test]
fn a_careful_commit_is_whole_after_any_crash_and_a_careless_one_is_not() {
    let found = |left_out| after_any_crash(left_out).into_iter().map(|text| String::from_utf8(text).unwrap());
    assert_eq!(found(None).collect::<Vec<_>>(), ["kept", "new", "old"]);
    let without_file_sync: BTreeSet<_> = found(Some(0)).collect();
    assert!(["", "n", "\0\0\0", "lost"].iter().all(|text| without_file_sync.contains(*text)));
    assert_eq!(found(Some(1)).collect::<Vec<_>>(), ["kept", "lost", "new", "old"]);
}

/// What is on the disk when the third of four operations meets a fault, and whether the process lives on.
fn struck(fault: Fault) -> (Files, bool) {
    let fs = disk(&[], &[]).with_fault(1, fault);
    let mut file = fs.create_new(at("a")).unwrap();
    assert!(file.write(b"wxyz").is_err());
    assert_eq!(fs.n_operations(), 2);
    let lives_on = file.write(b"!").is_ok();
    assert_eq!(lives_on, !fs.is_killed());
    assert_eq!(fs.n_operations(), if lives_on { 3 } else { 2 });
    (all(&fs), lives_on)
}

#[test]
fn each_fault_does_what_it_says() {
    assert_eq!(struck(Fault::KillBefore), (files(&[("a", "")]), false));
    assert_eq!(struck(Fault::KillAfter), (files(&[("a", "wxyz")]), false));
    assert_eq!(struck(Fault::ShortWrite), (files(&[("a", "wx")]), false));
    assert_eq!(struck(Fault::PowerLoss), (files(&[("a", "wxyz")]), false));
    assert_eq!(struck(Fault::Full), (files(&[("a", "!")]), true));
    assert_eq!(struck(Fault::EIO), (files(&[("a", "!")]), true));

    let fs = SimFs::new().with_fault(0, Fault::Full).with_fault(1, Fault::EIO);
    assert_eq!(fs.create_new(at("a")).err().unwrap().kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs.create_new(at("a")).err().unwrap().raw_os_error(), Some(5));
    fs.create_new(at("a")).unwrap();
}

#[test]
fn half_of_an_operation_is_half_of_its_steps() {
    let fs = SimFs::new().with_fault(0, Fault::ShortWrite);
    fs.create_dir_all(at("a/b/c")).unwrap_err();
    assert_eq!(fs.folders_below("/"), BTreeSet::from(["a", "a/b"].map(PathBuf::from)));
    let fs = disk(&["a"], &[("a/1", ""), ("a/2", ""), ("a/3", "")]).with_fault(0, Fault::ShortWrite);
    fs.remove_dir_all(at("a")).unwrap_err();
    assert_eq!(all(&fs), files(&[("a/3", "")]));
    let fs = disk(&[], &[("a", "")]).with_fault(0, Fault::ShortWrite);
    fs.rename(at("a"), at("b")).unwrap_err();
    assert_eq!(all(&fs), files(&[("b", "")]), "one step is done");
}

#[test]
fn a_dead_process_does_nothing_more() {
    let fs = disk(&[], &[("a", "1")]).with_fault(3, Fault::KillAfter);
    let mut file = write(&fs, "b", "2").unwrap();
    let mut lock = fs.try_lock(at("lock")).unwrap().unwrap();
    fs.remove_file(at("a")).unwrap_err();
    let before = all(&fs);
    let calls = [
        file.write(b"3").map(drop),
        file.flush(),
        file.sync(),
        lock.set_content(b"4"),
        fs.create_new(at("c")).map(drop),
        fs.create_dir_all(at("d")),
        fs.sync_dir(at("/")),
        fs.rename(at("b"), at("e")),
        fs.exchange(at("b"), at("lock")),
        fs.try_lock(at("lock")).map(drop),
        fs.list(at("/")).map(drop),
        fs.read(at("b"), 10).map(drop),
        fs.stat(at("b")).map(drop),
    ];
    for call in calls {
        assert_eq!(call.unwrap_err().to_string(), "the process was killed");
    }
    assert_eq!((all(&fs), fs.n_operations()), (before.clone(), 4));
    assert!(left(&fs).contains(&files(&[("a", "1")])), "its last syncs did nothing");
    assert_eq!(before, files(&[("b", "2"), ("lock", "")]));
}

#[test]
fn a_file_whose_sync_failed_is_lost_and_another_sync_only_says_otherwise() {
    let fs = disk(&[], &[]).with_fault(2, Fault::EIO);
    let mut file = write(&fs, "a", "x").unwrap();
    file.sync().unwrap_err();
    file.sync().unwrap();
    fs.sync_dir(at("/")).unwrap();
    left_is(&fs, &[&[("a", "")], &[("a", "x")], &[("a", "\0")]]);
}

#[test]
fn a_folder_whose_sync_failed_can_be_synced_again() {
    let fs = disk(&[], &[]).with_fault(1, Fault::EIO);
    fs.create_new(at("a")).unwrap();
    fs.sync_dir(at("/")).unwrap_err();
    left_is(&fs, &[&[], &[("a", "")]]);
    fs.sync_dir(at("/")).unwrap();
    left_is(&fs, &[&[("a", "")]]);
}

#[test]
fn reads_fail_where_they_are_told_to() {
    let fs = disk(&[], &[("a", "1")]).with_read_error(1).with_read_error(2);
    fs.stat(at("a")).unwrap();
    assert_eq!(fs.read(at("a"), 10).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(fs.list(at("/")).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(fs.read(at("a"), 10).unwrap(), b"1");
    assert_eq!((fs.n_reads(), fs.n_operations()), (4, 0));
}

#[test]
fn parts_of_an_open_file_are_read_whatever_becomes_of_its_name() {
    let fs = disk(&[], &[("a", "abcdef")]).with_read_error(3);
    let file = fs.open_read(at("a")).unwrap();
    fs.remove_file(at("a")).unwrap();
    let part = |offset| {
        let mut buffer = [0; 3];
        file.read_exact_at(&mut buffer, offset).map(|()| buffer)
    };
    assert_eq!(part(1).unwrap(), *b"bcd");
    assert_eq!(part(4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(part(0).unwrap_err().raw_os_error(), Some(5), "the fourth look");
    assert_eq!(fs.open_read(at("a")).err().unwrap().kind(), io::ErrorKind::NotFound);
    assert_eq!(fs.n_operations(), 1);
}

#[test]
fn a_lock_keeps_out_others_until_its_holder_is_gone() {
    let one = SimFs::new().with_fault(2, Fault::KillBefore);
    let two = one.another_process();
    let lock = at("lock");
    let mut held = one.try_lock(lock).unwrap().unwrap();
    assert!(two.try_lock(lock).unwrap().is_none());
    assert!(one.try_lock(lock).unwrap().is_none(), "by the same process, too");
    held.set_content(b"never written").unwrap_err();
    assert_eq!(two.files_below(lock), files(&[("", "")]));

    let taken_over = two.try_lock(lock).unwrap().unwrap();
    drop(held);
    assert!(two.try_lock(lock).unwrap().is_none(), "the dead process has let go of its own lock only");
    drop(taken_over);
    let mut held = two.try_lock(lock).unwrap().unwrap();
    held.set_content(b"two").unwrap();
    assert_eq!(two.files_below(lock), files(&[("", "two")]));
}

#[test]
fn a_lock_file_that_is_removed_while_held_is_another_than_the_next() {
    let one = SimFs::new();
    let two = one.another_process();
    let held = one.try_lock(at("lock")).unwrap().unwrap();
    one.remove_file(at("lock")).unwrap();
    let next = two.try_lock(at("lock")).unwrap().unwrap();
    drop(held);
    assert!(one.try_lock(at("lock")).unwrap().is_none());
    drop(next);
    assert!(one.try_lock(at("lock")).unwrap().is_some());
    assert!(one.reboot().try_lock(at("lock")).unwrap().is_some(), "a reboot frees all");
}

#[test]
fn a_zombie_writes_on_where_its_successor_has_been() {
    let zombie = disk(&["stage"], &[]);
    let mut file = write(&zombie, "stage/part", "1").unwrap();
    let successor = zombie.another_process().with_fault(1, Fault::KillAfter);
    successor.rename(at("stage"), at("taken")).unwrap();
    file.write_all(b"2").unwrap();
    assert_eq!(all(&successor), files(&[("taken/part", "12")]));
    assert_eq!(zombie.stat(at("stage/part")).unwrap(), None);
    successor.remove_dir_all(at("taken")).unwrap_err();
    file.write_all(b"3").unwrap();
    zombie.create_dir_all(at("lives")).unwrap();
    assert_eq!((zombie.n_operations(), successor.n_operations()), (5, 2));

    let zombie = zombie.with_fault(5, Fault::PowerLoss);
    let bystander = zombie.another_process();
    zombie.sync_dir(at("/")).unwrap_err();
    assert!(bystander.is_killed(), "the power is gone for all");
}

#[test]
fn a_watcher_sees_every_step() {
    let fs = disk(&[], &[("a", "1")]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shown = Arc::clone(&seen);
    fs.watch(move |view| {
        let names = view.list(at("/")).unwrap().into_iter().map(|entry| entry.path.display().to_string());
        shown.lock().unwrap().push(names.collect::<Vec<_>>().join(" "));
        // Its own copy, to do with as it likes.
        view.remove_dir_all(at("b")).unwrap();
    });
    fs.create_dir_all(at("b/c")).unwrap();
    fs.rename(at("a"), at("b/a")).unwrap();
    fs.sync_dir(at("/")).unwrap();
    fs.rename(at("missing"), at("a")).unwrap_err();
    fs.another_process().remove_dir_all(at("b")).unwrap();
    let root = |names: &[&str]| names.iter().map(|name| format!("/{name}")).collect::<Vec<_>>().join(" ");
    let expected = [&["a", "b"][..], &["a", "b"], &["b"], &["b"], &["b"], &[]];
    assert_eq!(*seen.lock().unwrap(), expected.map(root));
}

#[test]
fn a_watcher_that_panics_does_not_hide_the_disk() {
    let fs = SimFs::new();
    fs.watch(|view| assert!(view.stat(at("bad")).unwrap().is_none(), "seen"));
    fs.create_dir_all(at("good")).unwrap();
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fs.create_dir_all(at("bad"))));
    broken.unwrap_err();
    assert_eq!(fs.names().last().unwrap(), "1 create_dir_all bad");
}

#[test]
fn the_names_tell_the_story() {
    let fs = SimFs::new().with_fault(4, Fault::PowerLoss);
    write(&fs, "a", "12345").unwrap();
    fs.rename(at("a"), at("b")).unwrap();
    fs.another_process().rename(at("a"), at("c")).unwrap_err();
    fs.sync_dir(at("/")).unwrap();
    fs.link(at("b"), at("c")).unwrap_err();
    let nothing_kept = fs.power_losses(0, 1).next().unwrap();
    drop(write(&nothing_kept, "d", ""));
    let expected = [
        "0 create_new a",
        "1 write a (5 bytes)",
        "2 rename a -> b",
        "process 1: 0 rename a -> c: entity not found",
        "3 sync_dir /",
        "4 link b -> c: PowerLoss",
        "power loss",
        "  lost: 4 link b -> c: PowerLoss [c]",
        "  left of a: 0 of 5 bytes",
        "0 create_new d",
        "1 write d (0 bytes)",
    ];
    assert_eq!(nothing_kept.names(), expected[..10]);
    assert_eq!(fs.reboot().names().last().unwrap(), "reboot");
}

#[test]
fn the_same_seed_gives_the_same_disks_no_more_than_asked_for_and_none_twice() {
    let fs = disk(&[], &[]);
    for name in ["a", "b", "c", "d", "e", "f"] {
        write(&fs, name, "some text").unwrap();
    }
    let disks =
        |seed, max_disks| fs.power_losses(seed, max_disks).map(|after| all(&after)).collect::<Vec<_>>();
    let some = disks(1, 100);
    assert_eq!(some, disks(1, 100));
    assert_ne!(some, disks(2, 100));
    assert_eq!(some.len(), 100);
    assert_eq!(some.iter().collect::<BTreeSet<_>>().len(), 100);
    assert_eq!((some[0].clone(), some[1].clone()), (Files::new(), all(&fs)));
    assert_eq!(disks(1, 3), some[..3]);
}

#[test]
fn a_disk_may_lack_the_exchange() {
    let fs = disk(&[], &[("a", "1"), ("b", "2")]).without_exchange();
    for fs in [fs.clone(), fs.another_process(), fs.reboot(), fs.power_losses(0, 1).next().unwrap()] {
        let refused = fs.exchange(at("a"), at("b")).unwrap_err();
        assert_eq!((refused.kind(), fs.n_operations()), (io::ErrorKind::Unsupported, 0));
    }
}
