"""Listening sockets: fail early with a reason, and never meet Nagle's algorithm."""

import errno
import os
import socket
import subprocess
import sys

import pytest

from meshkit import BindError
from meshkit.server.bind import bind, bind_message


def test_port_0_takes_a_free_one_and_listens() -> None:
    with bind("127.0.0.1", 0) as one, bind("127.0.0.1", 0) as other:
        ports = {sock.getsockname()[1] for sock in (one, other)}
        assert len(ports) == 2
        assert not one.getblocking()
        with socket.create_connection(one.getsockname(), 5):
            pass


def test_the_socket_says_that_it_is_tcp() -> None:
    """Otherwise asyncio leaves Nagle's algorithm on: 40 ms for every answer."""
    with bind("127.0.0.1", 0) as sock:
        assert sock.proto == socket.IPPROTO_TCP


def test_a_fixed_port_can_be_taken_again_right_after_its_use() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
    with bind("127.0.0.1", port) as sock:
        client = socket.create_connection(sock.getsockname(), 5)
        sock.setblocking(True)
        served, _ = sock.accept()
        served.close()  # the side that closes first keeps the port in TIME_WAIT
        client.close()
    with bind("127.0.0.1", port):
        pass


def test_a_busy_port_is_refused_with_a_way_out() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError) as caught:
            bind("127.0.0.1", port)
    assert str(caught.value) == (
        f"port {port} on 127.0.0.1 is already in use: "
        "stop the process that holds it, or let --port 0 choose a free one"
    )


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("192.0.2.1", 0, "192.0.2.1 is not an address of this machine: choose another --host"),
        ("no-such-host.invalid", 0, "--host no-such-host.invalid: "),
        ("127.0.0.1", 70000, "can't listen on 127.0.0.1 port 70000: "),
        ("a" * 300, 0, "--host aaa"),
    ],
)
def test_what_can_not_be_bound_is_one_line(host: str, port: int, message: str) -> None:
    with pytest.raises(BindError) as caught:
        bind(host, port)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_privileged_port_says_what_is_missing() -> None:
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert bind_message("127.0.0.1", 80, error, flag="--grpc-port") == (
        "port 80 on 127.0.0.1 needs more permissions: choose a --grpc-port above 1023"
    )


def test_the_ipv6_wildcard_serves_ipv4_too() -> None:
    with bind("::", 0) as sock:
        port = sock.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), 5):
                pass


def test_a_failed_bind_leaves_no_socket_open() -> None:
    code = (
        "import os\n"
        "from meshkit.errors import BindError\n"
        "from meshkit.server.bind import bind\n"
        "before = os.listdir('/dev/fd')\n"
        "for host in ('192.0.2.1', 'no-such-host.invalid'):\n"
        "    try: bind(host, 0)\n"
        "    except BindError: pass\n"
        "assert os.listdir('/dev/fd') == before\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
