"""Run several pipelines on one image at the same time, in coroutines.

    python examples/several.py photo.jpg [local | CONFIG | mqtt://HOST]

Without a place, it uses config.yaml of the working directory, or the defaults.
"""

from __future__ import annotations

import asyncio
import sys

import fogmqtt


async def main(photo: str, *where: str) -> None:
    async with fogmqtt.aconnect(*where) as fog:
        pipelines = ("gray | canny", "median ksize=9", "clahe")
        async with asyncio.TaskGroup() as group:
            jobs = {each: group.create_task(fog.run(photo, each)) for each in pipelines}
        for pipeline, job in jobs.items():
            print(pipeline, job.result().shape)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
