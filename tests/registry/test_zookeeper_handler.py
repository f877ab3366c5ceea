"""What makes kazoo's connections."""

import dataclasses
import gc
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from meshkit.registry.url import RegistryUrl
from meshkit.registry.zookeeper.handler import Handler
from meshkit.registry.zookeeper.options import read_options


@pytest.fixture
def refusing() -> Iterator[int]:
    """Listen and reset each connection at once; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reset() -> None:
            with suppress(OSError):  # it is shut down in the end
                while True:
                    connection, _ = listener.accept()
                    linger = b"\x01\0\0\0\0\0\0\0"
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    connection.close()

        thread = threading.Thread(target=reset)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


class SlowCertificates:
    """Read for so long that whoever was connected is not any more."""

    def context(self) -> ssl.SSLContext:
        time.sleep(0.05)
        return ssl.create_default_context()


def test_a_connection_reset_before_tls_is_closed(refusing: int) -> None:
    certificates: Any = SlowCertificates()
    options = dataclasses.replace(
        read_options(RegistryUrl.parse("zookeeper://127.0.0.1")), certificates=certificates
    )
    handler = Handler(options, on_round=lambda _: None, on_loss=lambda: None, on_end=lambda: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(5):
            with pytest.raises(OSError):
                handler.create_connection(("127.0.0.1", refusing), hostname="127.0.0.1")
        gc.collect()
    assert not caught
