"""What the URL says about etcd: where, under which keys, as whom."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from meshkit.errors import RegistryDenied
from meshkit.model import Endpoint
from meshkit.registry.etcd.tls import Tls
from meshkit.registry.url import RegistryUrl

HOST = "127.0.0.1"
PORT = 2379
PREFIX = "/meshkit"
TLS_PARAMETERS = ("ca", "cert", "key")
PARAMETERS = ("password_file", *TLS_PARAMETERS)
PREFIX_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EtcdOptions:
    """How to reach etcd, and as whom.

    Attributes:
        endpoints: its members' client addresses, at least one.
        prefix: what all keys begin with, as ``/meshkit``.
        username: empty when etcd needs no user, or takes the client certificate's name.
        password: the user's.
        password_file: read at each login and used instead of ``password``, so that it can change.
        tls: certificates to trust and to show, or None to speak without TLS.
    """

    endpoints: tuple[Endpoint, ...]
    prefix: str = PREFIX
    username: str = ""
    password: str = dataclasses.field(default="", repr=False)
    password_file: Path | None = None
    tls: Tls | None = None

    def read_password(self) -> str:
        """Return the password to use now. Raises RegistryDenied when its file can't be read."""
        if self.password_file is None:
            return self.password
        try:
            return self.password_file.read_text(encoding="utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise RegistryDenied(
                f"etcd's password file {self.password_file} can't be read: {reason}"
            ) from None


def read_options(url: RegistryUrl, *, prefix: str) -> EtcdOptions:
    """Read all but the path, which means something else to each engine; ``prefix`` is checked.

    Raises:
        RegistryUrlError: a part of the URL is not usable; the message names it.
    """
    tls = url.scheme.endswith("+tls")
    if not tls and (misplaced := [name for name in TLS_PARAMETERS if name in url.params]):
        raise url.error(f"{misplaced[0]}= needs {url.scheme}+tls://")
    password_file = _check_user(url)
    return EtcdOptions(
        endpoints=_endpoints(url),
        prefix=read_prefix(url, prefix),
        username=url.username,
        password=url.password,
        password_file=password_file,
        tls=Tls.read(url) if tls else None,
    )


def read_prefix(url: RegistryUrl, text: str) -> str:
    """Return the text as what keys begin with: ``/a/b``. Raises RegistryUrlError."""
    prefix = f"/{text.strip('/')}"
    if not PREFIX_PATH.fullmatch(prefix):
        raise url.error(
            f"the prefix {text!r} should be words of letters, digits, '.', '_' and '-', "
            "joined by single slashes"
        )
    return prefix


def _check_user(url: RegistryUrl) -> Path | None:
    file = url.params.get("password_file", "")
    if file and url.password:
        raise url.error("a password and password_file= exclude each other")
    if (file or url.password) and not url.username:
        raise url.error("a password needs a user: USER:PASSWORD@host")
    if url.username and not (file or url.password):
        raise url.error("the user needs a password: USER:PASSWORD@host, or password_file=")
    return Path(file) if file else None


def _endpoints(url: RegistryUrl) -> tuple[Endpoint, ...]:
    try:
        found = [_endpoint(text) for text in (url.host or HOST).split(",")]
    except ValueError as error:
        raise url.error(str(error)) from None
    return tuple(dict.fromkeys(found))


def _endpoint(text: str) -> Endpoint:
    # What stands before the name would be a resolver's scheme to gRPC.
    if not re.fullmatch(r"[A-Za-z0-9._-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?", text):
        raise ValueError(f"{text!r} is not host:port; several are joined by commas")
    bare = ":" not in text or text.endswith("]")
    return Endpoint.parse(f"{text}:{PORT}" if bare else text)
