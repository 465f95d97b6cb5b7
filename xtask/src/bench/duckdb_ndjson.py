"""NDJSON to Parquet with zstd by DuckDB at 256 MB; two threads, as the machines that this is measured on have."""
import sys

import duckdb

source, target, spill = sys.argv[1:]
c = duckdb.connect()
c.sql("set threads = 2")
c.sql("set memory_limit = '256MB'")
c.sql("set preserve_insertion_order = false")
c.sql(f"set temp_directory = '{spill}'")
c.sql(
    f"copy (select * from read_json('{source}', format = 'newline_delimited')) "
    f"to '{target}' (format parquet, compression zstd)"
)
