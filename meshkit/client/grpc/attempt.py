"""One attempt of a call, from the pick of an instance to what became of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import grpc.aio

from meshkit.client.grpc.pool import Link
from meshkit.client.grpc.verdict import assess
from meshkit.discovery.target import Pick

if TYPE_CHECKING:
    from meshkit.client.grpc.attempts import Attempts


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
        call, self._call = self._call, None
        assert call is not None
        call.ended(self, inner, assess(self.link, inner, call.plan.codes))

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
