"""``meshkit run --reload``: start the service anew whenever a source file changes."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from meshkit.errors import MissingExtraError
from meshkit.server.bind import bind
from meshkit.settings import MeshSettings

log = logging.getLogger("meshkit.reload")

STOP_LIMIT = 5.0


def run_reloading(settings: MeshSettings) -> int:
    """Run ``meshkit run`` in a child, and again after each change. Return the exit code.

    Raises:
        MissingExtraError: watchfiles is not installed.
    """
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        raise MissingExtraError("--reload", "reload") from None
    gc.enable()  # it may watch for days
    child = Child(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    child.start()
    try:
        for changes in watch(Path.cwd(), watch_filter=PythonFilter(), stop_event=stop):
            names = sorted({Path(path).name for _, path in changes})
            log.info("%s changed; starting anew", ", ".join(names))
            child.stop()
            child.start()
    finally:
        code = child.stop()
    return max(code, 0)


class Child:
    """The service's process; it keeps one HTTP port over all its lives."""

    def __init__(self, settings: MeshSettings) -> None:
        words = [arg for arg in sys.argv[1:] if arg != "--reload"]
        port = settings.port or _free_port(settings.host)
        self._command = [sys.executable, "-m", "meshkit", *words]
        self._env = {
            **os.environ,
            "MESHKIT_RELOAD": "false",
            "MESHKIT_RELOADED": str(os.getpid()),
            "MESHKIT_PORT": str(port),
            "MESHKIT_DRAIN_DELAY": "0",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; its mistakes are its own to report, and the next change to mend."""
        self._process = subprocess.Popen(self._command, env=self._env, start_new_session=True)  # noqa: S603

    def stop(self) -> int:
        """End the process, in order if it can within 5 s; return its exit code."""
        process = self._process
        if process is None:
            return 0
        process.terminate()
        try:
            return process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _free_port(host: str) -> int:
    with bind(host, 0) as sock:
        port: int = sock.getsockname()[1]
        return port
