"""Processes that own instances of ``local://``, and DNS servers."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.registry.dns_reads import Serve
from tests.registry.dns_server import DnsServer
from tests.registry.processes import Nursery


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    """A nursery on ``local://?dir=tmp_path``."""
    nursery = Nursery(f"local://?dir={tmp_path}")
    try:
        yield nursery
    finally:
        nursery.close()


@pytest.fixture
async def serve_dns() -> AsyncIterator[Serve]:
    """Start DNS servers in this process; they end with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def serve(*records: str) -> DnsServer:
            server = DnsServer(records)
            await stack.enter_async_context(server.serving())
            return server

        yield serve
