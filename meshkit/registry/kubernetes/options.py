"""What a ``kubernetes://`` URL says, and what a pod is told about its cluster."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path

from meshkit.errors import RegistryUrlError
from meshkit.model import Endpoint
from meshkit.registry.certificates import Certificates, Unusable
from meshkit.registry.tokens import is_word, read_token_file
from meshkit.registry.url import RegistryUrl

SCHEME = "kubernetes"
# https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
HOST, PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_NAMESPACE = "default"
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
SERVER_HOST = re.compile(r"[A-Za-z0-9._:-]+")
SECURITY = ("token", "token_file", "ca", "cert", "key", "verify")
FLAGS = {"true": True, "false": False}
EXAMPLES = (
    f"{SCHEME}://HOST:PORT/NAMESPACE, or through kubectl proxy "
    f"{SCHEME}://127.0.0.1:8001/NAMESPACE?tls=false"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesOptions:
    """Whom to ask, as whom, and about what.

    Attributes:
        server: the API server.
        namespace: whose services are found.
        token: a bearer token, empty for none.
        token_file: read for each request and used instead of ``token``, because it rotates.
        certificates: to trust and to show, or None to speak without TLS.
        in_cluster: whether the pod's own cluster is meant.
    """

    server: Endpoint
    namespace: str
    token: str = dataclasses.field(default="", repr=False)
    token_file: Path | None = None
    certificates: Certificates | None = None
    in_cluster: bool = False

    @property
    def url(self) -> str:
        """A URL that names the same services, without parameters."""
        place = "" if self.in_cluster else f"{self.server}/"
        return f"{SCHEME}://{place}{self.namespace}"

    def read_token(self) -> str:
        """Return the token to use now, empty for none. Raises RegistryDenied."""
        if self.token_file is None:
            return self.token
        return read_token_file(self.token_file, whose="Kubernetes'")


def read_options(url: RegistryUrl, environ: Mapping[str, str]) -> KubernetesOptions:
    """Read ``kubernetes://[NAMESPACE]`` or ``kubernetes://HOST:PORT/[NAMESPACE]``, and parameters.

    Without an API server it is the cluster's that we run in, with the service account of our pod;
    what the URL says wins.

    Raises:
        RegistryUrlError: not in a cluster, or a part is not usable; the message says which.
    """
    url.only("tls", *SECURITY)
    if url.username or url.password:
        raise url.error("Kubernetes takes a token, not a user: write ?token_file=...")
    in_cluster = ":" not in url.host
    tls = _flag(url, "tls")
    if not tls and in_cluster:
        raise url.error(f"tls=false needs the address of a proxy: {EXAMPLES}")
    if not tls and (misplaced := [name for name in SECURITY if name in url.params]):
        raise url.error(f"{misplaced[0]}= needs TLS: it would be read on the way")
    server = _cluster(url, environ) if in_cluster else _server(url)
    return KubernetesOptions(
        server=server,
        namespace=_namespace(url, in_cluster=in_cluster),
        token=_token(url),
        token_file=_token_file(url, in_cluster=in_cluster),
        certificates=_certificates(url, in_cluster=in_cluster) if tls else None,
        in_cluster=in_cluster,
    )


def _cluster(url: RegistryUrl, environ: Mapping[str, str]) -> Endpoint:
    host, port = environ.get(HOST, ""), environ.get(PORT, "")
    if not host or not port:
        raise RegistryUrlError(
            f"{url.text} is for pods, and this process runs in none ({HOST} is not set): name the "
            f"API server, as in {EXAMPLES}"
        )
    try:
        return Endpoint.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except ValueError as error:
        raise RegistryUrlError(f"bad value for {HOST} or {PORT}: {error}") from None


def _server(url: RegistryUrl) -> Endpoint:
    try:
        server = Endpoint.parse(url.host)
    except ValueError as error:
        raise url.error(str(error)) from None
    if not SERVER_HOST.fullmatch(server.host):
        raise url.error(f"{url.host!r} is not HOST:PORT")
    return server


def _namespace(url: RegistryUrl, *, in_cluster: bool) -> str:
    path = url.path.strip("/")
    if in_cluster and url.host and path:
        raise url.error(f"an API server needs its port: {SCHEME}://{url.host}:443/{path}")
    named = path or (url.host if in_cluster else DEFAULT_NAMESPACE)
    if not named:
        file = SERVICE_ACCOUNT / "namespace"
        try:
            named = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise url.error(
                f"{file} can't be read, so the namespace has to be named: {SCHEME}://NAMESPACE"
            ) from None
    if not LABEL.fullmatch(named):
        raise url.error(f"{named!r} is not a namespace")
    return named


def _token(url: RegistryUrl) -> str:
    if {"token", "token_file"} <= url.params.keys():
        raise url.error("token= and token_file= exclude each other")
    token = url.params.get("token", "")
    if token and not is_word(token):
        raise url.error("token= holds characters that can't be sent")
    return token


def _token_file(url: RegistryUrl, *, in_cluster: bool) -> Path | None:
    if named := url.params.get("token_file"):
        return Path(named)
    return SERVICE_ACCOUNT / "token" if in_cluster and "token" not in url.params else None


def _certificates(url: RegistryUrl, *, in_cluster: bool) -> Certificates:
    ca = _readable(url, "ca") or (str(SERVICE_ACCOUNT / "ca.crt") if in_cluster else None)
    certificate, key = _readable(url, "cert"), _readable(url, "key")
    if bool(certificate) != bool(key):
        given, missing = ("cert", "key") if certificate else ("key", "cert")
        raise url.error(f"{given}= needs {missing}= too")
    try:
        return Certificates(
            "Kubernetes", ca=ca, cert=certificate, key=key, verify=_flag(url, "verify")
        )
    except Unusable as error:
        raise url.error(f"{error.parameter}= {error}") from None


def _readable(url: RegistryUrl, name: str) -> str | None:
    path = url.params.get(name)
    if path and not os.access(path, os.R_OK):
        raise url.error(f"{name}= names {path}, which can't be read")
    return path or None


def _flag(url: RegistryUrl, name: str) -> bool:
    text = url.params.get(name, "true")
    if text.lower() not in FLAGS:
        raise url.error(f"{name}= should be true or false, not {text!r}")
    return FLAGS[text.lower()]
