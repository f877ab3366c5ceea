"""Names of services and ids of their entries."""

from __future__ import annotations

import hashlib
import re

from meshkit.model import INSTANCE_ID, SERVICE_NAME

LABEL_LENGTH = 63
DIGEST_LENGTH = 8
UNFIT = re.compile(r"[^a-z0-9]+")
IMAGE_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}")


def image_name(image: str) -> str:
    """Return the last part of an image's name, without registry, tag and digest.

    Empty when the container was started from an image's id, which has no name.
    """
    if IMAGE_ID.fullmatch(image):
        return ""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def is_path(text: str) -> bool:
    """Whether registries take it as a part of a path.

    Consul would register others, and never find them again to remove them.
    """
    return text.isprintable() and not {"", ".", ".."} & set(text.split("/"))


def record_id(
    host: str, container: str, port: int, protocol: str, *, host_port: int | None = None
) -> str:
    """Return an id in Registrator's form, ``<host>:<container>:<port>[:udp]``.

    ``host_port`` tells the second and further addresses of one container port apart.
    """
    parts = [host, container, str(port)]
    if host_port is not None:
        parts.append(str(host_port))
    if protocol == "udp":
        parts.append("udp")
    return ":".join(parts)


def dns_name(name: str) -> str:
    """Return the service name that every engine of meshkit takes: one DNS label.

    A fit name stays as it is. Others are put in lower case, with ``-`` for what is not allowed,
    so ``User_API`` and ``user-api`` are one service.
    """
    if SERVICE_NAME.fullmatch(name):
        return name
    label = UNFIT.sub("-", name.lower()).strip("-")
    if not label[:1].isalpha():
        label = f"svc-{label}".rstrip("-")
    return label if len(label) <= LABEL_LENGTH else _with_digest(label, name)


def dns_label(record_id: str) -> str:
    """Return an id as one DNS label, different for different ids, always the same for one."""
    if INSTANCE_ID.fullmatch(record_id):
        return record_id
    return _with_digest(UNFIT.sub("-", record_id.lower()).strip("-"), record_id)


def _with_digest(label: str, source: str) -> str:
    digest = hashlib.sha256(source.encode()).hexdigest()[:DIGEST_LENGTH]
    kept = label[: LABEL_LENGTH - DIGEST_LENGTH - 1].rstrip("-")
    return f"{kept}-{digest}" if kept else digest
