"""What a stac-geoparquet file holds, every page of it read by pyarrow: whether it tells of its geometries, rows, the sum of
their cloud cover in ten-thousandths of a percent, rows before their turn. Or why it cannot be read."""
import json
import sys


def look(path):
    import pyarrow.parquet as parquet

    n_rows = cover = n_early = 0
    last = None
    with parquet.ParquetFile(path) as file:
        has_geo = b"geo" in (file.metadata.metadata or {})
        for batch in file.iter_batches():
            n_rows += len(batch)
            cover += sum(round(value * 10_000) for value in batch["eo:cloud_cover"].to_pylist())
            for time in filter(None, batch["datetime"].to_pylist()):
                n_early += last is not None and time < last
                last = time
    return {"has_geo": has_geo, "sums": {"n_rows": n_rows, "cover": cover}, "n_early": n_early}


try:
    print(json.dumps(look(sys.argv[1])))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
