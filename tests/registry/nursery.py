"""Real processes that register themselves, forked from one that has imported everything.

Each line on stdin is answered by one on stdout:

    spawn NAME URL        -> its process id
    NAME COMMAND [ARG..]  -> what the command of that process returns, see ``Worker``

All end when stdin does.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from meshkit.errors import LeaseLost, MeshError
from meshkit.model import Endpoint, Instance
from meshkit.registry import Registry, open_registry
from meshkit.registry.base import Lease
from meshkit.registry.kv import ABSENT, VALUE_LIMIT


def make(service: str, instance_id: str, weight: int = 1) -> Instance:
    return Instance(
        id=instance_id,
        service=service,
        weight=weight,
        endpoints={"http": Endpoint("127.0.0.1", 8000)},
    )


class Worker:
    """One process with a registry of its own."""

    def __init__(self, registry: Registry, commands: int, answers: int, alive: int) -> None:
        self.registry = registry
        self.commands = commands
        self.answers = answers
        self.alive = alive  # a pipe into which nobody writes: its end is the nursery's

    async def serve(self) -> None:
        with os.fdopen(self.commands, closefd=False) as lines:
            for line in iter(lines.readline, ""):
                command, *args = line.split()
                try:
                    answer = await getattr(self, command)(*args)
                except MeshError as error:
                    answer = f"{type(error).__name__}: {error}"
                self.answer(answer or "ok")

    def answer(self, text: str) -> None:
        os.write(self.answers, f"{text}\n".encode())

    async def register(self, service: str, instance_id: str, weight: str = "1") -> None:
        await self.registry.register(make(service, instance_id, int(weight)))

    async def renew(self, instance_id: str) -> None:
        await self.registry.renew(Lease(instance_id=instance_id, ttl=6.0))

    async def deregister(self, instance_id: str) -> None:
        await self.registry.deregister(instance_id)

    async def fork(self) -> str:
        """Fork a child that does nothing but live; return its process id."""
        child = os.fork()
        if child == 0:
            os.read(self.alive, 1)
            os._exit(0)
        return str(child)

    async def fork_and_close(self, instance_id: str) -> str:
        """Fork a child that uses the registry it inherited; return how that ended."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        child = os.fork()
        if child == 0:
            os._exit(await self._use_inherited(instance_id))
        return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    async def _use_inherited(self, instance_id: str) -> int:
        """Return 0 when the instance is its parent's alone and no file of ours was closed."""
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]  # take the locks' numbers
        try:
            await self.renew(instance_id)
        except LeaseLost:
            await self.registry.aclose()
        else:
            return 1
        try:
            for fd in files:
                os.fstat(fd)
        except OSError:
            return 2
        return 0

    async def rewrite(self, service: str, instance_id: str) -> None:
        """Register the same instance again and again, until killed."""
        await self.register(service, instance_id)
        self.answer("ok")
        weight = 0
        while not select.select([self.commands], [], [], 0)[0]:
            weight = weight % 65535 + 1
            await self.register(service, instance_id, str(weight))
        os._exit(0)

    async def stick(self, service: str, instance_id: str) -> None:
        """Register anew, and stop before the file that was written gets its name."""

        def stuck(*_: object) -> None:
            self.answer("ok")
            os.read(self.alive, 1)
            os._exit(0)

        Path.replace = stuck  # type: ignore[method-assign,assignment]
        await self.register(service, instance_id, "2")

    async def churn(self, service: str, prefix: str, seconds: str, truth: str) -> None:
        """Register and deregister at random; then write what is registered, and live on."""
        self.answer("ok")
        chance = random.Random(prefix)
        mine: dict[str, object] = {}
        end = time.monotonic() + float(seconds)
        try:
            while time.monotonic() < end:
                instance_id, weight = f"{prefix}-{chance.randrange(6)}", chance.randrange(1, 1000)
                if chance.random() < 0.6:
                    await self.registry.register(make(service, instance_id, weight))
                    mine[instance_id] = weight
                else:
                    await self.registry.deregister(instance_id)
                    mine.pop(instance_id, None)
        except MeshError as error:
            mine["error"] = repr(error)
        temp = Path(truth + ".part")
        temp.write_text(json.dumps(mine))
        temp.replace(truth)
        os.read(self.alive, 1)
        os._exit(0)

    async def count(self, key: str, times: str, log: str) -> None:
        """Count up so many times by compare-and-set, noting each success in a file; live on."""
        self.answer("ok")
        kv = self.registry.kv
        with Path(log).open("ab", buffering=0) as notes:
            for _ in range(int(times)):
                put = None
                while put is None:
                    old = await kv.get(key)
                    n = int(old.value.split(maxsplit=1)[0]) + 1 if old else 1
                    value = b"%d " % n * 10_000
                    put = await kv.put(key, value, expect=old.revision if old else ABSENT)
                notes.write(b"%d %d\n" % (n, put.revision))
        os.read(self.alive, 1)
        os._exit(0)

    async def fill(self, key: str) -> None:
        """Write large values again and again, until killed."""
        self.answer("ok")
        for n in itertools.count(1):
            await self.registry.kv.put(key, b"%07d " % n * (VALUE_LIMIT // 8))


def spawn(url: str, alive: int, others: list[int]) -> tuple[int, int, int]:
    """Fork a worker; return its process id, where to write commands, where to read answers."""
    commands, to_worker = os.pipe()
    from_worker, answers = os.pipe()
    pid = os.fork()
    if pid == 0:
        # Only the nursery keeps the writing ends, so that its end is everybody's.
        for fd in [*others, to_worker, from_worker, sys.stdin.fileno()]:
            os.close(fd)
        asyncio.run(Worker(open_registry(url), commands, answers, alive).serve())
        os._exit(0)
    os.close(commands)
    os.close(answers)
    return pid, to_worker, from_worker


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the killed leave no zombies
    workers: dict[str, tuple[int, int]] = {}
    alive, end = os.pipe()
    for line in iter(sys.stdin.readline, ""):
        name, *command = line.split()
        if name == "spawn":
            others = [end, *(fd for pair in workers.values() for fd in pair)]
            pid, to_worker, from_worker = spawn(command[1], alive, others)
            workers[command[0]] = to_worker, from_worker
            print(pid, flush=True)
        else:
            to_worker, from_worker = workers[name]
            os.write(to_worker, f"{' '.join(command)}\n".encode())
            print(os.read(from_worker, 1000).decode().rstrip("\n"), flush=True)


if __name__ == "__main__":
    main()
