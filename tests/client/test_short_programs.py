"""Programs that make one call and end at once: nothing of the client's outlives them."""

import asyncio
import sys

from tests.client.http_servers import http_answer, raw_server, read_request
from tests.support.processes import environment

RUNS, AT_ONCE = 24, 4

PROGRAM = """
import asyncio, sys
from meshkit import Mesh

async def main():
    async with Mesh(f"static://echo={sys.argv[1]}") as mesh:
        await mesh.http("echo").get("/")

asyncio.run(main())
"""


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(http_answer())
    await writer.drain()
    await reader.read()


async def test_they_end_well() -> None:
    """No complaint of Python's about what is still open, and no abort."""
    turns = asyncio.Semaphore(AT_ONCE)
    async with raw_server(answer) as endpoint:

        async def run() -> tuple[int | None, bytes]:
            async with turns:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", PROGRAM, str(endpoint)),
                    env=environment(),
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                )
                _, complaints = await process.communicate()
                return process.returncode, complaints

        assert set(await asyncio.gather(*(run() for _ in range(RUNS)))) == {(0, b"")}
