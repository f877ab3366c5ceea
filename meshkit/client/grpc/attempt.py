"""One attempt of a call, from the pick of an instance to what became of it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import grpc.aio

from meshkit.client.grpc.pool import Link
from meshkit.client.grpc.verdict import GOOD, Verdict, assess, is_provisional
from meshkit.discovery.target import Pick

if TYPE_CHECKING:
    from meshkit.client.grpc.attempts import Attempts

# Looks for the true status of a call whose first one is provisional, and the seconds between them.
LOOKS, PAUSE = 20, 0.01


class Attempt:
    """Carries the end of one attempt from gRPC to its call.

    gRPC's call object may keep it for as long as it lives itself. So it lets go of the call at
    the end, and never has gRPC's object: in a circle of references, both would keep a connection
    open until the garbage collector comes.

    Attributes:
        pick: who was called.
        link: over which connection.
        began: when, on the monotonic clock.
        due, over: see :class:`~meshkit.client.overdue.Waiting`.
        beaten: another attempt has answered before it.
        further: it began while another one was under way.
    """

    __slots__ = ("_call", "beaten", "began", "due", "further", "link", "over", "pick")

    def __init__(self, call: Attempts, pick: Pick, link: Link) -> None:
        self._call: Attempts | None = call
        self.pick = pick
        self.link = link
        self.began = time.monotonic()
        self.due = 0.0
        self.over = self.beaten = self.further = False

    def ended(self, inner: grpc.aio.Call) -> None:
        """Tell the call; gRPC calls this once."""
        assert self._call is not None
        verdict = assess(self.link, inner, self._call.plan.codes)
        if verdict is not GOOD and is_provisional(inner):
            self._settle(inner, LOOKS)
        else:
            self._tell(inner, verdict)

    def _settle(self, inner: grpc.aio.Call, looks: int) -> None:
        """Wait for the true status: gRPC replaces the first one without a word."""
        assert self._call is not None
        if looks and is_provisional(inner):
            asyncio.get_running_loop().call_later(PAUSE, self._settle, inner, looks - 1)
        else:
            self._tell(inner, assess(self.link, inner, self._call.plan.codes))

    def _tell(self, inner: grpc.aio.Call, verdict: Verdict) -> None:
        call, self._call = self._call, None
        assert call is not None
        call.ended(self, inner, verdict)

    def overdue(self) -> None:
        """See :class:`~meshkit.client.overdue.Waiting`."""
        if self._call is not None:
            self._call.ask_another()

    @property
    def seconds(self) -> float:
        """How long it has been under way."""
        return time.monotonic() - self.began

    def __str__(self) -> str:
        return f"{self.pick.instance.id} ({self.pick.endpoint})"
