"""``meshkit healthcheck``: ask the service that runs here whether it is ready.

Made for HEALTHCHECK in a container, which runs it every few seconds. So it imports next to
nothing, and takes its options by argparse: typer would be four fifths of its time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import time
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from meshkit.cli import complain
from meshkit.cli.running import Running, running_here
from meshkit.errors import ConfigError
from meshkit.identity import INSTANCE

READY = "/health/ready"
LIMIT = 3.0
HELP = """\
Ask the service that runs here whether it is ready: exit code 0 if so, 1 if not.

It finds what `meshkit run` has started in this container, whatever its ports are; with --instances
all of them have to be ready. Without a writable state folder, MESHKIT_PORT says where to ask.
"""


def app(arguments: Sequence[str], prog_name: str) -> None:
    """Run the command, as typer's applications are run."""
    options = _parser(prog_name).parse_args(arguments)
    raise SystemExit(healthcheck(options.url, options.timeout))


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None = None,
    ) -> None:
        super().add_usage(usage, actions, groups, prefix or "Usage: ")  # as typer writes it


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=HELP, formatter_class=_Formatter)
    add = parser.add_argument
    add("--url", help="ask http://HOST:PORT[/PATH] or grpc://HOST:PORT instead")
    add("--timeout", type=_seconds, default=LIMIT, help="seconds to wait for the answers [3]")
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to 60")
    return value


def healthcheck(url: str | None, timeout: float) -> int:
    """Ask whoever ``url`` names, else all that run here; return the exit code.

    Raises:
        ConfigError: the URL is none, or the state folder can't be used.
    """
    deadline = time.monotonic() + timeout
    try:
        asked = [(_parse(url), "")] if url is not None else _here()
        for target, instance in asked:
            _ask(target, instance, deadline)
    except NotReady as problem:
        complain(str(problem))
        return 1
    print(*(f"ready: {instance or target}" for target, instance in asked), sep="\n")
    return 0


class NotReady(Exception):
    """It isn't; the message says who, where and why."""


def _here() -> list[tuple[str, str]]:
    """Return (URL, instance id) of each service here; the id is empty when it isn't known."""
    try:
        running = running_here()
    except ConfigError:
        if not _port():
            raise
        running = []
    if running:
        return [(_url(each), each.instance) for each in running]
    if port := _port():
        return [(_parse(f"http://{_local_host()}:{port}"), "")]
    raise NotReady("no service runs here, or it is not up yet; --url names one that is elsewhere")


def _url(running: Running) -> str:
    return f"http://{running.http}{READY}" if running.http else f"grpc://{running.grpc}"


def _port() -> str:
    """The port of a service that could leave no note; `meshkit run` reads the same variables."""
    port = os.environ.get("MESHKIT_PORT") or os.environ.get("PORT") or ""
    return "" if port == "0" else port


def _local_host() -> str:
    host = os.environ.get("MESHKIT_HOST", "")
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _parse(url: str) -> str:
    """Check a URL and return it with its path."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "grpc") and parts.hostname and parts.port
    except ValueError:  # such as a port that is no number
        known = False
    if not known:
        raise ConfigError(f"can't ask {url!r}: it has to be http://HOST:PORT or grpc://HOST:PORT")
    if parts.scheme == "http" and parts.path in ("", "/"):
        return f"{url.rstrip('/')}{READY}"
    return url


def _ask(url: str, instance: str, deadline: float) -> None:
    """Raise NotReady unless the one behind the URL is, and is the instance that it should be."""
    limit = max(0.1, deadline - time.monotonic())
    if url.startswith("grpc://"):
        _ask_grpc(url, limit)
        return
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=limit)
    try:
        connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""))
        answer = connection.getresponse()
        body = answer.read(65536)
    except TimeoutError:
        raise NotReady(f"{url}: no answer in time (--timeout)") from None
    except OSError as error:
        raise NotReady(f"{url}: {error.strerror or error}") from None
    except http.client.HTTPException as error:
        raise NotReady(f"{url} does not speak HTTP: {error!r}") from None
    finally:
        connection.close()
    if instance and answer.headers.get(INSTANCE) != instance:
        raise NotReady(f"{url} is answered by somebody else than {instance}")
    if not 200 <= answer.status < 300:
        raise NotReady(f"{url}: {answer.status}{_reason(body)}")


def _reason(body: bytes) -> str:
    """Return what the readiness answer says is wrong."""
    try:
        said = json.loads(body)
        checks = said.get("checks", {}).items()
        failed = "; ".join(f"{name}: {each['error']}" for name, each in checks if not each["ok"])
        return f" ({failed or said.get('status') or said['detail']})"
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""


def _ask_grpc(url: str, limit: float) -> None:
    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

    with grpc.insecure_channel(url.removeprefix("grpc://")) as channel:
        ask = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        try:
            answer = ask(HealthCheckRequest(), timeout=limit)
        except grpc.RpcError as error:
            raise NotReady(f"{url}: {error.code().name}: {error.details()}") from None
    if answer.status != HealthCheckResponse.SERVING:
        raise NotReady(f"{url}: {HealthCheckResponse.ServingStatus.Name(answer.status)}")
