"""Runs the queries of its arguments in turn, and prints the rows of the last one with tabs between the columns."""
import sys

import duckdb

rows = []
with duckdb.connect(config={"threads": 2, "temp_directory": sys.argv[1]}) as db:
    # It would stand among the rows.
    db.execute("SET enable_progress_bar = false")
    for query in sys.argv[2:]:
        rows = db.execute(query).fetchall()
for row in rows:
    print(*row, sep="\t")
