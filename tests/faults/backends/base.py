"""What the suite asks of an engine's servers: start, fail, heal, and say who is registered."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tests.servers.process import ServerProcess
from tests.servers.programs import require_program
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.faults.backends.secured import Secured

HEAL_LIMIT = 60.0


class Backend(abc.ABC):
    """One engine on a cluster of its own, which every cell leaves as it found it.

    Args:
        folder: for the servers' files.

    Attributes:
        name: as the matrix and pytest's marks have it.
        forgets: seconds within which an instance that died without a word is gone; published.
        notices_hang: seconds within which one that hangs as a whole is not up any more.
        by_token, by_certificate: servers that ask for proof, where the engine can give it.
        absent: faults that can't happen here, by the name of their row, and why.
        servers: all server processes; none for an engine without a server.
    """

    name: ClassVar[str]
    forgets: ClassVar[float]
    by_token: ClassVar[type[Secured] | None] = None
    by_certificate: ClassVar[type[Secured] | None] = None
    absent: ClassVar[Mapping[str, str]] = {}

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: Sequence[ServerProcess] = ()

    @property
    def notices_hang(self) -> float:
        return self.forgets

    @property
    def about(self) -> str:
        """What runs, for the page."""
        return self.name

    @property
    def addresses(self) -> Sequence[str]:
        """``host:port`` of each node that services and consumers may speak to."""
        return ()

    @abc.abstractmethod
    def url(self, addresses: Sequence[str] = ()) -> str:
        """Return the registry URL for these addresses, the cluster's own unless given."""

    @abc.abstractmethod
    def registered(self, service: str) -> list[str]:
        """Ids that the registry itself shows as up, sorted, one twice if it is there twice.

        Asked for with the registry's own means, not with ours. Raises OSError while it can't say.
        """

    def start(self) -> None:
        """Start all servers side by side and wait until they work."""
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.wait_ready()
        self.wait_healthy()

    def heal(self) -> None:
        """Let all servers run again, whatever a cell that failed has left."""
        self.resume()
        for server in self.servers:
            if not server.running:
                server.launch()
        for server in self.servers:
            server.wait_ready()
        self.wait_healthy()

    def stop(self) -> None:
        """End all servers."""
        for server in self.servers:
            server.resume()
        for server in self.servers:
            server.stop()

    def kill(self) -> None:
        """Kill all servers at once."""
        for server in self.servers:
            server.kill()

    def pause(self) -> None:
        """Hang all servers at once."""
        for server in self.servers:
            server.pause()

    def resume(self) -> None:
        """Let all servers run on."""
        for server in self.servers:
            server.resume()

    def empty(self) -> None:
        """Remove all data, of servers that are down."""
        for server in self.servers:
            server.empty()  # type: ignore[attr-defined]

    def leader(self) -> ServerProcess:
        """Return the server that leads."""
        raise NotImplementedError

    def wait_healthy(self) -> None:  # noqa: B027 - a default
        """Wait until the loss of one server can be borne."""


def program(name: str) -> Path:
    """Return the server's program, or skip the cell that needs it, with the reason."""
    return require_program(name)


def wait_until(probe: Callable[[], bool]) -> None:
    """Wait for a cluster."""
    eventually(probe, within=HEAL_LIMIT, every=0.1)
