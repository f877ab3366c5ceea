"""Models for the tests of configuration, and short ways to ask what becomes of them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing import Any, Literal

from pydantic import (
    BaseModel,
    SecretStr,
)

from meshkit.config.fields import Path
from meshkit.config.layers import settle


def at(**texts: str | bytes) -> dict[Path, bytes]:
    """Values at paths: ``retry__times="3"`` is retry/times."""
    return {
        tuple(name.split("__")): text.encode() if isinstance(text, str) else text
        for name, text in texts.items()
    }


def made(model: type[BaseModel], **texts: str | bytes) -> dict[str, Any]:
    settled = settle(model, at(**texts), {})
    assert settled.refused == ()
    return settled.model.model_dump()


def refused(model: type[BaseModel], **texts: str | bytes) -> dict[str, str]:
    found = settle(model, at(**texts), {}).refused
    return {"/".join(problem.path): problem.reason for problem in found}


class Color(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Retry(BaseModel):
    times: int = 3
    pauses: tuple[float, ...] = (0.1, 0.2)


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Everything(BaseModel):
    count: int = 0
    share: float = 0.0
    on: bool = False
    title: str = ""
    raw: bytes = b""
    maybe: int | None = None
    color: Color = Color.RED
    mode: Literal["fast", "safe"] = "safe"
    day: dt.date = dt.date(2000, 1, 1)
    pause: dt.timedelta = dt.timedelta(0)
    price: decimal.Decimal = decimal.Decimal(0)
    ident: uuid.UUID = uuid.UUID(int=0)
    secret: SecretStr = SecretStr("")
    names: list[str] = []
    tags: set[str] = set()
    pair: tuple[int, str] = (0, "")
    rates: dict[str, float] = {}
    retry: Retry = Retry()
    others: list[Retry] = []
    point: Point = dataclasses.field(default_factory=lambda: Point(0))
    either: int | list[int] = 0
