"""``limits = live_config(Limits)`` in the class body of a service. Declaration only; no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from meshkit.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from meshkit.config.live import LiveConfig

M = TypeVar("M", bound="BaseModel")
F = TypeVar("F", bound=Callable[..., Any])

MARK = "__meshkit_on_change__"


class LiveSetting(Generic[M]):
    """What :func:`live_config` returns: the model's current value on the instance.

    Attributes:
        model: its class.
        attribute: what it is called in the class.
    """

    def __init__(self, model: type[M], name: str | None) -> None:
        self.model = model
        self.attribute = ""
        self._name = name
        self._slot = ""

    def __set_name__(self, owner: type, attribute: str) -> None:
        self.attribute = attribute
        self._slot = f"__meshkit_config_{attribute}"

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> M: ...
    def __get__(self, instance: object | None, owner: type) -> Self | M:
        if instance is None:
            return self
        config: LiveConfig[M] | None = vars(instance).get(self._slot)
        if config is None:
            raise ConfigError(
                f"{owner.__name__} is not running, so its {self.attribute} are not known; "
                "run it with `meshkit run` or `async with Runtime(service):`"
            )
        return config.value

    def on_change(self, method: F) -> F:
        """Have this method, plain or async, called with the old and the new model."""
        setattr(method, MARK, (*getattr(method, MARK, ()), self))
        return method

    def name(self, service: str) -> str:
        """Return what comes after ``config/`` in the keys."""
        return self._name or service

    def attach(self, instance: object, config: LiveConfig[M]) -> None:
        """Let the instance have its values, and its methods hear of changes."""
        vars(instance)[self._slot] = config
        for attribute in self._listeners(type(instance)):
            config.on_change(getattr(instance, attribute))

    def _listeners(self, cls: type) -> list[str]:
        """Return the marked methods; an override needs no mark of its own."""
        found = {
            attribute: None  # a set that keeps the order
            for base in reversed(cls.__mro__)
            for attribute, value in vars(base).items()
            for setting in getattr(value, MARK, ())
            if setting.attribute == self.attribute
        }
        return list(found)


def live_config(model: type[M], name: str | None = None) -> LiveSetting[M]:
    """Declare a configuration that follows the registry while the service runs.

    On an instance it is the model as it is now: take it once per call of a handler when several
    values must fit together. It is known before ``on_start``. See :class:`meshkit.LiveConfig`.

    Args:
        model: a pydantic model, or a BaseSettings that also reads the environment.
        name: the keys are ``config/<name>/<field>``; the service's name when None.

    Raises:
        ConfigError: the model is none, or the name can't be part of a key.
    """
    from meshkit.config.live import FOLDER, check_model  # noqa: PLC0415 - pydantic takes a while
    from meshkit.registry.kv import check_key  # noqa: PLC0415

    if name is not None:
        check_key(f"{FOLDER}/{name}")
    return LiveSetting(check_model(model), name)


def live_settings(cls: type) -> Iterator[LiveSetting[Any]]:
    """Yield the declared configurations, base classes first."""
    names = {name: None for base in reversed(cls.__mro__) for name in vars(base)}
    for name in names:
        value = vars(cls).get(name) or getattr(cls, name, None)
        if isinstance(value, LiveSetting):
            yield value


def check_settings(cls: type, service: str) -> None:
    """Raise ValueError when two configurations would read each other's keys."""
    seen: dict[str, LiveSetting[Any]] = {}
    for setting in live_settings(cls):
        mine = setting.name(service) + "/"
        for other, theirs in seen.items():
            if mine.startswith(other) or other.startswith(mine):
                raise ValueError(
                    f"{theirs.attribute} and {setting.attribute} share the keys "
                    f"config/{max(mine, other, key=len)}: give each a name of its own, as in "
                    f'live_config({setting.model.__name__}, "{service}/{setting.attribute}")'
                )
        seen[mine] = setting
