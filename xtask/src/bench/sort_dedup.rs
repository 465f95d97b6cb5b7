//! The first event of each id by time, all in the order of time, from NDJSON to Parquet: far larger than the memory.
//! Beside DuckDB and DataFusion at the same limit, DuckDB with far more, and GNU sort with awk on the text.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::contest::{Contestant, Figures, clear, compete, named, times};
use super::memory_ladder::BESIDE_BYTES;
use super::{Bench, Events, Promise, megabytes, peers};
use crate::process::{command, output};
use crate::text;

/// What is given to ours and to the peers.
const MEMORY: &str = "256MB";
const MEMORY_MB: u64 = 256;

/// From this size on the free DuckDB gets 1 GB: all of the input would not fit.
const LARGE_BYTES: u64 = 4_000_000_000;

const OURS: &str = "aqueduct at 256 MB";
const DUCKDB: &str = "duckdb at 256 MB, arg_min";
const DATAFUSION: &str = "datafusion at 256 MB, 1 partition";
const DUCKDB_FREE: &str = "duckdb without a limit";
const DUCKDB_1GB: &str = "duckdb at 1 GB, arg_min";
const SORT: &str = "sort and awk, text to text";

const PEERS: &str = include_str!("sort_dedup.py");

/// Rows that DuckDB reads, sum of their `seq`, sum over hashes of what was not sorted by, and rows before their turn.
const CHECK: &str = "import duckdb, sys\n\
    duckdb.execute('set enable_progress_bar = false')\n\
    out = \"read_parquet('%s', file_row_number = true)\" % sys.argv[1]\n\
    print(*duckdb.execute(f'''select count(*), sum(seq)::bigint, sum(hash(id, seq::bigint, msg)::hugeint),\n\
      count(*) filter (where t is not null and (t, s) > (ts, seq)) from (select id, ts, seq, msg, lag(ts) over w t, lag(seq) over w s\n\
      from {out} window w as (order by file_row_number))''').fetchone())";

/// The same of the input, by another way than the peers': the least (ts, seq) of an id, then its row.
const EXPECT: &str = "import duckdb, sys\n\
    duckdb.execute('set enable_progress_bar = false')\n\
    t = \"read_json('%s', format = 'newline_delimited')\" % sys.argv[1]\n\
    print(*duckdb.execute(f'''select count(*), sum(seq)::bigint, sum(hash(id, seq::bigint, msg)::hugeint), 0 from {t}\n\
      where seq in (select arg_min(seq, (ts, seq)) from {t} group by id)''').fetchone())";

/// `id` is 16 digits from byte 8 on, `ts` 24 from byte 32 on; `sort` keeps rows of one time in the order of `seq`.
const SORT_AND_AWK: &str = "LC_ALL=C sort -S 200M --parallel=2 -T \"$2\" -s -k1.32,1.55 \"$0\" \
    | LC_ALL=C awk '!seen[substr($0, 8, 16)]++' > \"$1\"";

/// Runs it over about so many bytes of events.
///
/// # Errors
/// A side cannot be started, or ours comes out wrong.
pub(super) fn run(bench: &Bench, input_bytes: u64) -> Result<Vec<Promise>> {
    let events = Events::of_size(&bench.cache, input_bytes / bench.divisor)?;
    let race = Race::new(bench, events)?;
    let free = if input_bytes < LARGE_BYTES { (DUCKDB_FREE, 0) } else { (DUCKDB_1GB, 1000) };
    let contestants = [
        race.ours(),
        race.peer(DUCKDB, "duckdb", MEMORY_MB),
        race.peer(DATAFUSION, "datafusion", MEMORY_MB),
        race.peer(free.0, "duckdb", free.1),
        race.sort_and_awk(),
    ];
    let figures = compete(&contestants, bench.n_runs)?;
    Ok(promises(&figures))
}

fn promises(figures: &[Figures]) -> Vec<Promise> {
    let Some(ours) = figures.first() else { return Vec::new() };
    let limit = MEMORY_MB * 1_000_000 + BESIDE_BYTES;
    let mut promises = vec![Promise::must(
        format!(
            "peak RSS at most memory + 64 MiB: {} of {} MB",
            megabytes(ours.peak_rss_bytes),
            megabytes(limit)
        ),
        ours.peak_rss_bytes <= limit,
    )];
    for (name, is_must) in
        [(DUCKDB, true), (DATAFUSION, true), (DUCKDB_FREE, false), (DUCKDB_1GB, false), (SORT, false)]
    {
        if !figures.iter().any(|it| it.name == name) {
            continue;
        }
        let against = named(figures, name).map(|peer| times(ours.wall, peer.wall));
        let says = against.map_or_else(
            || format!("finishes where {name} does not"),
            |against| format!("quicker than {name}: {against:.2} of its time"),
        );
        promises.push(Promise { is_must, says, holds: against.is_none_or(|against| against < 1.0) });
    }
    promises
}

/// Rows, sum of `seq`, sum of hashes, rows before their turn.
type Found = Vec<String>;

/// What the sides need to know.
struct Race<'a> {
    bench: &'a Bench,
    events: Events,
    python: PathBuf,
    expected: Found,
}

impl<'a> Race<'a> {
    fn new(bench: &'a Bench, events: Events) -> Result<Self> {
        let python = peers::python(&bench.cache)?;
        let known = events.path.with_extension("firsts");
        if !known.exists() {
            text::write(&known, &found(&python, EXPECT, &events.path)?.join(" "))?;
        }
        let expected = text::read(&known)?.split_whitespace().map(str::to_owned).collect();
        Ok(Self { bench, events, python, expected })
    }

    fn ours(&self) -> Contestant<'_> {
        let target = self.bench.output("firsts.parquet");
        let flow = flow(&self.events.path, &target);
        let prepare = move || {
            clear(&self.bench.output("firsts.parquet"))?;
            Ok(self.bench.flow("sort-dedup", &flow)?.0)
        };
        Contestant {
            name: OURS,
            prepare: Box::new(prepare),
            outcome: Box::new(move || self.parquet(&target)),
        }
    }

    fn peer(&self, name: &'static str, peer: &'static str, limit_mb: u64) -> Contestant<'_> {
        let target = self.bench.output("firsts.parquet");
        let (checked, spill) = (target.clone(), self.bench.output("spill"));
        let prepare = move || {
            clear(&target)?;
            clear(&spill)?;
            text::make_dir(&spill)?;
            let mut run = command(&self.python, self.bench.scratch.path());
            run.args(["-c", PEERS, peer, &limit_mb.to_string()]).args([&self.events.path, &target, &spill]);
            Ok(run)
        };
        Contestant { name, prepare: Box::new(prepare), outcome: Box::new(move || self.parquet(&checked)) }
    }

    fn sort_and_awk(&self) -> Contestant<'_> {
        let target = self.bench.output("firsts.ndjson");
        let (made, spill) = (target.clone(), self.bench.output("spill"));
        let prepare = move || {
            clear(&spill)?;
            text::make_dir(&spill)?;
            let mut shell = command("bash", self.bench.scratch.path());
            shell.args(["-o", "pipefail", "-c", SORT_AND_AWK]).args([&self.events.path, &made, &spill]);
            Ok(shell)
        };
        let outcome = move || {
            let ndjson = target.with_extension("parquet");
            clear(&ndjson)?;
            self.to_parquet(&target, &ndjson)?;
            let told = self.parquet(&ndjson)?;
            clear(&target)?;
            Ok(told)
        };
        Contestant { name: SORT, prepare: Box::new(prepare), outcome: Box::new(outcome) }
    }

    /// So that one check serves all; the order of the rows is kept.
    fn to_parquet(&self, ndjson: &Path, parquet: &Path) -> Result<()> {
        const CONVERT: &str = "import duckdb, sys\n\
            duckdb.execute('set enable_progress_bar = false')\n\
            duckdb.execute(\"copy (select id, ts, seq, msg from read_json('%s', format = 'newline_delimited')) \
            to '%s' (format parquet)\" % tuple(sys.argv[1:]))";
        let mut run = command(&self.python, self.bench.scratch.path());
        output(run.args(["-c", CONVERT]).args([ndjson, parquet])).map(drop)
    }

    fn parquet(&self, parquet: &Path) -> Result<String> {
        let found = found(&self.python, CHECK, parquet)?;
        right(&self.expected, &found)?;
        Ok(format!("{} rows, {} MB", found[0], megabytes(parquet.metadata()?.len())))
    }
}

fn right(expected: &[String], found: &[String]) -> Result<()> {
    ensure!(found == expected, "rows, sums and rows before their turn are {found:?}, not {expected:?}");
    Ok(())
}

fn found(python: &Path, script: &str, of: &Path) -> Result<Found> {
    let folder = of.parent().context("a file lies in a folder")?;
    let told = output(command(python, folder).args(["-c", script]).arg(of))?;
    let found: Found = told.split_whitespace().map(str::to_owned).collect();
    ensure!(found.len() == 4, "`{told}` is not four numbers");
    Ok(found)
}

fn flow(source: &Path, target: &Path) -> String {
    format!(
        "name: bench-sort-dedup\nmemory: {MEMORY}\n\
         source: {{ files: {{ paths: [\"{}\"], format: ndjson }} }}\n\
         stages:\n  - dedup: {{ keys: [id], keep: first, by: [ts, seq] }}\n  - sort: {{ by: [ts, seq] }}\n\
         sink: {{ parquet: {{ path: \"{}\", compression: zstd }} }}\n",
        source.display(),
        target.display()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn figures(name: &'static str, seconds: u64, is_right: bool) -> Figures {
        let wall = Duration::from_secs(seconds);
        Figures { name, wall, cpu: wall, peak_rss_bytes: 300_000_000, outcome: String::new(), is_right }
    }

    #[test]
    fn a_peer_that_fails_is_beaten_and_a_quicker_one_is_not() {
        let told = promises(&[
            figures(OURS, 9, true),
            figures(DUCKDB, 1, false),
            figures(DATAFUSION, 9, true),
            figures(SORT, 10, true),
        ]);
        let holds: Vec<_> = told.iter().map(|promise| (promise.is_must, promise.holds)).collect();
        assert_eq!(holds, [(true, true), (true, true), (true, false), (false, true)]);
        let large = Figures { peak_rss_bytes: 330_000_000, ..figures(OURS, 9, true) };
        assert!(!promises(&[large])[0].holds);
    }

    #[test]
    fn each_number_that_differs_is_wrong() {
        let numbers = |text: &str| text.split(' ').map(str::to_owned).collect::<Found>();
        let expected = numbers("10 45 77 0");
        assert!(right(&expected, &expected).is_ok());
        for wrong in ["9 45 77 0", "10 44 77 0", "10 45 78 0", "10 45 77 1"] {
            assert!(right(&expected, &numbers(wrong)).is_err(), "{wrong}");
        }
    }
}
