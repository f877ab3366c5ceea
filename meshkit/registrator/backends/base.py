"""What the registrator asks of a registry: which entries are ours, write one, remove one."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from meshkit.registrator.record import Record

AUDIT = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """An entry of ours as the registry has it.

    Attributes:
        state: equal to :meth:`Backend.state_of` of the record that it shows.
        container: the id of the container that it was written for, where that is known.
    """

    state: Any
    container: str = ""


class Backend(abc.ABC):
    """Keeps the records of one registrator in one registry.

    Entries are ours by a mark that is stored with them and that names our host, never by the form
    of their ids: those of other registrators, and of people, are left alone.

    Every coroutine raises :class:`~meshkit.errors.RegistryError` (or a subclass) when the registry
    fails.

    Args:
        url: of the registry, without secrets.
        owner: what the mark says: our host, and behind a space the label of containers that are
            ours alone.
    """

    #: whether the registry runs a record's check; else we do
    runs_checks: bool = False
    #: whether entries stay when the registrator ends
    lasting: bool = True
    #: whether entries expire after the time that was asked for (``-ttl``)
    expires: bool = False
    #: seconds between two calls of :meth:`renew`
    renewal: float = AUDIT

    def __init__(self, url: str, owner: str) -> None:
        self.url = url
        self.owner = owner
        self.host = owner.partition(" ")[0]

    @abc.abstractmethod
    def id_of(self, record: Record) -> str:
        """Return the id of the record's entry."""

    @abc.abstractmethod
    def state_of(self, record: Record) -> Any:
        """Return what the entry is compared by; None when it must not be there now."""

    @abc.abstractmethod
    async def owned(self) -> dict[str, Held]:
        """Return the entries with our mark by their ids, as they are now."""

    async def reach(self) -> None:
        """See whether the registry answers."""
        await self.owned()

    @abc.abstractmethod
    async def put(self, record: Record) -> None:
        """Write the record's entry, or replace it."""

    @abc.abstractmethod
    async def remove(self, entry_id: str) -> None:
        """Remove the entry, if it is there and ours."""

    async def renew(self) -> None:  # noqa: B027 - a default
        """Say that we live, where entries would end otherwise."""

    async def aclose(self) -> None:  # noqa: B027 - a default
        """Let go of the registry; entries that last stay. Closing twice is safe."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


#: makes the backend of the host that it is given
Opener = Callable[[str], Backend]


def digest(text: str, *, bits: int = 64) -> int:
    """Return a number of so many bits that stands for the text: a mark where only one fits."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> (64 - bits)
