"""A Docker engine, read through its API: containers, events, and the parts of a Swarm."""

from meshkit.docker.engine import API_VERSION, Docker, Events, JsonObject
from meshkit.docker.errors import DockerDenied, DockerError, DockerNotFound, DockerUnavailable
from meshkit.docker.host import DockerHost

__all__ = [
    "API_VERSION",
    "Docker",
    "DockerDenied",
    "DockerError",
    "DockerHost",
    "DockerNotFound",
    "DockerUnavailable",
    "Events",
    "JsonObject",
]
