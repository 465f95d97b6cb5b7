"""The first row of each id by (ts, seq), all in the order of (ts, seq), from NDJSON to Parquet with zstd.
Arguments: peer, limit in MB (0: none), input, output, folder for spill. Two threads; DataFusion has one partition, because
with two it does not end at 256 MB."""
import sys

peer, limit_mb, source, target, spill = sys.argv[1:]
limit_mb = int(limit_mb)


def duckdb():
    import duckdb

    c = duckdb.connect(config={"threads": 2, "temp_directory": spill, "preserve_insertion_order": False})
    rows = f"read_json('{source}', format = 'newline_delimited')"
    if limit_mb:
        c.execute(f"set memory_limit = '{limit_mb}MB'")
        # A window function fails at 256 MB, the same as an aggregate does not.
        firsts = f"select unnest(r) from (select arg_min(t, (ts, seq)) r from {rows} t group by id) order by r.ts, r.seq"
    else:
        firsts = f"select * from {rows} qualify row_number() over (partition by id order by ts, seq) = 1 order by ts, seq"
    c.execute(f"copy ({firsts}) to '{target}' (format parquet, compression zstd)")


def datafusion():
    import datafusion

    runtime = datafusion.RuntimeEnvBuilder().with_disk_manager_specified(spill)
    if limit_mb:
        runtime = runtime.with_fair_spill_pool(limit_mb * 1_000_000)
    config = datafusion.SessionConfig().with_target_partitions(1).with_batch_size(1024)
    config = config.set("datafusion.execution.sort_spill_reservation_bytes", "2097152")
    config = config.set("datafusion.execution.spill_compression", "zstd")
    c = datafusion.SessionContext(config, runtime)
    c.register_json("t", source, file_extension=".ndjson")
    firsts = "select * from (select *, row_number() over (partition by id order by ts, seq) n from t) where n = 1"
    c.sql(
        f"copy ({firsts} order by ts, seq) to '{target}' "
        "stored as parquet options ('format.compression' 'zstd(3)')"
    ).collect()


{"duckdb": duckdb, "datafusion": datafusion}[peer]()
