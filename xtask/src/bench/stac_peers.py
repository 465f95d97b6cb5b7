"""Items of STAC from NDJSON to stac-geoparquet in one file. Arguments: peer, input, output. Each as it comes."""
import asyncio
import itertools
import json
import os
import sys

peer, source, target = sys.argv[1:]


def rustac():
    import rustac

    async def convert():
        await rustac.write(target, await rustac.read(source))

    asyncio.run(convert())


def batches():
    import rustac

    async def convert(items):
        take = lambda: list(itertools.islice(items, 2000))
        async with rustac.geoparquet_writer(take(), target) as writer:
            while batch := take():
                await writer.write(batch)

    with open(source, "rb") as lines:
        asyncio.run(convert(map(json.loads, lines)))


def stac_geoparquet():
    from stac_geoparquet.arrow import parse_stac_ndjson_to_parquet

    parse_stac_ndjson_to_parquet(source, target)


{"rustac": rustac, "batches": batches, "stac-geoparquet": stac_geoparquet}[peer]()

# The output is closed by now. rustac's threads race with the end of the interpreter, and crash it more often than not:
# https://github.com/PyO3/pyo3-async-runtimes/issues/40
os._exit(0)
