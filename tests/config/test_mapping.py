"""Every value can be written as text, and whatever is found becomes a model."""

from __future__ import annotations

import datetime as dt
import json
from typing import Annotated, Any

from hypothesis import given, settings, strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from meshkit.config.fields import Path, slots
from meshkit.config.layers import settle
from tests.config.values import Color, Everything, Point, Retry

COMPOSED = {"names", "tags", "pair", "rates", "retry", "others", "point", "either"}
WORDS = st.from_regex(r"[A-Za-z0-9._-]{1,8}", fullmatch=True)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
RETRIES = st.builds(Retry, times=st.integers(), pauses=st.lists(FLOATS, max_size=3).map(tuple))


@st.composite
def everything(draw: st.DrawFn) -> Everything:
    fields: dict[str, st.SearchStrategy[Any]] = {
        "count": st.integers(-(10**18), 10**18),
        "share": FLOATS,
        "on": st.booleans(),
        "title": st.text(),
        "raw": st.binary(),
        "maybe": st.integers(-1000, 1000),
        "color": st.sampled_from(Color),
        "mode": st.sampled_from(["fast", "safe"]),
        "day": st.dates(),
        "pause": st.timedeltas(dt.timedelta(0), dt.timedelta(days=1000)),
        "price": st.decimals(-(10**9), 10**9, places=2),
        "ident": st.uuids(),
        "secret": st.text().map(SecretStr),
        "names": st.lists(st.text(), max_size=4),
        "tags": st.sets(st.text(), max_size=4),
        "pair": st.tuples(st.integers(), st.text()),
        "rates": st.dictionaries(WORDS, FLOATS, max_size=4),
        "retry": RETRIES,
        "others": st.lists(RETRIES, max_size=3),
        "point": st.builds(Point, st.integers(), st.integers()),
        "either": st.integers() | st.lists(st.integers(), max_size=3),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(fields))))
    return Everything(**{name: draw(fields[name]) for name in sorted(chosen)})


def texts_of(model: Everything, *, nested: bool) -> dict[Path, bytes]:
    """Write the fields that were set as a person would write them."""
    texts: dict[Path, bytes] = {}
    for name in model.model_fields_set:
        value = getattr(model, name)
        if isinstance(value, bytes):
            texts[name,] = value
        elif isinstance(value, SecretStr):
            texts[name,] = value.get_secret_value().encode()
        elif nested and name == "retry":
            texts[name, "times"] = str(value.times).encode()
            texts[name, "pauses"] = json.dumps(value.pauses).encode()
        elif nested and name == "rates":
            texts |= {(name, key): repr(rate).encode() for key, rate in value.items()}
        elif name in COMPOSED:
            texts[name,] = json.dumps(model.model_dump(mode="json", include={name})[name]).encode()
        else:
            texts[name,] = str(model.model_dump(mode="json", include={name})[name]).encode()
    return texts


@settings(max_examples=200, deadline=None)
@given(model=everything(), nested=st.booleans())
def test_every_value_can_be_written_as_text_and_read_again(
    model: Everything, *, nested: bool
) -> None:
    settled = settle(Everything, texts_of(model, nested=nested), {})
    assert settled.refused == ()
    assert settled.model == model


@settings(max_examples=200, deadline=None)
@given(
    values=st.dictionaries(
        st.lists(st.sampled_from([*Everything.model_fields, "times", "x"]), min_size=1, max_size=3)
        .map(tuple)
        .filter(lambda path: bool(slots(Everything, path))),
        st.binary(max_size=20) | st.sampled_from([b"1", b"{}", b"[]", b"null", b'{"times": "x"}']),
        max_size=6,
    ),
    good=everything(),
)
def test_whatever_is_found_a_model_comes_out_and_nothing_else_is_lost(
    values: dict[Path, bytes], good: Everything
) -> None:
    before = settle(Everything, texts_of(good, nested=False), {})
    settled = settle(Everything, values, before.used)
    # What is used makes the same model, and each value is the one found or the one before.
    assert settle(Everything, settled.used, {}).model == settled.model
    for path in values.keys() | settled.used:
        assert settled.used.get(path) in (values.get(path), before.used.get(path))
    if not settled.refused:
        assert dict(settled.used) == values


class Budget(BaseModel):
    """Nothing is negative, and all of it is at most a hundred."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[int, Field(ge=0)]] = {}

    @model_validator(mode="after")
    def together(self) -> Budget:
        if sum(self.__pydantic_extra__.values()) > 100:
            raise ValueError("too much")
        return self


AMOUNTS = st.dictionaries(WORDS, st.integers(-5, 120), max_size=12)


@settings(max_examples=200, deadline=None)
@given(amounts=AMOUNTS, before=AMOUNTS)
def test_whatever_is_held_up_by_others_is_named(
    amounts: dict[str, int], before: dict[str, int]
) -> None:
    def written(values: dict[str, int]) -> dict[Path, bytes]:
        return {(name,): str(value).encode() for name, value in values.items()}

    found = written(amounts)
    good = settle(Budget, written(before), {}).used
    settled = settle(Budget, found, good)
    held_up = {path for path in found.keys() | good if settled.used.get(path) != found.get(path)}
    refused = {problem.path for problem in settled.refused}
    assert held_up <= refused
    assert all(settled.used.get(path) == good.get(path) for path in refused)
    assert sum(map(int, settled.used.values())) <= 100
