"""A model that is kept current: follow the registry, settle, swap, tell."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import TracebackType
from typing import Generic, Self, TypeVar

from pydantic import BaseModel

from meshkit.backoff import Backoff
from meshkit.config.fields import Path, did_you_mean, slots
from meshkit.config.layers import Problem, UnbuildableError, Values, settle
from meshkit.config.listeners import Listeners
from meshkit.errors import ConfigError, RegistryError
from meshkit.registry import Entry, KeyValue, Registry, open_registry
from meshkit.registry.kv import check_key

FOLDER = "config"  # what all keys of configuration begin with
FIRST_LIST = 3.0  # seconds to wait for the registry before the settings alone are used
RETRY_CAP = 5.0

log = logging.getLogger("meshkit.config")

M = TypeVar("M", bound=BaseModel)
F = TypeVar("F", bound=Callable[..., object])


class LiveConfig(Generic[M]):
    """A model's current values: the registry's, over the settings, over the defaults.

    ::

        async with LiveConfig(Limits, "consul://127.0.0.1:8500", "orders") as config:
            config.value.max_items

    ``value`` is replaced as a whole when a key under ``config/<name>/`` changes; keep the model
    you took for as long as its values must belong together, and do not change it. A value that
    the model refuses is logged, and what was there before stays; so do all when the registry is
    away. Belongs to one event loop.

    Args:
        model: a pydantic model; of a BaseSettings, environment and ``.env`` are read too.
        registry: a registry URL, or an open registry, which stays open; when None, the setting
            ``registry`` as services use it.
        name: by convention the service's; the keys are ``config/<name>/<field>``.

    Raises:
        ConfigError: the model is none, or the name can't be part of a key.
        RegistryUrlError: the URL is malformed or its scheme unknown.

    Attributes:
        error: why the registry can't be followed at the moment, or None.
    """

    def __init__(self, model: type[M], registry: str | Registry | None, name: str) -> None:
        self.prefix = check_key(f"{FOLDER}/{name}") + "/"
        self.error: RegistryError | None = None
        self._model = check_model(model)
        self._registry = (
            registry if isinstance(registry, Registry) else open_registry(_url(registry))
        )
        self._owned = self._registry is not registry
        self._value: M | None = None
        self._used: Values = {}
        self._entries: tuple[Entry, ...] | None = None  # as listed last
        self._listed = asyncio.Event()
        self._said: set[Hashable] = set()
        self._listeners: Listeners[M] = Listeners()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def value(self) -> M:
        """The model as it is now. Raises ConfigError before the start."""
        if self._value is None:
            raise ConfigError(
                f"{self.prefix}: {self._model.__name__} has no values yet: use `async with`"
            )
        return self._value

    def on_change(self, listener: F) -> F:
        """Call ``listener(old, new)``, plain or async, after each change. Use it as a decorator."""
        self._listeners.add(listener)  # type: ignore[arg-type]
        return listener

    async def start(self) -> None:
        """Make the model, waiting up to three seconds for the registry, and follow it.

        Raises:
            ConfigError: a required value is missing, or a setting is not usable.
        """
        try:
            kv = self._registry.kv
        except RegistryError as error:
            log.warning("%s; %s has its values from the settings alone", error, self._shown)
        else:
            self._task = asyncio.create_task(self._follow(kv), name=f"meshkit-{self.prefix}")
            await self._first_list()
        try:
            self._take(self._entries or ())
        except UnbuildableError as error:
            raise ConfigError(self._unbuildable(error.problem)) from None

    def announce(self) -> None:
        """Tell the listeners of changes since the start."""
        self._listeners.begin()

    async def aclose(self) -> None:
        """Stop following; the value stays. Closing twice is safe."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._listeners.aclose()
        if self._owned:
            await self._registry.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        self.announce()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # --- following --------------------------------------------------------------------------------

    async def _first_list(self) -> None:
        try:
            async with asyncio.timeout(FIRST_LIST):
                await self._listed.wait()
        except TimeoutError:
            if self.error is None:
                log.warning(
                    "%s: no answer from %s within %.0f s; the settings apply until there is one",
                    self.prefix,
                    self._registry.url,
                    FIRST_LIST,
                )

    async def _follow(self, kv: KeyValue) -> None:
        backoff = Backoff(cap=RETRY_CAP)
        while not self._closed:  # cancelling may end in an engine's error instead
            try:
                async with contextlib.aclosing(kv.watch(self.prefix)) as watch:
                    async for entries in watch:
                        backoff.reset()
                        self._found(entries)
            except RegistryError as error:
                self._lost(error)
            except Exception as error:
                log.exception("following %s failed unexpectedly", self.prefix)
                self._lost(RegistryError(f"{self._registry.url}: {error!r}"))
            await asyncio.sleep(backoff.next())

    def _found(self, entries: tuple[Entry, ...]) -> None:
        if self.error is not None:
            log.info("%s: following %s again", self.prefix, self._registry.url)
            self.error = None
        self._entries = entries
        self._listed.set()
        if self._value is not None:  # else it is the start that waits for it
            try:
                self._take(entries)
            except UnbuildableError as error:
                text = f"{self._unbuildable(error.problem)}; all stays as before"
                self._complain({(self.prefix, text): text})

    def _lost(self, error: RegistryError) -> None:
        if self.error is None:
            stay = "the last values stay" if self._entries is not None else "the settings apply"
            log.warning("%s: the registry can't be followed: %s; %s", self.prefix, error, stay)
        self.error = error

    # --- taking over ------------------------------------------------------------------------------

    def _take(self, entries: Iterable[Entry]) -> None:
        """Replace the value by what these entries make of it, and say what could not be used."""
        found: dict[Path, bytes] = {}
        complaints: dict[Hashable, str] = {}
        for entry in entries:
            path = tuple(entry.key.removeprefix(self.prefix).split("/"))
            if slots(self._model, path):
                found[path] = entry.value
            else:
                hint = did_you_mean(self._model, path)
                text = f"{entry.key} is no field of {self._model.__name__} and is ignored{hint}"
                complaints[entry.key] = text
        settled = settle(self._model, found, self._used)
        for problem in settled.refused:
            raw = found.get(problem.path)
            complaints[problem, raw] = self._refusal(problem, removed=raw is None)
        self._complain(complaints)
        self._used = settled.used
        self._swap(settled.model)

    def _swap(self, new: M) -> None:
        old, self._value = self._value, new
        if old is not None and old != new:
            before, after = dict(old), dict(new)  # names only: values may be secret
            changed = [name for name in after if name not in before or before[name] != after[name]]
            changed += before.keys() - after.keys()
            log.info("%s: changed %s", self.prefix, ", ".join(changed))
        self._listeners.show(new)

    def _complain(self, complaints: Mapping[Hashable, str]) -> None:
        """Log each once, for as long as it is not mended."""
        for complaint, text in complaints.items():
            if complaint not in self._said:
                log.warning("%s", text)
        self._said = set(complaints)

    def _refusal(self, problem: Problem, *, removed: bool) -> str:
        done = "was removed, but is needed" if removed else "is refused"
        before = problem.path in self._used
        stays = "what was before stays" if before else "the setting or default applies"
        return f"{self._key(problem.path)} {done}: {problem.reason}; {stays}"

    def _unbuildable(self, problem: Problem) -> str:
        key = self._key(problem.path)
        if self.error:
            mend = f" (the registry can't be followed: {self.error})"
        else:
            mend = f"; set it by: {command}" if (command := self._command(problem.path)) else ""
        return f"{self._shown} can't be made: {key}: {problem.reason}{mend}"

    def _command(self, path: Path) -> str | None:
        """Return the command that sets a value; None when no command could."""
        urls = self._registry.url.split()
        if not path or not self._listed.is_set() or any(url.startswith("memory:") for url in urls):
            return None
        words = ["meshkit", "config", "put", self._key(path).removeprefix(f"{FOLDER}/"), "VALUE"]
        return shlex.join([*words, *(word for url in urls for word in ("--registry", url))])

    def _key(self, path: Path) -> str:
        return self.prefix + "/".join(path)

    @property
    def _shown(self) -> str:
        return f"{self._model.__name__} ({self.prefix})"


def check_model(model: type[M]) -> type[M]:
    """Return ``model`` when it is a pydantic model. Raises ConfigError otherwise."""
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        raise ConfigError(f"a configuration is a subclass of pydantic's BaseModel, not {model!r}")
    return model


def _url(registry: str | None) -> str:
    from meshkit.settings import load_settings  # noqa: PLC0415 - scripts often name the registry

    return registry or load_settings().registry
