"""Semantic versions in order, and ranges as pip has them."""

import itertools

import pytest
from hypothesis import given, strategies as st

from meshkit import ConfigError
from meshkit.discovery.routing.versions import parse_range, parse_version

# https://semver.org/#spec-item-11, and around it
ORDER = [
    "0.9",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.2",
    "1.10.0",
    "2.0.0rc1",
    "2.0.0rc10",
    "v2",
    "2.0.0.1",
]

numbers = st.lists(st.integers(0, 30), min_size=1, max_size=4)


def inside(version: str, text: str) -> bool:
    parsed = parse_version(version)
    return parsed is not None and all(test(parsed) for test in parse_range(text))


def test_the_order_is_that_of_the_specification() -> None:
    for lower, higher in itertools.pairwise(ORDER):
        low, high = parse_version(lower), parse_version(higher)
        assert low is not None
        assert high is not None
        assert low < high, (lower, higher)


@pytest.mark.parametrize(("one", "other"), [("1", "1.0.0"), ("v1.2", "1.2.0"), ("1+a", "1+b.c")])
def test_different_forms_of_one_version(one: str, other: str) -> None:
    assert parse_version(one) == parse_version(other)


@pytest.mark.parametrize("text", ["", "main", "1.", "1..2", "1.0-", "1.x", "-1", "१.0", "1" * 200])
def test_what_is_no_version_is_in_no_range(text: str) -> None:
    assert parse_version(text) is None
    assert not inside(text, ">=0")


@pytest.mark.parametrize(
    ("text", "within", "without"),
    [
        (">=2,<3", ["2", "2.9.9", "2.1.0-rc.1"], ["1.9", "3", "3.0.0-rc.1", "2.0.0-rc.1"]),
        ("~=2.1", ["2.1", "2.9"], ["2.0.9", "3.0", "3.0.0-rc.1"]),
        ("~=2.1.3", ["2.1.3", "2.1.30"], ["2.1.2", "2.2"]),
        ("~=2.0", ["2.0.0", "2.5"], ["1.9", "3"]),
        ("==2.1", ["2.1.0", "v2.1+build.7"], ["2.1.1", "2.1.0-rc.1"]),
        ("2.1", ["2.1.0"], ["2.1.1"]),
        ("!=2.1, >2", ["2.0.1", "2.2"], ["2.1.0", "2"]),
        ("<=2", ["2.0", "1"], ["2.0.1"]),
        ("<3.0.0-rc.2", ["3.0.0-rc.1", "2"], ["3.0.0-rc.2", "3"]),
    ],
)
def test_ranges(text: str, within: list[str], without: list[str]) -> None:
    assert [each for each in within if not inside(each, text)] == []
    assert [each for each in without if inside(each, text)] == []


@pytest.mark.parametrize("text", ["2.x", ">=", "=>2", ">=2,", ",", "^2", "== 2.*", ">=2 <3"])
def test_a_bad_range_is_one_line_that_names_the_clause(text: str) -> None:
    with pytest.raises(ConfigError, match=r"version range .* for example: '>=2,<3'") as caught:
        parse_range(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_compatible_range_needs_two_numbers() -> None:
    with pytest.raises(ConfigError, match=r"~= needs two numbers or more, as in ~=2\.0"):
        parse_range("~=2")


@given(numbers, numbers)
def test_numbers_compare_as_numbers(one: list[int], other: list[int]) -> None:
    size = max(len(one), len(other))
    padded = [each + [0] * (size - len(each)) for each in (one, other)]
    texts = [".".join(map(str, each)) for each in (one, other)]
    assert inside(texts[0], f"<{texts[1]}") == (padded[0] < padded[1])
    assert inside(texts[0], f"=={texts[1]}") == (padded[0] == padded[1])
    assert inside(texts[0], f">{texts[1]}") == (padded[0] > padded[1])
