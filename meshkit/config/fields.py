"""Which key is which field of a model, and how its text is read.

As with environment variables in pydantic-settings: fields of models are further words of the key,
so are the keys of dicts; a value of a composed type is JSON, all else is plain text that pydantic
takes apart. https://docs.pydantic.dev/latest/concepts/pydantic_settings/#parsing-environment-variable-values
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import json
from collections.abc import Collection, Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, Json, RootModel, Secret, SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import NoDecode

from meshkit.errors import ConfigError
from meshkit.registry.url import SECRET

JSON: Any = Json  # for type checkers it is no class
#: words of a key after the prefix: the way to a field
Path = tuple[str, ...]


class UnreadableError(ValueError):
    """A value that is not even text, or not JSON where that is needed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """Where a value goes.

    Attributes:
        annotation: its type.
        argument: what the model's constructor calls it, which pydantic's errors do too.
        plain: hand the text over as it is, whatever the type.
        secret: its value, and what pydantic says of it, must not be shown.
    """

    annotation: Any
    argument: str
    plain: bool = False
    secret: bool = False

    def read(self, raw: bytes) -> object:
        """Return what to give to the model. Raises UnreadableError."""
        kinds = list(arms(self.annotation))
        if bytes in kinds or SecretBytes in kinds:
            return raw
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise UnreadableError("it is not UTF-8 text") from None
        composed = [is_composed(kind) for kind in kinds]
        if self.plain or not any(composed):
            return text
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            if all(composed):
                raise UnreadableError("it is not JSON") from None
            return text


def slots(model: type[BaseModel], path: Path) -> list[Slot]:
    """Return the slots from the model's field to what the path names; none when it is unknown."""
    found: list[Slot] = []
    annotation: Any = model
    for word in path:
        slot = child(annotation, word)
        if slot is None:
            return []
        found.append(slot)
        annotation = slot.annotation
    return found


def child(annotation: Any, word: str) -> Slot | None:
    """Return the slot of this name in a model or a dict; None when it has none."""
    for kind in arms(annotation):
        origin = get_origin(kind) or kind
        if not isinstance(origin, type):
            continue
        if issubclass(origin, BaseModel):
            if word in origin.model_fields:
                return slot_of(origin, word)
            if origin.model_config.get("extra") == "allow":
                return Slot(Any, word, secret=bool(SECRET.search(word)))
        elif issubclass(origin, Mapping):
            value = (get_args(kind) or (Any, Any))[-1]
            return Slot(value, word, secret=bool(SECRET.search(word)))
    return None


def slot_of(model: type[BaseModel], name: str) -> Slot:
    """Return the slot of a model's field."""
    field = model.model_fields[name]
    return Slot(
        annotation=field.annotation,
        argument=argument(model, name, field),
        plain=any(mark is NoDecode or isinstance(mark, JSON) for mark in field.metadata),
        secret=bool(SECRET.search(name)) or any(map(is_secret, arms(field.annotation))),
    )


def argument(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    """Return what the model's constructor calls the field: its alias, if it has one."""
    alias = field.validation_alias
    if alias is None or model.model_config.get("validate_by_alias") is False:
        return name
    for choice in alias.choices if isinstance(alias, AliasChoices) else [alias]:
        if isinstance(choice, str):
            return choice
    raise ConfigError(f"{model.__qualname__}.{name}: an AliasPath is no name that a key could have")


def arms(annotation: Any) -> Iterator[Any]:
    """Yield the alternatives of a type, without what pydantic is told beside it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from arms(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for each in get_args(annotation):
            yield from arms(each)
    elif hasattr(annotation, "__value__"):  # type Limit = int | None
        yield from arms(annotation.__value__)
    elif annotation is not NoneType:
        yield annotation


def is_composed(kind: Any) -> bool:
    """Whether values of this type are written as JSON: models, dataclasses, lists, dicts."""
    origin = get_origin(kind) or kind
    if not isinstance(origin, type):
        return False
    if issubclass(origin, RootModel):
        return any(map(is_composed, arms(origin.model_fields["root"].annotation)))
    if issubclass(origin, str | bytes | bytearray | enum.Enum | Secret | SecretStr | SecretBytes):
        return False
    return issubclass(origin, BaseModel | Collection) or dataclasses.is_dataclass(origin)


def is_secret(kind: Any) -> bool:
    """Whether pydantic hides values of this type."""
    origin = get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, Secret | SecretStr | SecretBytes)


def names(annotation: Any) -> set[str]:
    """Return the fields of a model."""
    kinds = (get_origin(kind) or kind for kind in arms(annotation))
    models = (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return {name for model in models for name in model.model_fields}


def located(model: type[BaseModel], loc: Path) -> tuple[Path, bool]:
    """Return the path of what pydantic blames, as far as it has one, and whether it is secret."""
    path: Path = ()
    annotation: Any = model
    secret = False
    for word in loc:
        candidates = {name: child(annotation, name) for name in (*sorted(names(annotation)), word)}
        found = (
            (name, slot) for name, slot in candidates.items() if slot and slot.argument == word
        )
        name, slot = next(found, ("", None))
        if slot is None:
            break
        path, annotation, secret = (*path, name), slot.annotation, secret or slot.secret
    return path, secret


def did_you_mean(model: type[BaseModel], path: Path) -> str:
    """Suggest the nearest name for the first word of a path that leads nowhere."""
    annotation: Any = model
    for index, word in enumerate(path):
        slot = child(annotation, word)
        if slot is None:
            near = difflib.get_close_matches(word, names(annotation), n=1)
            return f"; did you mean {'/'.join((*path[:index], near[0]))}?" if near else ""
        annotation = slot.annotation
    return ""
