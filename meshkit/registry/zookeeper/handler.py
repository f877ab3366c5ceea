"""kazoo's threads and sockets, under our control.

kazoo lets its owner replace what makes its threads and connections. Ours differ in four ways: TLS
is done with certificates as they are at that time, and host names are checked; connecting has a
limit of its own, and its error is kept for the user; everything can be ended at once; and a thread
that fails tells us, instead of printing a traceback.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.states import KeeperState
from kazoo.retry import KazooRetry
from kazoo.security import CREATOR_ALL_ACL, OPEN_ACL_UNSAFE, READ_ACL_UNSAFE

from meshkit.registry.zookeeper.loss import newest_change
from meshkit.registry.zookeeper.options import ZooKeeperOptions

CONNECT_LIMIT = 3.0
RETRY_FIRST, RETRY_CAP = 0.1, 1.0
SLICE = 0.1  # kazoo sleeps in pieces of this length and a shorter last one


class Handler(SequentialThreadingHandler):  # type: ignore[misc] # kazoo has no types
    """See the module. Its two callbacks are called on kazoo's threads.

    Args:
        options: how to connect.
        on_round: called when all servers have been tried in vain.
        on_loss: called when a server turns out to have lost what the client has seen.
        on_end: called when a thread has ended.

    Attributes:
        client: kazoo's, once it is made.
    """

    client: Any = None

    def __init__(
        self,
        options: ZooKeeperOptions,
        *,
        on_round: Callable[[OSError | None], None],
        on_loss: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__()
        self._options = options
        self._on_round = on_round
        self._on_loss = on_loss
        self._on_end = on_end
        # Where no name can be resolved, kazoo does not even try to connect.
        self._error: OSError | None = socket.gaierror(
            socket.EAI_NONAME, "no address is known for that name"
        )
        self._accepted: tuple[tuple[str, int], str | None] | None = None  # in this round
        self._slept = 0.0
        self._socket: socket.socket | None = None
        self._aborted = False

    def create_connection(
        self, address: tuple[str, int], *, hostname: str | None = None, **_: object
    ) -> socket.socket:
        """Connect, and shake hands. Raises OSError, also that which ``abort`` brings about."""
        self._error = None
        try:
            connection = self._connect(address, hostname)
        except OSError as error:
            self._error = error
            raise
        self._accepted = address, hostname
        return connection

    def select(self, reading: Any, writing: Any, broken: Any, timeout: float) -> Any:
        """Wait for sockets, in a handshake no longer than for a connection.

        A server that is just starting may take a connection and never say a word on it; kazoo
        would wait for as long as a session lasts.
        """
        if self.client.client_state == KeeperState.CONNECTING:
            timeout = min(timeout, CONNECT_LIMIT)
        return super().select(reading, writing, broken, timeout)

    def sleep_func(self, seconds: float) -> None:
        """Pause between two rounds; kazoo calls it for nothing else."""
        if self._slept < SLICE:
            self._on_round(self._error or getattr(self._socket, "refusal", None))
            if self._has_lost_data():
                self._on_loss()
        self._slept = seconds
        time.sleep(seconds)

    def spawn(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> threading.Thread:
        """Start a thread for kazoo."""

        def run() -> None:
            with contextlib.suppress(Exception):  # whatever it is, the session ends with it
                func(*args, **kwargs)
            self._on_end()

        thread = threading.Thread(target=run, name="meshkit-zookeeper", daemon=True)
        thread.start()
        return thread

    def abort(self) -> None:
        """Break the connection and let none come about; kazoo's threads end at once."""
        self._aborted = True
        if (connection := self._socket) is not None:
            with contextlib.suppress(OSError):
                # Of the plain socket: TLS would first say good-bye.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _has_lost_data(self) -> bool:
        """Ask a server that took our connection, and hung up, whether it has what we have seen."""
        (accepted, self._accepted), seen = (self._accepted, None), self.client.last_zxid
        if accepted is None or seen <= 0:
            return False
        with contextlib.suppress(OSError), self._connect(*accepted) as connection:
            newest = newest_change(connection)
            return newest is not None and newest < seen
        return False

    def _connect(self, address: tuple[str, int], hostname: str | None) -> socket.socket:
        self._go_on()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._options.certificates is not None:
                context = self._options.certificates.context()
                # Before it is connected: ssl leaves one open that is reset between both.
                connection = context.wrap_socket(connection, server_hostname=hostname)
            connection.settimeout(CONNECT_LIMIT)
            connection.connect(address)
            self._socket = connection
            self._go_on()
        except BaseException:
            connection.close()
            raise
        return connection

    def _go_on(self) -> None:
        if self._aborted:
            raise ConnectionAbortedError("closed")


def make_client(options: ZooKeeperOptions, handler: Handler) -> Any:
    """Return kazoo's client, not started."""
    retry = KazooRetry(
        max_tries=-1, delay=RETRY_FIRST, max_delay=RETRY_CAP, sleep_func=handler.sleep_func
    )
    # At debug level kazoo writes passwords to its log, at others much that we say ourselves.
    logger = logging.Logger("meshkit.zookeeper.kazoo")  # noqa: LOG001 - a mute one of our own
    logger.disabled = True
    user = [("digest", f"{options.username}:{options.password}")] if options.username else None
    handler.client = KazooClient(
        hosts=",".join(str(server) for server in options.servers),
        timeout=options.session,
        handler=handler,
        connection_retry=retry,
        auth_data=user,
        default_acl=_acl(options),
        logger=logger,
    )
    return handler.client


def _acl(options: ZooKeeperOptions) -> list[Any]:
    if not options.username:
        return list(OPEN_ACL_UNSAFE)
    return [*CREATOR_ALL_ACL, *(() if options.private else READ_ACL_UNSAFE)]
