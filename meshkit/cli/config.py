"""``meshkit config``: values in the registry, which running services follow.

Keys are what comes after ``config/`` in the registry: ``meshkit config put orders/max_items 20`` is
for the field ``max_items`` of the service ``orders``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import gc
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from meshkit.backoff import Backoff
from meshkit.cli.outage import Outage
from meshkit.cli.registries import Url, hint_at_unknown, limit, opened
from meshkit.errors import ConfigError, RegistryError
from meshkit.registry import Entry, Registry
from meshkit.registry.kv import ABSENT, check_key, check_value
from meshkit.registry.url import SECRET

FOLDER = "config/"
RETRY_CAP = 5.0  # seconds between two attempts to go on watching
SHOWN = 72  # characters of a value, in a list for people
ASKED = 10  # keys that are named before they are removed

Key = Annotated[str, typer.Argument(help="As in orders/max_items.", show_default=False)]
Prefix = Annotated[str, typer.Argument(help="What keys begin with.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Read and change values in the registry, which running services follow.",
)


def command(
    of: typer.Typer = app, **settings: Any
) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Callable[..., None]]:
    """Make a coroutine a command; Ctrl-C ends it in peace."""

    def make(coroutine: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
        @functools.wraps(coroutine)
        def run(**arguments: Any) -> None:
            gc.enable()  # it may watch for days
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(coroutine(**arguments))

        of.command(**settings)(run)
        return run

    return make


@command()
async def get(key: Key, *, registry: Url = None, as_json: AsJson = False) -> None:
    """Print a value. Ends with 1 when there is none."""
    async with opened(registry) as reached, limit(reached) as kv:
        entry = await kv.get(full(key))
    if entry is None:
        raise ConfigError(f"there is no {key} in {reached.url}")
    if as_json:
        print(json.dumps(describe(entry)))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(entry.value if entry.value.endswith(b"\n") else entry.value + b"\n")


class Put(TyperCommand):
    """A command that takes ``-5`` for a value; whatever else is no option is refused."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the arguments apart: first with 0 for all numbers, to find unknown options."""
        ctx.ignore_unknown_options = False
        self.make_parser(ctx).parse_args(["0" if is_number(each) else each for each in args])
        ctx.ignore_unknown_options = True
        return super().parse_args(ctx, args)


@command(cls=Put)
async def put(
    key: Key,
    value: Annotated[
        str,
        typer.Argument(
            help="The text; - reads it from stdin; after -- it may begin with -.",
            show_default=False,
        ),
    ],
    *,
    expect: Annotated[
        int | None, typer.Option(min=ABSENT, help="Only if this is still its revision.")
    ] = None,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="Only if there is none.")] = False,
    registry: Url = None,
    as_json: AsJson = False,
) -> None:
    """Write a value."""
    if if_absent and expect not in (None, ABSENT):
        raise typer.BadParameter("--if-absent and --expect exclude each other")
    raw = sys.stdin.buffer.read().removesuffix(b"\n") if value == "-" else os.fsencode(value)
    check_value(key, raw)
    wanted = ABSENT if if_absent else expect
    async with opened(registry) as reached:
        async with limit(reached) as kv:
            entry = await kv.put(full(key), raw, expect=wanted)
        if entry is not None and "/" in key:
            await hint_at_unknown(reached, key.partition("/")[0])
    if entry is None:
        found = "there is one already" if wanted == ABSENT else f"its revision is not {wanted}"
        raise ConfigError(f"{key} in {reached.url} is left as it is: {found}")
    shown = {"key": key, "revision": entry.revision}
    text = f"{key} has revision {entry.revision} in {reached.url}"
    print(json.dumps(shown) if as_json else text)


@command()
async def ls(prefix: Prefix = "", *, registry: Url = None, as_json: AsJson = False) -> None:
    """List the values. For people, those with names of secrets are masked."""
    async with opened(registry) as reached, limit(reached) as kv:
        entries = await kv.list(begin(prefix))
    if as_json:
        print(json.dumps([describe(entry) for entry in entries], indent=2))
    elif entries:
        print("\n".join(line(entry) for entry in entries))
    else:
        print(none(reached, prefix))


@command()
async def watch(prefix: Prefix = "", *, registry: Url = None, as_json: AsJson = False) -> None:
    """Print the values, then each change as it comes; a line each."""
    seen: dict[str, Entry] = {}
    async with (
        opened(registry) as reached,
        contextlib.aclosing(followed(reached, begin(prefix))) as lists,
    ):
        async for entries in lists:
            now = {entry.key: entry for entry in entries}
            for key in sorted(seen.keys() - now):
                gone = {"event": "rm", "key": short(key)}
                print(json.dumps(gone) if as_json else f"rm  {short(key)}")
            for key, entry in now.items():
                if seen.get(key) != entry:
                    put = {"event": "put", **describe(entry)}
                    print(json.dumps(put) if as_json else f"put {line(entry)}")
            sys.stdout.flush()
            seen = now


async def followed(registry: Registry, prefix: str) -> AsyncGenerator[tuple[Entry, ...], None]:
    """Yield the entries and each change, for ever. Raises RegistryError if it can't be begun."""
    outage, backoff = Outage(registry.url), Backoff(cap=RETRY_CAP)
    while True:
        try:
            async with contextlib.aclosing(registry.kv.watch(prefix)) as lists:
                async for entries in lists:
                    outage.ends()
                    backoff.reset()
                    yield entries
        except RegistryError as error:
            outage.begins(error)
        await asyncio.sleep(backoff.next())


@command()
async def rm(
    key: Key,
    *,
    prefix: Annotated[
        bool, typer.Option("--prefix", help="All keys that begin with this text.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    registry: Url = None,
) -> None:
    """Remove a value; running services fall back to their settings."""
    if key.endswith("/") and not prefix:
        raise ConfigError(f"{key!r} is no key; to remove all that begin with it, add --prefix")
    async with opened(registry) as reached:
        keys = await chosen(reached, key) if prefix else [full(key)]
        if prefix and not yes:
            ask(keys)
        async with limit(reached) as kv:
            removed = [await kv.delete(each) for each in keys]
    if not any(removed):
        raise ConfigError(f"there is no {key} in {reached.url}")
    what = f"{sum(removed)} key{'s' * (sum(removed) != 1)}" if prefix else key
    print(f"removed {what} from {reached.url}")


async def chosen(registry: Registry, prefix: str) -> list[str]:
    """Return the keys that begin with this text. Raises ConfigError when there are none."""
    async with limit(registry) as kv:
        keys = [entry.key for entry in await kv.list(begin(prefix))]
    if not keys:
        raise ConfigError(none(registry, prefix))
    return keys


def ask(keys: list[str]) -> None:
    """Let the user say that these are to be removed. Raises ConfigError, or ends with 1."""
    if not sys.stdin.isatty():
        raise ConfigError(f"{len(keys)} keys would be removed: say so by --yes")
    for key in keys[:ASKED]:
        print(short(key))
    if len(keys) > ASKED:
        print(f"... and {len(keys) - ASKED} more")
    typer.confirm(f"Remove {len(keys)} keys?", abort=True)


def is_number(text: str) -> bool:
    """Whether this is a number, with a sign or without."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def full(key: str) -> str:
    """Return the key as the registry has it. Raises ConfigError when it can't be one."""
    return begin(check_key(key))


def begin(prefix: str) -> str:
    """Return what the keys begin with in the registry. Raises ConfigError for a doubled folder."""
    if prefix.startswith(FOLDER):
        raise ConfigError(f"all keys are under {FOLDER}: leave it out of {prefix!r}")
    return FOLDER + prefix


def none(registry: Registry, prefix: str) -> str:
    """Say that there are no such keys."""
    return (
        f"no key begins with {prefix} in {registry.url}" if prefix else f"no keys in {registry.url}"
    )


def short(key: str) -> str:
    """Return the key as the commands take it."""
    return key.removeprefix(FOLDER)


def describe(entry: Entry) -> dict[str, Any]:
    """Return an entry's fields; ``base64`` instead of ``value`` when that is not UTF-8."""
    fields: dict[str, Any] = {"key": short(entry.key)}
    try:
        fields["value"] = entry.value.decode()
    except UnicodeDecodeError:
        fields["base64"] = base64.b64encode(entry.value).decode()
    return {**fields, "revision": entry.revision}


def line(entry: Entry) -> str:
    """Return ``key = value`` in one line, without secrets."""
    key = short(entry.key)
    if any(map(SECRET.search, key.split("/")[1:])):
        return f"{key} = ***"
    text = repr(entry.text)[1:-1]
    return f"{key} = {text if len(text) <= SHOWN else text[: SHOWN - 3] + '...'}"
