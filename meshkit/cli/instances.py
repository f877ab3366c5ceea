"""``meshkit run --instances N``: several processes forked from one warm parent.

The parent imports everything and builds the application once, so that each instance starts in a
fraction of the time and shares most of its memory. Nothing that runs is forked: event loops,
threads and gRPC begin in the children.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator

from meshkit.backoff import Backoff
from meshkit.cli import complain
from meshkit.cli.banner import head
from meshkit.cli.parent import die_with
from meshkit.cli.serve import serve, warm_up
from meshkit.errors import ConfigError, MeshError
from meshkit.service import MeshService
from meshkit.settings import MeshSettings

RESTART_CAP = 5.0
STOP_MARGIN = 5.0
STABLE = 30.0  # seconds after which a life counts as a good one
POLL = 0.05
EVER = -1
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ECHO = 0.2  # seconds: timeout(1) and others signal the process and then its group, see signals.py

log = logging.getLogger("meshkit.instances")


def run_instances(service: MeshService, settings: MeshSettings) -> int:
    """Run N copies until told to stop; one that dies is replaced. Return the exit code."""
    check_ports(settings)
    warm_up(service)
    head(service, settings)
    return Parent(service, settings).run()


def check_ports(settings: MeshSettings) -> None:
    """Refuse one fixed port for several processes. Raises ConfigError."""
    for name in ("port", "grpc_port", "advertise_port", "advertise_grpc_port"):
        if port := getattr(settings, name):
            flag = name.replace("_", "-")
            raise ConfigError(
                f"--{flag} {port} can't be shared by {settings.instances} instances: "
                f"leave it out, and each takes a free port and registers it"
            )


class Parent:
    """Forks the instances, passes signals on, and replaces those that die.

    When none has ever been up, one that fails ends everything: the next would fail too.
    """

    def __init__(self, service: MeshService, settings: MeshSettings) -> None:
        self._service = service
        self._settings = settings
        self._children: dict[int, int] = {}  # pid: place
        self._forked_at: dict[int, float] = {}
        # Shared with the children: a byte for each place, set once it is up, and one for any.
        self._up = mmap.mmap(-1, settings.instances + 1)
        self._backoff = Backoff(first=0.5, cap=RESTART_CAP)
        self._signal: int | None = None
        self._signal_at = 0.0
        self._code = 0

    def run(self) -> int:
        """Start all, watch over them, and return the exit code when all have ended."""
        for number in SIGNALS:
            # nohup and its like ignore the end of the terminal for us.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._caught)
        for place in range(self._settings.instances):
            self._fork(place)
        for pid, status in self._ended():
            place = self._children.pop(pid)
            if self._signal is None:
                self._replace(place, os.waitstatus_to_exitcode(status))
        return self._code

    def _fork(self, place: int) -> None:
        parent = os.getpid()
        flush()
        # Until the child has handlers of its own it must not act as the parent would.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            code = self._child(place, parent)
            flush()
            os._exit(code)
        self._children[pid] = place
        self._forked_at[place] = time.monotonic()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _child(self, place: int, parent: int) -> int:
        """Run one instance in the forked process; return its exit code."""
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which passes it on once
        die_with(parent)
        try:
            label = f"{place + 1}/{self._settings.instances}"
            serve(self._service, self._settings, lambda: self._is_up(place), number=label)
        except MeshError as error:
            complain(str(error))
            return error.exit_code
        except BaseException:  # noqa: BLE001 - a forked child must never return
            traceback.print_exc()
            return 1
        return 0

    def _ended(self) -> Iterator[tuple[int, int]]:
        """Yield children as they end, until none is left."""
        while self._children:
            try:
                yield os.waitpid(-1, 0)
            except ChildProcessError:
                return

    def _is_up(self, place: int) -> None:
        self._up[place] = self._up[EVER] = 1

    def _replace(self, place: int, code: int) -> None:
        if not self._up[EVER]:
            log.error("instance %d could not start; stopping the others", place + 1)
            self._code = code if code > 0 else 1
            self._stop(signal.SIGTERM)
            return
        if time.monotonic() - self._forked_at[place] > STABLE:
            self._backoff.reset()
        pause = self._backoff.next()
        log.warning("instance %d ended (%s); a new one starts in %.1f s", place + 1, code, pause)
        resume = time.monotonic() + pause
        while self._signal is None and time.monotonic() < resume:
            time.sleep(POLL)
        if self._signal is None:
            self._up[place] = 0
            self._fork(place)

    def _caught(self, number: int, _frame: object) -> None:
        if self._signal is not None:
            if number == self._signal and time.monotonic() - self._signal_at < ECHO:
                return
            for pid in list(self._children):
                _kill(pid, signal.SIGKILL)
            os._exit(128 + number)
        self._stop(number)

    def _stop(self, number: int) -> None:
        self._signal, self._signal_at = number, time.monotonic()
        for pid in list(self._children):
            _kill(pid, signal.SIGTERM)
        signal.signal(signal.SIGALRM, self._overdue)
        signal.alarm(int(self._settings.shutdown_timeout + STOP_MARGIN))

    def _overdue(self, _number: int, _frame: object) -> None:
        for pid in list(self._children):
            log.error("process %d did not stop in time and is killed", pid)
            _kill(pid, signal.SIGKILL)


def flush() -> None:
    """Write out what is buffered: ``os._exit`` and forks don't."""
    sys.stdout.flush()
    sys.stderr.flush()


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
