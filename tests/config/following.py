"""What the tests of a configuration that follows the registry share."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest
from pydantic import BaseModel, Field, SecretStr

from meshkit import LiveConfig
from tests.support.waiting import aeventually


class Retry(BaseModel, frozen=True):
    times: int = 3
    pause: float = 0.1


class Limits(BaseModel, frozen=True):
    max_items: int = Field(10, ge=1)
    title: str = "shop"
    token: SecretStr = SecretStr("")
    retry: Retry = Retry()


class Said:
    """The lines that the configuration has logged so far."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "meshkit.config")
        self._caplog = caplog

    @property
    def lines(self) -> list[str]:
        records = self._caplog.records
        return [each.getMessage() for each in records if each.name == "meshkit.config"]


async def until(config: LiveConfig[Limits], **values: object) -> None:
    async def holds() -> bool:
        return all(getattr(config.value, name) == value for name, value in values.items())

    await aeventually(holds)


async def settle_down() -> None:
    """Time in which what must not happen would."""
    await asyncio.sleep(0.3)


class Away:
    """Makes the registry fail for as long as it is entered: its folder looks tampered with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o777)
        os.utime(self._folder)  # or nothing has happened there, and nobody looks

    def __exit__(self, *_: object) -> None:
        self._folder.chmod(0o700)
