"""What stands where a Docker engine should, and answers as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json


def answer(content: object, status: str = "200 OK") -> bytes:
    body = json.dumps(content).encode()
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def version(newest: str = "1.41", oldest: str = "1.12") -> bytes:
    return answer({"ApiVersion": newest, "MinAPIVersion": oldest})


class FakeEngine:
    """Answers paths with bytes; without any it closes the connection, or is silent."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {"/version": version()}
        self.asked: list[str] = []
        self.silent = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split()[1].decode()
                self.asked.append(path)
                if self.silent:
                    await reader.read()
                content = self.answers.get(path.partition("?")[0], b"")
                writer.write(content)
                await writer.drain()
                if not content or b"Connection: close" in content:
                    break
        writer.close()
