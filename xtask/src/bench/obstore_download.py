"""Downloads every name of a list from a root URL into a folder, ten at a time, each made durable."""
import asyncio
import os
import sys

import obstore
from obstore.store import HTTPStore

root, names, folder = sys.argv[1], open(sys.argv[2]).read().split(), sys.argv[3]


async def main():
    store = HTTPStore.from_url(root, client_options={"allow_http": True})
    window = asyncio.Semaphore(10)

    async def one(name):
        async with window:
            answer = await obstore.get_async(store, name)
            with open(os.path.join(folder, name), "wb") as file:
                async for chunk in answer.stream(min_chunk_size=1 << 18):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())

    await asyncio.gather(*[one(name) for name in names])


asyncio.run(main())
