"""``meshkit routes``: how a service's calls are divided, followed by all who call it.

``meshkit routes set users users=95 users@canary=5``: 5 % for the instances with the tag ``canary``.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from meshkit.cli.config import AsJson, command
from meshkit.cli.registries import Url, hint_at_unknown, limit, opened
from meshkit.discovery.routing.rules import FOLDER, Rules, parse_rules
from meshkit.errors import ConfigError
from meshkit.model import check_service_name
from meshkit.registry.kv import ABSENT

Service = Annotated[str, typer.Argument(help="As in users.", show_default=False)]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Divide a service's calls among its instances; those who call it follow at once.",
)


@command(of=app)
async def get(service: Service, *, registry: Url = None) -> None:
    """Print a service's rules as JSON. Ends with 1 when there are none."""
    key = key_of(service)
    async with opened(registry) as reached, limit(reached) as kv:
        entry = await kv.get(key)
    if entry is None:
        raise ConfigError(f"{service} has no rules in {reached.url}: all its instances are called")
    print(entry.text)


@command(of=app)
async def ls(*, registry: Url = None, as_json: AsJson = False) -> None:
    """List the services that have rules."""
    async with opened(registry) as reached, limit(reached) as kv:
        entries = await kv.list(FOLDER)
    found = {entry.key.removeprefix(FOLDER): entry.value for entry in entries}
    if as_json:
        print(json.dumps({name: value.decode(errors="replace") for name, value in found.items()}))
    elif found:
        print("\n".join(f"{name}: {shown(name, value)}" for name, value in found.items()))
    else:
        print(f"no rules in {reached.url}")


@command(of=app, name="set")
async def put(
    service: Service,
    shares: Annotated[
        list[str] | None,
        typer.Argument(
            help="GROUP=SHARE of each group; or the rules as JSON; - reads that from stdin.",
            metavar="[GROUP=SHARE]...",
            show_default=False,
        ),
    ] = None,
    *,
    match: Annotated[
        list[str] | None,
        typer.Option(help="HEADER=VALUE:GROUP; * is any value; may be repeated."),
    ] = None,
    registry: Url = None,
) -> None:
    """Set the shares, the matches, or both; what is not given stays.

    A group is the instances with a tag, as users@canary, or those of no group, as users.
    """
    key, given = key_of(service), shares or []
    if not given and not match:
        raise ConfigError(f"no shares: give some, as in {service}=95 {service}@canary=5")
    async with opened(registry) as reached:
        async with limit(reached) as kv:
            entry = await kv.get(key)
            value = whole(given)
            if value is None:
                rules = {} if entry is None else parsed(service, entry.value)
                if given:
                    rules["split"] = split_of(given)
                if match:
                    rules["match"] = [match_of(each) for each in match]
                value = json.dumps(rules).encode()
            try:
                rules_set = parse_rules(service, value)
            except ConfigError as error:
                raise ConfigError(f"the rules of {service} stay as they are: {error}") from None
            expect = ABSENT if entry is None else entry.revision
            if await kv.put(key, value, expect=expect) is None:
                raise ConfigError(f"somebody else has just set the rules of {service}: try again")
        await hint_at_unknown(reached, service, tags_called(rules_set))
    print(f"{service}: {shown(service, value)} in {reached.url}")


@command(of=app)
async def rm(service: Service, *, registry: Url = None) -> None:
    """Remove a service's rules: all its instances are called."""
    key = key_of(service)
    async with opened(registry) as reached, limit(reached) as kv:
        removed = await kv.delete(key)
    if not removed:
        raise ConfigError(f"{service} has no rules in {reached.url}")
    print(f"{service} has no rules any more in {reached.url}: all its instances are called")


def key_of(service: str) -> str:
    """Return the key of a service's rules. Raises ConfigError when it is no service's name."""
    try:
        return FOLDER + check_service_name(service)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def whole(given: list[str]) -> bytes | None:
    """Return the rules when they are given as JSON; None when it is shares."""
    if given == ["-"]:
        return sys.stdin.buffer.read().strip()
    if len(given) == 1 and given[0].lstrip().startswith("{"):
        return given[0].encode()
    return None


def parsed(service: str, value: bytes) -> dict[str, Any]:
    """Return the rules that are there, to change a part of them; none when they are not usable."""
    try:
        parse_rules(service, value)
    except ConfigError:
        return {}
    rules: dict[str, Any] = json.loads(value)
    return rules


def split_of(shares: list[str]) -> dict[str, int]:
    """Read ``users=95`` and so on. Raises ConfigError that names what is none."""
    split: dict[str, int] = {}
    for text in shares:
        group, equals, share = text.partition("=")
        if not equals or not share.isdecimal() or group in split:
            raise ConfigError(f"{text!r} is no share of its own: write GROUP=NUMBER, once a group")
        split[group] = int(share)
    return split


def match_of(text: str) -> dict[str, Any]:
    """Read ``x-beta=1:users@canary``. Raises ConfigError when it is none."""
    condition, _, group = text.rpartition(":")
    header, _, value = condition.partition("=")
    if not header or not value:
        raise ConfigError(f"{text!r} is no match: write HEADER=VALUE:GROUP")
    return {"header": {header: value}, "to": group}


def shown(service: str, value: bytes) -> str:
    """Return the rules in a line for people."""
    try:
        rules = parse_rules(service, value)
    except ConfigError as error:
        return f"not usable: {error}"
    return "; ".join([*matches(rules), shares_of(rules)])


def matches(rules: Rules) -> list[str]:
    """Return a part of the line for each match."""
    return [
        f"{' and '.join(f'{name}={value}' for name, value in each.headers)} to {each.to}"
        for each in rules.match
    ]


def shares_of(rules: Rules) -> str:
    """Return the shares in percent."""
    total = sum(rules.shares.values())
    return ", ".join(f"{name} {100 * share / total:.4g} %" for name, share in rules.shares.items())


def tags_called(rules: Rules) -> list[str]:
    """Return the tags of the groups that get calls."""
    called = {name for name, share in rules.shares.items() if share} | {x.to for x in rules.match}
    return sorted(name.partition("@")[2] for name in called - {rules.service})
