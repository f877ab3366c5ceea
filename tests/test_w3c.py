"""What strangers send as trace context and baggage is checked, and never raises."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from meshkit import w3c

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"

# Texts near the grammar reach deeper than arbitrary ones.
near = st.text(st.sampled_from(" \t,;=%-@*_/\\\"'\r\n\x00\x7f0fabAZé€"), max_size=300)
hostile = st.one_of(st.text(max_size=300), near)


def test_a_valid_traceparent_stays_as_it_is() -> None:
    assert w3c.parse_traceparent(VALID) == VALID
    assert w3c.parse_traceparent(VALID[:-2] + "ff") == VALID[:-2] + "ff"


@pytest.mark.parametrize(
    "text",
    [
        "",
        VALID.upper(),
        VALID[:-1],
        VALID + "0",
        VALID + "-",
        VALID + "-extra",
        f" {VALID}",
        f"{VALID}\n",
        f"{VALID},{VALID}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00_{TRACE}_{SPAN}_01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        "\uff10" + VALID[1:],  # a digit elsewhere
    ],
)
def test_a_malformed_traceparent_counts_as_absent(text: str) -> None:
    assert w3c.parse_traceparent(text) == ""


@pytest.mark.parametrize("tail", ["", "-", "-what-comes-later"])
def test_a_later_version_is_understood_as_far_as_we_know_it(tail: str) -> None:
    assert w3c.parse_traceparent(f"cc-{TRACE}-{SPAN}-ff{tail}") == f"00-{TRACE}-{SPAN}-03"
    assert w3c.parse_traceparent(f"cc-{TRACE}-{SPAN}-01.{tail}") == ""


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (" a=1 ,\t, b=2,", "a=1,b=2"),
        ("fw529a3039@dt=FfAAAAB,0a@b=x y", "fw529a3039@dt=FfAAAAB,0a@b=x y"),
        ("", ""),
        ("A=1", ""),
        ("a=1,a=2", ""),
        ("a", ""),
        ("a=", ""),
        ("a=1=2", ""),
        ("a=\x00", ""),
        ("a=é", ""),
        ("a=1\r\nx-evil: 1", ""),
        ("@b=1", ""),
        ("a@1=1", ""),
        (f"{'a' * 257}=1", ""),
        (f"a={'1' * 257}", ""),
        (",".join(f"k{n}=1" for n in range(33)), ""),
        ("a=1," * 10_000, ""),
    ],
)
def test_tracestate_is_taken_over_whole_or_not_at_all(text: str, parsed: str) -> None:
    assert w3c.parse_tracestate(text) == parsed


def test_a_tracestate_above_512_characters_loses_long_members_first_and_then_the_last() -> None:
    short = [f"k{n:02}={'x' * 96}" for n in range(6)]
    text = ",".join([f"long={'y' * 200}", *short])
    assert w3c.parse_tracestate(text) == ",".join(short[:5])
    few = ",".join([f"long={'y' * 200}", *short[:2]])
    assert w3c.parse_tracestate(few) == few


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("tenant=acme", {"tenant": "acme"}),
        (" tenant = acme ; ttl=5;x , other=1", {"tenant": "acme"}),
        ("tenant=Am%C3%A9lie%20%2c", {"tenant": "Amélie ,"}),
        ("tenant=%ff%20%zz%", {"tenant": "\ufffd %zz%"}),
        ("tenant=a=b", {"tenant": "a=b"}),
        ("tenant=", {"tenant": ""}),
        ("tenant=1,tenant=2", {"tenant": "2"}),
        ("tenant", {}),
        ("tenant=a b", {}),
        ('tenant="a"', {}),
        ("tenant=é", {}),
        ("tenant=a\r\nx-evil: 1", {}),
        ("ten ant=1,,;,=,tenant=2", {"tenant": "2"}),
        ("tenant=1," * 10_000, {}),
    ],
)
def test_baggage_is_taken_over_member_by_member(text: str, parsed: dict[str, str]) -> None:
    assert w3c.parse_baggage(text, ("tenant",)) == parsed


def test_baggage_travels_only_when_it_was_chosen() -> None:
    text = "tenant=acme,user=1"
    assert w3c.parse_baggage(text, ()) == {}
    assert w3c.parse_baggage(text, ("user", "nobody")) == {"user": "1"}
    assert w3c.parse_baggage(text, ("*",)) == {"tenant": "acme", "user": "1"}


def test_baggage_above_the_limits_is_not_sent() -> None:
    many = {f"k{n}": "1" for n in range(65)}
    assert w3c.format_baggage(many).count(",") == 63
    assert not w3c.fits(many)
    large = {"a": "x" * 4000, "b": "é" * 1000, "c": "x"}
    assert w3c.format_baggage(large) == f"a={'x' * 4000}"
    exact = {"a": "x" * 8190}
    assert w3c.fits(exact)
    assert len(w3c.format_baggage(exact)) == 8192
    assert not w3c.fits({"a": "x" * 8191})


@given(hostile)
@example(VALID)
@example(f"cc-{TRACE}-{SPAN}-ff-")
def test_whatever_is_passed_on_as_traceparent_is_one(text: str) -> None:
    parsed = w3c.parse_traceparent(text)
    assert parsed == "" or len(parsed) == 55
    assert w3c.parse_traceparent(parsed) == parsed


@given(st.one_of(hostile, st.lists(st.sampled_from(["a=1", "b@c=2", "d=x y"])).map(",".join)))
def test_whatever_is_passed_on_as_tracestate_is_one(text: str) -> None:
    parsed = w3c.parse_tracestate(text)
    assert len(parsed) <= 512
    assert parsed.isascii()
    assert parsed == "" or parsed.isprintable()
    assert w3c.parse_tracestate(parsed) == parsed


@given(hostile)
def test_whatever_is_passed_on_as_baggage_is_that(text: str) -> None:
    found = w3c.parse_baggage(text, ("*",))
    sent = w3c.format_baggage(found)
    assert sent.isascii()
    assert not set(sent) & set(' "\\;\r\n\x00\x7f')
    assert w3c.parse_baggage(sent, ("*",)) == dict(list(found.items())[:64])


@given(st.dictionaries(st.from_regex(w3c.TOKEN, fullmatch=True), st.text(max_size=40), max_size=64))
def test_baggage_arrives_as_it_was_given(members: dict[str, str]) -> None:
    arrived = w3c.parse_baggage(w3c.format_baggage(members), ("*",))
    assert arrived == dict(list(members.items())[: len(arrived)])
    assert len(arrived) == len(members) or not w3c.fits(members)
