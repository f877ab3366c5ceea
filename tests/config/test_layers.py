"""What the registry holds becomes a model: how texts are read, and which layer wins."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    Field,
    Json,
    RootModel,
    SecretBytes,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from typing_extensions import TypeAliasType

from meshkit import ConfigError
from meshkit.config.fields import did_you_mean, slots
from meshkit.config.layers import Problem, UnbuildableError, settle
from tests.config.values import Everything, Retry, at, made, refused


def test_texts_are_read_as_environment_variables_are() -> None:
    assert made(Everything, on="yes")["on"] is True
    assert made(Everything, pause="PT1M")["pause"] == dt.timedelta(minutes=1)
    assert made(Everything, either="[1, 2]")["either"] == [1, 2]
    assert made(Everything, either="7")["either"] == 7
    assert made(Everything, title='"quoted"')["title"] == '"quoted"'
    assert made(Everything, raw=b"\xff\n")["raw"] == b"\xff\n"

    class Marked(BaseModel):
        items: Json[list[int]] = []
        words: Annotated[list[str], NoDecode] = []
        key: SecretBytes = SecretBytes(b"")
        root: RootModel[int] = RootModel(0)
        rows: RootModel[list[int]] = RootModel([])

        @field_validator("words", mode="before")
        @classmethod
        def split(cls, value: object) -> object:
            return value.split() if isinstance(value, str) else value

    made_of = settle(
        Marked, at(items="[1]", words="a b", key=b"\xff", root="7", rows="[7]"), {}
    ).model
    assert (made_of.items, made_of.words, made_of.key.get_secret_value()) == (
        [1],
        ["a", "b"],
        b"\xff",
    )
    assert (made_of.root.root, made_of.rows.root) == (7, [7])


def test_a_named_type_is_what_it_stands_for() -> None:
    names = TypeAliasType("names", list[str])

    class Named(BaseModel):
        words: names = []
        either: names | None = None

    assert made(Named, words='["a"]', either='["b"]') == {"words": ["a"], "either": ["b"]}


def test_parts_complete_each_other_and_the_more_specific_wins() -> None:
    assert made(Everything, retry='{"times": 5}', retry__times="7")["retry"]["times"] == 7
    assert made(Everything, retry='{"times": 5}', retry__pauses="[1]")["retry"] == {
        "times": 5,
        "pauses": (1.0,),
    }
    assert made(Everything, rates='{"a": 1}', rates__b="2")["rates"] == {"a": 1.0, "b": 2.0}

    class Defaults(BaseModel):
        retry: Retry = Retry(times=9)
        made: Retry = Field(default_factory=lambda: Retry(times=8, pauses=()))
        none: Retry | None = None

    assert made(Defaults, retry__pauses="[]", made__times="1", none__times="2") == {
        "retry": {"times": 9, "pauses": ()},
        "made": {"times": 1, "pauses": ()},
        "none": {"times": 2, "pauses": (0.1, 0.2)},
    }


class FromEnvironment(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SHOP_", env_nested_delimiter="__")

    limit: int = 1
    title: str = "default"
    retry: Retry = Retry()


def test_the_registry_is_over_the_environment_is_over_the_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHOP_LIMIT", "2")
    monkeypatch.setenv("SHOP_RETRY__TIMES", "20")
    assert made(FromEnvironment)["limit"] == 2
    found = made(FromEnvironment, limit="3", retry__pauses="[3]")
    assert found == {"limit": 3, "title": "default", "retry": {"times": 20, "pauses": (3.0,)}}
    monkeypatch.setenv("SHOP_LIMIT", "many")
    assert made(FromEnvironment, limit="3")["limit"] == 3
    with pytest.raises(UnbuildableError, match="should be a valid integer"):
        settle(FromEnvironment, {}, {})
    monkeypatch.setenv("SHOP_RETRY", "{")
    with pytest.raises(UnbuildableError, match='error parsing value for field "retry"'):
        settle(FromEnvironment, at(limit="3"), {})


def test_aliases_are_for_the_constructor_keys_have_the_fields_names() -> None:
    class Aliased(BaseModel):
        one: int = Field(1, alias="ONE")
        two: int = Field(2, validation_alias=AliasChoices(AliasPath("x", 0), "second"))

    assert made(Aliased, one="10", two="20") == {"one": 10, "two": 20}
    assert refused(Aliased, one="x", two="y").keys() == {"one", "two"}

    class Odd(BaseModel):
        two: int = Field(2, validation_alias=AliasPath("x", 0))

    with pytest.raises(ConfigError, match=r"Odd.two: an AliasPath is no name"):
        made(Odd, two="1")


def test_each_bad_value_is_refused_alone() -> None:
    found = at(count="x", share="0.5", retry__times="y", retry__pauses="[1]", raw="ok", names="a,b")
    settled = settle(Everything, found, at(count="5", retry__times="6"))
    assert (settled.model.count, settled.model.share, settled.model.raw) == (5, 0.5, b"ok")
    assert settled.model.retry == Retry(times=6, pauses=(1.0,))
    assert {problem.path for problem in settled.refused} == {
        ("count",),
        ("retry", "times"),
        ("names",),
    }
    assert dict(settled.used) == at(
        count="5", share="0.5", retry__times="6", retry__pauses="[1]", raw="ok"
    )


@pytest.mark.parametrize(
    ("texts", "reasons"),
    [
        ({"count": "x"}, {"count": "Input should be a valid integer, unable to parse"}),
        ({"count": ""}, {"count": "Input should be a valid integer"}),
        ({"count": b"\xff"}, {"count": "it is not UTF-8 text"}),
        ({"names": "a"}, {"names": "it is not JSON"}),
        ({"names": "[" * 100_000}, {"names": "it is not JSON"}),
        ({"names": '["a", 1]'}, {"names": "Input should be a valid string"}),
        ({"retry": '{"times": "x"}'}, {"retry": "Input should be a valid integer"}),
        (
            {"retry": '{"times": 5}', "retry__times": "x"},
            {"retry/times": "Input should be a valid integer"},
        ),
        ({"rates__a": "x"}, {"rates/a": "Input should be a valid number"}),
        ({"either": "x"}, {"either": "Input should be a valid"}),
        ({"mode": "quick"}, {"mode": "Input should be 'fast' or 'safe'"}),
    ],
)
def test_a_refusal_says_what_is_wrong(
    texts: Mapping[str, str | bytes], reasons: Mapping[str, str]
) -> None:
    found = refused(Everything, **texts)
    assert found.keys() == reasons.keys()
    for path, reason in reasons.items():
        assert found[path].startswith(reason), found


class Range(BaseModel):
    least: int = 0
    most: int = 10
    title: str = ""

    @model_validator(mode="after")
    def in_order(self) -> Range:
        if self.least > self.most:
            raise ValueError(f"least {self.least}\nis more than most {self.most}")
        return self

    @field_validator("title")
    @classmethod
    def check(cls, value: str, info: ValidationInfo) -> str:
        if value == "bug":
            raise KeyError("oops")
        return value


def test_what_does_not_go_together_is_refused_together() -> None:
    good = at(least="3", most="5")
    settled = settle(Range, at(least="8", most="5", title="new"), good)
    assert settled.model == Range(least=3, most=5, title="new")  # no part of the clash
    assert dict(settled.used) == good | at(title="new")
    assert settled.refused == (Problem(("least",), "least 8 is more than most 5"),)
    assert settle(Range, at(least="8", most="9"), good).model == Range(least=8, most=9)
    assert settle(Range, at(least="11"), {}).model == Range()
    settled = settle(Range, at(least="9", most="7", title="new"), {})
    assert settled.model == Range(title="new")
    assert settled.refused == tuple(
        Problem((name,), "least 9 is more than most 7") for name in ("most", "least")
    )


def test_what_is_removed_may_not_go_with_the_rest() -> None:
    good = at(least="20", most="30", title="old")
    settled = settle(Range, at(least="20", title="new"), good)
    assert settled.model == Range(least=20, most=30, title="new")
    assert settled.refused == (Problem(("most",), "least 20 is more than most 10"),)


class Many(BaseModel):
    sizes: dict[str, int] = {}
    most: int = 50
    tried: ClassVar[int] = 0

    @model_validator(mode="after")
    def together(self) -> Many:
        type(self).tried += 1
        if sum(size for name, size in self.sizes.items() if name.startswith("big")) > 100:
            raise ValueError("too much")
        return self

    @field_validator("most")
    @classmethod
    def enough(cls, value: int, info: ValidationInfo) -> int:
        if value < len([size for size in info.data["sizes"].values() if size == 7]):
            raise ValueError("fewer than sevens")
        return value


def test_of_many_values_few_are_held_up_and_few_attempts_are_made() -> None:
    sizes = {f"sizes__{n:03}": "1" for n in range(500)}
    big = {"sizes__big1": "60", "sizes__big2": "60", "sizes__big3": "30"}
    Many.tried = 0
    settled = settle(Many, at(**sizes, **big), {})
    assert Many.tried < 50
    assert {problem.path for problem in settled.refused} == {("sizes", "big1"), ("sizes", "big2")}
    assert settled.used.keys() == at(**sizes, sizes__big3="").keys()


def test_when_too_many_do_not_go_together_all_are_held_up() -> None:
    sizes = {f"sizes__big{n:03}": "1" for n in range(300)}
    Many.tried = 0
    settled = settle(Many, at(**sizes, most="60"), {})
    assert Many.tried < 200
    assert (settled.model, dict(settled.used)) == (Many(), {})
    assert len(settled.refused) == 301
    assert {problem.reason for problem in settled.refused} == {"too much"}


def test_another_field_that_complains_is_named() -> None:
    settled = settle(Many, at(most="1", sizes__a="7", sizes__b="7"), at(most="1"))
    assert set(settled.refused) == {
        Problem(("sizes", name), "most: fewer than sevens") for name in "ab"
    }
    assert settled.model == Many(most=1)


def test_a_validator_that_changes_its_mind_loses_nothing_unsaid() -> None:
    class Fickle(BaseModel):
        one: int = 1
        two: int = 2
        moods: ClassVar[list[bool]] = [False]

        @model_validator(mode="after")
        def check(self) -> Fickle:
            if self.moods and not self.moods.pop():
                raise ValueError("not now")
            return self

    settled = settle(Fickle, at(one="10", two="20"), {})
    assert settled.model == Fickle()
    assert {problem.path for problem in settled.refused} == {("one",), ("two",)}


def test_required_values_that_are_refused_are_why_a_model_can_not_be_made() -> None:
    class Strict(BaseModel):
        count: int

    with pytest.raises(UnbuildableError, match="should be a valid integer"):
        settle(Strict, at(count="many"), {})


def test_a_validator_with_a_bug_is_a_refusal() -> None:
    (problem,) = settle(Range, at(title="bug"), {}).refused
    assert problem.reason.startswith("KeyError: 'oops' (")
    assert "test_layers.py" in problem.reason


class Needy(BaseModel):
    url: str
    limit: int = 1


def test_what_is_required_must_be_there_once() -> None:
    with pytest.raises(UnbuildableError, match="Field required") as caught:
        settle(Needy, at(limit="2"), {})
    assert caught.value.problem.path == ("url",)
    before = settle(Needy, at(url="a"), {})
    after = settle(Needy, at(limit="2"), before.used)  # it was removed
    assert (after.model.url, after.model.limit) == ("a", 2)
    assert after.refused == (Problem(("url",), "Field required"),)


class Login(BaseModel):
    api_token: str = ""
    pin: SecretStr = SecretStr("")
    credentials: dict[str, str] = {}
    user: str = ""

    @field_validator("api_token", "pin")
    @classmethod
    def check(cls, value: Any) -> Any:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if "bad" in text:
            raise ValueError(f"{text} is bad")
        return value

    @model_validator(mode="after")
    def together(self) -> Login:
        if self.user == "nobody":
            raise ValueError(f"nobody has {self.api_token} and {self.credentials}")
        return self


def test_secrets_are_never_in_what_is_said() -> None:
    assert refused(Login, api_token="bad123", pin="bad456") == {
        "api_token": "value_error",
        "pin": "value_error",
    }
    known = at(api_token="s3cret", credentials__me="hush")
    problems = settle(Login, known | at(user="nobody"), known).refused
    assert problems == (Problem(("user",), "nobody has *** and {'me': '***'}"),)


def test_unknown_paths_are_known_as_such() -> None:
    for known in ("count", "retry/times", "rates/anything", "names"):
        assert slots(Everything, tuple(known.split("/"))), known
    for unknown in ("coumt", "retry/tims", "retry/times/more", "names/0", "rates/a/b", "count/a"):
        assert not slots(Everything, tuple(unknown.split("/"))), unknown
    assert did_you_mean(Everything, ("coumt",)) == "; did you mean count?"
    assert did_you_mean(Everything, ("retry", "tims")) == "; did you mean retry/times?"
    assert did_you_mean(Everything, ("xyz",)) == ""

    class Open(BaseModel, extra="allow"):
        known: int = 1

    assert made(Open, known="2", other="3") == {"known": 2, "other": "3"}
