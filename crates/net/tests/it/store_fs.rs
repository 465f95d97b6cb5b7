//! Durable writes to a server that speaks S3.

use std::io::{ErrorKind, Write};
use std::path::Path;

use aqueduct_core::{Fs, Objects};
use aqueduct_net::{HttpOptions, StorageOptions, StoreFs};
use aqueduct_testkit::s3::{S3Server, Wrong};

fn fs(server: &S3Server) -> StoreFs {
    let storage: StorageOptions = serde_json::from_value(server.storage()).unwrap();
    let http: HttpOptions = serde_json::from_value(serde_json::json!({ "retries": 0 })).unwrap();
    StoreFs::new(storage, http)
}

fn write(fs: &dyn Fs, path: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = fs.create_new(Path::new(path))?;
    file.write_all(bytes)?;
    file.sync()
}

fn objects(fs: &StoreFs) -> &dyn Objects {
    Fs::objects(fs, Path::new("s3://lake")).unwrap()
}

#[test]
fn an_object_appears_when_it_is_synced_and_is_found_by_its_folder() {
    let server = S3Server::start().unwrap();
    let fs = fs(&server);
    let mut file = fs.create_new(Path::new("s3://lake/a/day=1/x.txt")).unwrap();
    file.write_all(b"hello").unwrap();
    assert_eq!(fs.stat(Path::new("s3://lake/a/day=1/x.txt")).unwrap(), None);
    file.sync().unwrap();
    write(&fs, "s3://lake/a/y.txt", b"").unwrap();
    write(&fs, "s3://lake/ab", b"a neighbour").unwrap();
    let listed = |path| {
        let entries = fs.list(Path::new(path)).unwrap();
        entries
            .iter()
            .map(|entry| (entry.path.display().to_string(), entry.is_dir, entry.n_bytes))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        listed("s3://lake/a"),
        [("s3://lake/a/day=1".into(), true, 0), ("s3://lake/a/y.txt".into(), false, 0)]
    );
    assert!(fs.stat(Path::new("s3://lake/a/day=1")).unwrap().unwrap().is_dir);
    assert_eq!(fs.read(Path::new("s3://lake/a/day=1/x.txt"), 5).unwrap(), b"hello");
    assert_eq!(fs.read(Path::new("s3://lake/a/day=1/x.txt"), 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
    let (read, mut middle) = (fs.open_read(Path::new("s3://lake/a/day=1/x.txt")).unwrap(), [0; 3]);
    read.read_exact_at(&mut middle, 1).unwrap();
    assert_eq!(&middle, b"ell");
    assert_eq!(read.read_exact_at(&mut middle, 3).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    let mut below = Vec::new();
    objects(&fs)
        .each_below(Path::new("s3://lake/a"), &mut |entry| {
            below.push((entry.path.display().to_string(), entry.n_bytes));
            Ok(())
        })
        .unwrap();
    below.sort();
    assert_eq!(below, [("s3://lake/a/day=1/x.txt".into(), 5), ("s3://lake/a/y.txt".into(), 0)]);
    fs.remove_dir_all(Path::new("s3://lake/a")).unwrap();
    assert_eq!(server.objects("").len(), 1, "the neighbour stays");
    fs.remove_file(Path::new("s3://lake/a/gone")).unwrap();
}

#[test]
fn of_two_writers_the_first_wins() {
    let server = S3Server::start().unwrap();
    let fs = fs(&server);
    let (fs, path) = (&fs, Path::new("s3://lake/manifest.json"));
    let store = objects(fs);
    assert_eq!(store.read_version(path, 10).unwrap(), None);
    store.put_over(path, b"one", None).unwrap();
    assert_eq!(store.put_over(path, b"other", None).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let (bytes, first) = store.read_version(path, 10).unwrap().unwrap();
    assert_eq!(bytes, b"one");
    store.put_over(path, b"two", Some(&first)).unwrap();
    assert_eq!(store.put_over(path, b"late", Some(&first)).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs.read(path, 10).unwrap(), b"two");
    assert_eq!(write(fs, "s3://lake/manifest.json", b"new").unwrap_err().kind(), ErrorKind::AlreadyExists);
    write(fs, "s3://lake/manifest.json", b"two").unwrap();
}

#[test]
fn what_is_sent_appears_when_it_is_completed_and_only_once() {
    let server = S3Server::start().unwrap();
    let (fs, dir) = (fs(&server), tempfile::tempdir().unwrap());
    let (from, to) = (dir.path().join("part"), Path::new("s3://lake/out/part"));
    // More than two pieces, the last of them short.
    let bytes: Vec<u8> = (0..20_000_000_u32).flat_map(|n| [(n % 251) as u8]).collect();
    std::fs::write(&from, &bytes).unwrap();
    let store = objects(&fs);
    let upload = store.upload(&from, to).unwrap();
    assert_eq!((upload.pieces.len(), fs.stat(to).unwrap(), server.n_uploads()), (3, None, 1));
    store.complete(to, &upload).unwrap();
    assert!(fs.read(to, u64::MAX).unwrap() == bytes);
    assert_eq!(store.complete(to, &upload).unwrap_err().kind(), ErrorKind::NotFound);
    let dropped = store.upload(&from, to).unwrap();
    store.abort(to, &dropped).unwrap();
    store.abort(to, &dropped).unwrap();
    assert_eq!(store.complete(to, &dropped).unwrap_err().kind(), ErrorKind::NotFound);
    std::fs::write(&from, b"").unwrap();
    let empty = store.upload(&from, Path::new("s3://lake/out/empty")).unwrap();
    store.complete(Path::new("s3://lake/out/empty"), &empty).unwrap();
    assert_eq!(fs.stat(Path::new("s3://lake/out/empty")).unwrap().unwrap().n_bytes, 0);
    assert_eq!(server.n_uploads(), 0);
}

#[test]
fn a_large_object_is_written_in_pieces() {
    let server = S3Server::start().unwrap();
    let (fs, piece) = (fs(&server), vec![7; 3 << 20]);
    let mut file = fs.create_new(Path::new("s3://lake/large")).unwrap();
    for _ in 0..7 {
        file.write_all(&piece).unwrap();
    }
    file.sync().unwrap();
    assert_eq!(fs.stat(Path::new("s3://lake/large")).unwrap().unwrap().n_bytes, 21 << 20);
    assert!(server.seen().iter().any(|request| request.contains("partNumber=3")), "{:?}", server.seen());
}

#[test]
fn what_the_store_says_comes_through_and_a_lost_reply_is_no_success() {
    let server = S3Server::start().unwrap();
    let fs = fs(&server);
    server.plan("PUT", "/secret", 1, Wrong::Refused(403));
    let denied = write(&fs, "s3://lake/secret", b"x").unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied, "{denied}");
    server.plan("PUT", "/lost", 1, Wrong::ReplyLost);
    let lost = objects(&fs).put_over(Path::new("s3://lake/lost"), b"x", None).unwrap_err();
    assert_ne!(lost.kind(), ErrorKind::AlreadyExists, "{lost}");
    assert_eq!(fs.read(Path::new("s3://lake/lost"), 1).unwrap(), b"x");
    for moved in [
        fs.rename(Path::new("s3://lake/a"), Path::new("s3://lake/b")),
        fs.link(Path::new("/nowhere/a"), Path::new("s3://lake/b")),
        fs.exchange(Path::new("s3://lake/a"), Path::new("/nowhere/b")),
    ] {
        assert_eq!(moved.unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
