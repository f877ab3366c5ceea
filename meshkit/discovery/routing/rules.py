"""A service's routing rules: shares of its groups, and headers that lead to one of them.

They stand as JSON in the registry's key-value store, under ``meshkit/routes/<service>``::

    {"split": {"users": 95, "users@canary": 5},
     "match": [{"header": {"x-beta": "1"}, "to": "users@canary"}]}

A group is the instances with a tag, ``users@canary``, or those of no group that the rules name,
``users``: so a group gets what the rules give it, and nothing else.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from meshkit.discovery.routing.route import parse_name
from meshkit.discovery.routing.split import Split
from meshkit.discovery.target import Route as AnyRoute
from meshkit.errors import ConfigError
from meshkit.model import Instance

FOLDER = "meshkit/routes/"  # what the keys of all rules begin with
MOST = 10_000  # of a share: a hundredth of a percent is the finest
KEPT = 256  # routes to groups; callers have few routes, or make a new one for each call
ANY = "*"  # for a header's value


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """Calls with all of these headers go to one group; ``*`` stands for any value."""

    headers: tuple[tuple[str, str], ...]
    to: str


class Rules:
    """The rules of one service, checked.

    Args:
        service: whose they are.
        split: group to share; None leaves all to the instances that no rule names.
        match: what comes before that, the first that fits.

    Attributes:
        groups: the tag of each group that the rules name.
        split: divides the calls without a match.
    """

    def __init__(
        self, service: str, split: Mapping[str, int] | None, match: Sequence[Match]
    ) -> None:
        self.service = service
        self.shares = dict(split or {service: 1})
        self.match = tuple(match)
        names = {*self.shares, *(each.to for each in match)} - {service}
        self.groups = tuple(sorted(name.partition("@")[2] for name in names))
        self.split = Split(self.shares, service)
        self._made: dict[tuple[AnyRoute | None, str], Group] = {}

    def __str__(self) -> str:
        parts = [f"{name} {share}" for name, share in self.shares.items()]
        for each in self.match:
            headers = " and ".join(f"{name}: {value}" for name, value in each.headers)
            parts.append(f"{headers} to {each.to}")
        return ", ".join(parts)

    def within(self, route: AnyRoute | None, name: str) -> Group:
        """Return the route to a group, among the instances that ``route`` selects."""
        group = self._made.get((route, name))
        if group is None:
            if len(self._made) >= KEPT:
                self._made.clear()
            group = Group(route, name.partition("@")[2] or None, self.groups)
            self._made[route, name] = group
        return group

    def empty(self, instances: Sequence[Instance]) -> list[str]:
        """Return the groups that get calls and have none of these instances."""
        wanted = {name for name, share in self.shares.items() if share}
        wanted |= {each.to for each in self.match}
        return sorted(name for name in wanted if not self.within(None, name).members(instances))


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """The route to one group: as strict as the caller's own, as soft as the rules themselves.

    Attributes:
        route: what the caller asked for; None for anybody.
        tag: of the group; None for the instances of no group.
        groups: the tags of all groups.
    """

    route: AnyRoute | None
    tag: str | None
    groups: tuple[str, ...]
    _hash: int = dataclasses.field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.route, self.tag, self.groups)))

    def __str__(self) -> str:
        others = f"none of {', '.join(self.groups)}"
        group = f"group {self.tag}" if self.tag is not None else others
        return group if self.route is None else f"{group}, {self.route}"

    def __hash__(self) -> int:
        return self._hash

    def members(self, instances: Sequence[Instance]) -> Sequence[Instance]:
        """Return those of the group."""
        if self.tag is not None:
            return [each for each in instances if self.tag in each.tags]
        return [each for each in instances if not set(self.groups) & set(each.tags)]

    def select(self, instances: Sequence[Instance]) -> Sequence[Instance]:
        """Return those of the group; if there are none, those of no group, and then anybody."""
        allowed = instances if self.route is None else self.route.select(instances)
        rest = dataclasses.replace(self, tag=None)
        return self.members(allowed) or rest.members(allowed) or allowed

    def spare(self, instances: Sequence[Instance]) -> Sequence[Instance]:
        """Return whom the caller's own route allows: a failing canary fails no call."""
        return instances if self.route is None else self.route.spare(instances)

    def explain(self, instances: Sequence[Instance]) -> str:
        """Say why nobody fits; that is for the caller's own route alone to decide."""
        return "" if self.route is None else self.route.explain(instances)


def parse_rules(service: str, value: bytes) -> Rules:
    """Read a service's rules. Raises ConfigError that says what is wrong and how to write it."""
    try:
        read = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}") from None
    if not isinstance(read, dict) or read.keys() - {"split", "match"} or not read:
        raise ConfigError('must be an object with "split", "match" or both')
    split = read.get("split")
    match = read.get("match", [])
    if split is not None:
        _check_split(service, split)
    if not isinstance(match, list):
        raise ConfigError(f'"match" must be a list, not {match!r}')
    return Rules(service, split, [_match(service, each) for each in match])


def _check_split(service: str, split: Any) -> None:
    example = f'such as {{"{service}": 95, "{service}@canary": 5}}'
    if not isinstance(split, dict) or not split:
        raise ConfigError(f'"split" must be an object of shares, {example}')
    for name, share in split.items():
        _check_group(service, name)
        if type(share) is not int or not 0 <= share <= MOST:
            raise ConfigError(
                f"the share of {name} must be a whole number from 0 to {MOST}, not {share!r}; "
                "what counts is their relation: 995 to 5 for half a percent"
            )
    if not any(split.values()):
        raise ConfigError(f"every share is 0, so nobody could be called; {example}")


def _match(service: str, rule: Any) -> Match:
    example = f'such as {{"header": {{"x-beta": "1"}}, "to": "{service}@canary"}}'
    if not isinstance(rule, dict) or rule.keys() != {"header", "to"}:
        raise ConfigError(f"a match must have a header and where to, {example}")
    headers, to = rule["header"], rule["to"]
    if not isinstance(headers, dict) or not headers:
        raise ConfigError(f"the header of a match must be an object, {example}")
    for name, value in headers.items():
        if not name or not isinstance(value, str):
            raise ConfigError(f"the header {name!r} of a match must be text, not {value!r}")
    _check_group(service, to)
    return Match(tuple((name.lower(), value) for name, value in headers.items()), to)


def _check_group(service: str, group: Any) -> None:
    try:
        name, _ = parse_name(group)
    except ConfigError:
        name = None
    if name != service:
        raise ConfigError(f"{group!r} is no group of {service}: use {service!r} or '{service}@TAG'")
