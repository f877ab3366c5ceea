"""A consumer for watch_many: follows services and prints what it sees, with the moment.

    python consumer.py URL COUNT

It follows the services s000, s001, ... and prints ``ready INSTANCES`` once it has a list of each;
then, for each new list of s000, ``seen MOMENT VERSION`` for the instance whose id is ``changing``.
"""

from __future__ import annotations

import asyncio
import sys

from measure import now

from meshkit import Mesh, Snapshot

CHANGING = "changing"


def service(number: int) -> str:
    return f"s{number:03}"


async def main(url: str, count: int) -> None:
    async with Mesh(url) as mesh:
        subscriptions = [mesh.target(service(number)).subscription for number in range(count)]
        subscriptions[0].on_change(report)
        lists = await asyncio.gather(*(each.known() for each in subscriptions))
        print(f"ready {sum(len(each.instances) for each in lists)}", flush=True)
        await asyncio.Event().wait()


def report(snapshot: Snapshot) -> None:
    moment = now()
    for instance in snapshot.instances:
        if instance.id == CHANGING:
            print(f"seen {moment} {instance.version}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
