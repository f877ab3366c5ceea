"""One session with ZooKeeper, from an event loop's point of view.

kazoo calls back on its own threads; everything here is posted to the loop and happens there. Two
of its habits are kept away from callers: a request made while the connection is away waits for
ever, and each request writes a byte into a socket that blocks once a few hundred are unread. So
there are time limits, and few requests under way at once.

A session is never revived: when it has expired, its connection has been away for as long as it
lasts, or servers have lost data that it has seen and so take it no more, everything that waits for
it fails, and the next one is made from scratch.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from kazoo.exceptions import (
    BadVersionError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.protocol.states import KazooState, KeeperState

from meshkit.errors import RegistryError
from meshkit.registry.zookeeper import failures
from meshkit.registry.zookeeper.handler import Handler, make_client
from meshkit.registry.zookeeper.options import ZooKeeperOptions
from meshkit.registry.zookeeper.tls import is_refusal

LIMIT = 8.0
CONNECT_LIMIT = 7.0  # below that of the whole, which would not say so well what is wrong
AT_ONCE = 64
CLOSE_LIMIT = 2.0
ABORT_LIMIT = 1.0

# What a request may be answered with, and the caller has to decide upon.
ANSWERS = (NoNodeError, NodeExistsError, BadVersionError, NotEmptyError)


class Follower(Protocol):
    """Who hears of changes below a path."""

    def on_event(self, path: str) -> None:
        """Hear that the node at ``path`` has changed, or its list of children."""

    def on_gap(self) -> None:
        """Hear that changes may have been missed."""

    def on_end(self, error: RegistryError) -> None:
        """Hear that nothing will be heard any more."""


class Session:
    """See the module. Made on the loop that uses it; connects at once.

    Attributes:
        id: ZooKeeper's number for it, 0 while there was no connection yet.
        error: why it has ended, or None.
    """

    def __init__(self, options: ZooKeeperOptions) -> None:
        self.id = 0
        self.error: RegistryError | None = None
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._connected = False
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting: dict[asyncio.Future[None], int] = {}  # for a connection, since which round
        self._rounds = 0
        self._pending: set[asyncio.Future[Any]] = set()  # for an answer
        self._followers: dict[Follower, str] = {}
        self._suspension: asyncio.TimerHandle | None = None
        self._stopped: asyncio.Future[None] | None = None
        self._stopper = threading.Thread(
            target=self._stop, name="meshkit-zookeeper-stop", daemon=True
        )
        self._handler = Handler(
            options,
            on_round=lambda error: self._post(self._on_round, error),
            on_loss=lambda: self._post(self._end, failures.emptied(options)),
            on_end=lambda: self._post(self._end, failures.expired(options)),
        )
        self._client = make_client(options, self._handler)
        self._client.add_listener(self._on_state)
        self._client.start_async()

    @property
    def gone(self) -> bool:
        """Whether it has ended and left nothing behind."""
        return self._stopped is not None and self._stopped.done()

    async def connected(self) -> None:
        """Wait for the connection. Raises RegistryError when it can't be had, or in time."""
        if self.error is not None:
            raise self.error
        if self._connected:
            return
        waiting = self._loop.create_future()
        self._waiting[waiting] = self._rounds
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                await waiting
        except TimeoutError:
            reason = failures.suspended if self.id else failures.no_session
            raise reason(self._options, CONNECT_LIMIT) from None
        finally:
            self._waiting.pop(waiting, None)

    async def call(self, name: str, path: str, *args: Any, **options: Any) -> Any:
        """Send one request by kazoo's method ``<name>_async``; return what it answers.

        Raises:
            RegistryError: no answer, or a refusal.
            kazoo.exceptions: one of ``ANSWERS``.
        """
        size = sum(len(each) for each in args if isinstance(each, bytes))
        start = functools.partial(getattr(self._client, f"{name}_async"), path, *args, **options)
        return await self._send(start, request=f"{name.replace('_', ' ')} {path}", size=size)

    async def commit(self, path: str, *steps: Callable[[Any], None]) -> Any:
        """Do all ``steps`` with kazoo's transaction, or none; return the last one's result.

        Raises as :meth:`call`, what the first step that failed has been answered with.
        """
        transaction = self._client.transaction()
        for step in steps:
            step(transaction)
        size = sum(len(getattr(each, "data", b"")) for each in transaction.operations)
        results = await self._send(transaction.commit_async, request=f"change {path}", size=size)
        for result in results:
            if isinstance(result, ANSWERS):
                raise result
            if isinstance(result, Exception) and not isinstance(
                result, (RolledBackError, RuntimeInconsistency)
            ):
                raise failures.from_kazoo(result, self._options, request=f"change {path}")
        return results[-1]

    def follow(self, path: str, follower: Follower) -> None:
        """Tell ``follower`` of what happens to ``path`` and its children, where it is watched."""
        self._followers[follower] = path
        if self.error is not None:
            follower.on_end(self.error)

    def unfollow(self, follower: Follower) -> None:
        """Tell it nothing any more."""
        self._followers.pop(follower, None)

    def notify(self, event: Any) -> None:
        """Take a watch's event from kazoo, on its thread.

        One function for all watches: kazoo keeps those that were given up until their node
        changes, but each function only once.
        """
        if event.path is not None:  # else the connection was lost, which the listener hears
            self._post(self._on_event, event.path)

    async def aclose(self, error: RegistryError) -> None:
        """End the session: what waits fails with ``error``, and our ephemeral nodes go.

        Returns within about 3 s whatever the servers do. Closing twice is safe.
        """
        self._end(error, abort=False)
        if self._stopped is not None:
            await asyncio.wait({self._stopped}, timeout=CLOSE_LIMIT)
            if not self.gone:
                self._handler.abort()
                await asyncio.wait({self._stopped}, timeout=ABORT_LIMIT)
        if self.gone:
            self._stopper.join()  # it has said its last word

    async def _send(self, start: Callable[[], Any], *, request: str, size: int) -> Any:
        await self.connected()
        await self._slots.acquire()
        if self.error is not None:
            self._slots.release()
            raise self.error
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._pending.add(answer)
        answer.add_done_callback(self._answered)
        start().rawlink(lambda result: self._post(_settle, answer, result))
        # Not cancelled with its caller: kazoo goes on, and so does the slot's use.
        await asyncio.wait({answer}, timeout=LIMIT)
        if not answer.done():
            raise failures.too_slow(self._options, LIMIT)
        try:
            return answer.result()
        except (*ANSWERS, RegistryError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever the library has
            raise failures.from_kazoo(error, self._options, request=request, size=size) from None

    def _answered(self, answer: asyncio.Future[Any]) -> None:
        self._pending.discard(answer)
        self._slots.release()
        answer.exception()  # its caller may have gone

    def _post(self, function: Callable[..., None], *args: Any) -> None:
        """Call it on the loop; from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left
            self._loop.call_soon_threadsafe(function, *args)

    def _on_state(self, state: str) -> None:
        """Hear of the connection's state, on kazoo's thread."""
        session = self._client.client_id
        refused = self._client.client_state == KeeperState.AUTH_FAILED
        if state == KazooState.CONNECTED:
            self._post(self._on_connected, session[0] if session else 0)
        elif state == KazooState.SUSPENDED:
            self._post(self._on_suspended)
        else:
            reason = failures.refused if refused else failures.expired
            self._post(self._end, reason(self._options))

    def _on_connected(self, session: int) -> None:
        if self.error is not None:
            return
        self.id = session
        self._connected = True
        if self._suspension is not None:
            self._suspension.cancel()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def _on_suspended(self) -> None:
        if self.error is not None:
            return
        self._connected = False
        limit = self._options.session
        self._suspension = self._loop.call_later(
            limit, self._end, failures.suspended(self._options, limit)
        )
        for follower in tuple(self._followers):
            follower.on_gap()

    def _on_round(self, error: OSError | None) -> None:
        self._rounds += 1
        if self.id and not is_refusal(error):  # a connection that was there may soon be again
            return
        # Not those who came in the midst of this round: a server may be up since.
        waiting = [each for each, since in self._waiting.items() if self._rounds > since + 1]
        if self._rounds == 1:
            waiting = list(self._waiting)
        _fail(waiting, failures.unreachable(error, self._options))

    def _on_event(self, path: str) -> None:
        parent = path.rpartition("/")[0] or "/"
        for follower, followed in tuple(self._followers.items()):
            if followed in (path, parent):
                follower.on_event(path)

    def _end(self, error: RegistryError, *, abort: bool = True) -> None:
        if self.error is not None:
            return
        if abort:  # or kazoo would go on, and make a session that nobody wants
            self._handler.abort()
        self.error = error
        self._connected = False
        if self._suspension is not None:
            self._suspension.cancel()
        _fail(self._waiting, error)
        _fail(self._pending, error)
        for follower in tuple(self._followers):
            follower.on_end(error)
        self._stopped = self._loop.create_future()
        self._stopper.start()

    def _stop(self) -> None:
        """Stop kazoo, on a thread of its own: it waits for its threads, and for the server."""
        with contextlib.suppress(Exception):  # it is a failure to wait; aclose() aborts
            self._client.stop()
        with contextlib.suppress(Exception):
            self._client.close()
        self._post(_done, self._stopped)


def _settle(answer: asyncio.Future[Any], result: Any) -> None:
    if answer.done():
        return
    if result.successful():
        answer.set_result(result.value)
    else:
        answer.set_exception(result.exception)


def _fail(futures: Iterable[asyncio.Future[Any]], error: RegistryError) -> None:
    for future in tuple(futures):
        if not future.done():
            future.set_exception(error)


def _done(stopped: asyncio.Future[None]) -> None:
    stopped.set_result(None)
