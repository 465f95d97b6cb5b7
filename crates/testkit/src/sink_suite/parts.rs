//! Parts against what is on disk.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use aqueduct_core::{Fs, Part, StdFs};

use super::{Reading, Trial};
use crate::suite::room::{Room, files_below};
use crate::suite::{Objection, Verdict, ensure, same_rows, texts};

/// No part of a fixture is larger.
const MAX_PART_BYTES: u64 = 64 << 20;

/// Checks that parts are what they say, and together hold all rows of the fixture.
pub(super) fn check_all(trial: &Trial, room: &Room, parts: &[Part]) -> Verdict {
    let fixture = &trial.fixture;
    let found = read(trial, room, parts)?;
    let expected = match &fixture.reading {
        Reading::NoParts => return Ok(()),
        Reading::Whole(all) => all.clone(),
        Reading::Rows(_) => fixture.batches.iter().flat_map(|(records, _)| texts(records)).collect(),
    };
    same_rows(&found, &expected, false)?;
    let n_rows: u64 = fixture.batches.iter().map(|(records, _)| records.num_rows() as u64).sum();
    let n_in_parts: u64 = parts.iter().map(|part| part.rows).sum();
    ensure!(n_in_parts == n_rows, "{n_rows} rows were written, and the parts say {n_in_parts}");
    Ok(())
}

/// Checks each part, and that nothing else is staged; what is in them.
pub(super) fn read(trial: &Trial, room: &Room, parts: &[Part]) -> Result<Vec<String>, Objection> {
    if matches!(trial.fixture.reading, Reading::NoParts) {
        ensure!(parts.is_empty(), "its fixture says that it has no parts, and there are {}", parts.len());
    }
    let mut found = Vec::new();
    for part in parts {
        let bytes = bytes_of(part, room)?;
        match &trial.fixture.reading {
            Reading::Rows(read) => {
                let rows = read(&part.name, &bytes);
                let (n_found, n_told) = (rows.len(), part.rows);
                ensure!(n_found as u64 == n_told, "{}: {n_found} rows, and it says {n_told}", part.name);
                found.extend(rows);
            }
            Reading::Whole(_) => found.push(String::from_utf8_lossy(&bytes).into_owned()),
            Reading::NoParts => {}
        }
    }
    let staged: BTreeSet<_> = parts.iter().map(|part| part.staged.clone()).collect();
    ensure!(staged.len() == parts.len(), "two parts lie in one place");
    let on_disk = files_below(room.stage())?;
    ensure!(staged == on_disk, "parts lie in {staged:?}, and staged are {on_disk:?}");
    Ok(found)
}

fn bytes_of(part: &Part, room: &Room) -> Result<Vec<u8>, Objection> {
    let name = &part.name;
    ensure!(part.staged.starts_with(room.stage()), "{name} is staged outside of its folder");
    let is_plain = |step: Component<'_>| matches!(step, Component::Normal(_));
    ensure!(
        !name.is_empty() && Path::new(name).components().all(is_plain),
        "`{name}` leads out of the output"
    );
    let bytes = StdFs.read(&part.staged, MAX_PART_BYTES)?;
    let (n_found, n_told) = (bytes.len(), part.n_bytes);
    ensure!(n_found as u64 == n_told, "{name}: {n_found} bytes, and it says {n_told}");
    let hash = blake3::hash(&bytes).to_hex();
    ensure!(hash.as_str() == part.blake3, "{name}: its BLAKE3 is {hash}, and it says {}", part.blake3);
    Ok(bytes)
}
