"""Which instances of a service a call may go to: by tag, version, metadata."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from meshkit.discovery.routing.versions import Test, parse_range, parse_version
from meshkit.errors import ConfigError
from meshkit.model import Instance

TAG = re.compile(r"[^\s@,/]+")
SHOWN = 5  # different values in a message


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The instances that fit; all conditions hold at once. Give it to a client, or to a call.

    ::

        users = http_client("users", route=Route(tags=("v2",), version=">=2,<3"))
        await users.get("/users/1", route=Route(metadata={"region": "eu"}))

    Attributes:
        tags: an instance has all of them.
        version: a range as for pip, ``>=2,<3`` or ``~=2.1``, of semantic versions
            (https://semver.org). An instance whose version is none does not fit.
        metadata: an instance has these values under these keys.
        fallback: when nobody fits, all are called instead of failing the call.

    Raises:
        ConfigError: a part of it can't be read.
    """

    tags: Sequence[str] = ()
    version: str = ""
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fallback: bool = False
    _range: tuple[Test, ...] = dataclasses.field(default=(), init=False, repr=False, compare=False)
    _hash: int = dataclasses.field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tags = tuple(sorted({self.tags} if isinstance(self.tags, str) else set(self.tags)))
        for tag in tags:
            check_tag(tag)
        if not isinstance(self.version, str):
            raise ConfigError(f"Route: version must be text such as '>=2,<3', not {self.version!r}")
        if not isinstance(self.metadata, Mapping):
            raise ConfigError(f"Route: metadata must be a mapping, not {self.metadata!r}")
        pairs = tuple(sorted(_checked(self.metadata)))
        put = object.__setattr__
        put(self, "tags", tags)
        put(self, "metadata", MappingProxyType(dict(pairs)))
        put(self, "_range", parse_range(self.version) if self.version else ())
        # Made once: with a route, it is asked for in every call.
        put(self, "_hash", hash((tags, self.version, pairs, self.fallback)))

    def __hash__(self) -> int:
        return self._hash

    def fits(self, instance: Instance) -> bool:
        """Whether the instance meets all conditions."""
        if not set(self.tags) <= set(instance.tags):
            return False
        if any(instance.metadata.get(name) != value for name, value in self.metadata.items()):
            return False
        if not self._range:
            return True
        version = parse_version(instance.version)
        return version is not None and all(test(version) for test in self._range)

    def select(self, instances: Sequence[Instance]) -> Sequence[Instance]:
        """Return those that fit; all of them when nobody does and ``fallback`` is set."""
        fitting = [each for each in instances if self.fits(each)]
        return instances if self.fallback and not fitting else fitting

    def spare(self, instances: Sequence[Instance]) -> Sequence[Instance]:
        """Return those that a call may go to when all of the selected have failed it."""
        return instances if self.fallback else self.select(instances)

    def explain(self, instances: Sequence[Instance]) -> str:
        """Say that none of the instances fits, and what they have instead."""
        parts = []
        if self.tags:
            parts.append(f"tags {_counted(tag for each in instances for tag in each.tags)}")
        if self.version:
            parts.append(f"versions {_counted(each.version for each in instances)}")
        parts += [
            f"{name} {_counted(each.metadata.get(name, '') for each in instances)}"
            for name in self.metadata
        ]
        return f"none of {len(instances)} fits {self}; they have {', '.join(parts)}"

    def __str__(self) -> str:
        parts = [f"tag {tag}" for tag in self.tags]
        parts += [f"version {self.version}"] * bool(self.version)
        parts += [f"{name}={value}" for name, value in self.metadata.items()]
        return ", ".join(parts) or "any"


def check_tag(tag: object) -> str:
    """Return ``tag`` when it is one. Raises ConfigError otherwise."""
    if not isinstance(tag, str) or not TAG.fullmatch(tag):
        raise ConfigError(f"Route: {tag!r} is no tag: use a word without spaces, '@', ',' and '/'")
    return tag


def parse_name(text: str) -> tuple[str, str | None]:
    """Take ``users@canary`` apart: the service's name, unchecked, and the tag, None without one.

    Raises:
        ConfigError: what follows the ``@`` is no tag.
    """
    name, at, tag = text.partition("@") if isinstance(text, str) else (text, "", "")
    return name, check_tag(tag) if at else None


def narrowed(route: Route | None, tag: str | None) -> Route | None:
    """Return the route of those that have this tag as well."""
    if tag is None:
        return route
    if route is None:
        return Route(tags=(tag,))
    return dataclasses.replace(route, tags=(*route.tags, tag))


def _checked(metadata: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigError(f"Route: metadata {name!r} is to be text, not {value!r}")
        yield name, value


def _counted(values: Iterable[str]) -> str:
    """Return each value once with how many have it, the most frequent first."""
    counts = Counter(value or "(none)" for value in values).most_common()
    shown = ", ".join(f"{value} ({count})" for value, count in counts[:SHOWN])
    more = len(counts) - SHOWN
    return (shown or "(none)") + (f" and {more} more" if more > 0 else "")
