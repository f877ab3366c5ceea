"""The headers of W3C Trace Context and Baggage: what comes from outside is checked here.

https://www.w3.org/TR/trace-context/ and https://www.w3.org/TR/baggage/. Nothing here raises for
what a stranger sent: what is malformed counts as absent.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import quote, unquote

EVERY = "*"  # as a chosen key: all of them

TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
LENGTH = 55
KNOWN_FLAGS = 0x03  # sampled, and random-trace-id of level 2

KEY = r"(?:[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
STATE = re.compile(rf"({KEY})={VALUE}")
STATE_MEMBERS = 32
STATE_LENGTH = 512
LONG_STATE = 128  # members that are dropped first

TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
OCTETS = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
UNQUOTED = "!#$&'()*+-./:<=>?@[]^_`{|}~"  # of them, what quote() would encode; "%" it has to
BAGGAGE_MEMBERS = 64
BAGGAGE_LENGTH = 8192

LONGEST = 16_384  # of any header; a longer one is not looked at


def parse_traceparent(text: str) -> str:
    """Return a valid traceparent of version 00, or ``""``."""
    if not (match := TRACEPARENT.match(text)):
        return ""
    if text.startswith("00-"):
        return text if len(text) == LENGTH else ""
    # Of a version to come we understand what version 00 has, and send on just that.
    if len(text) > LENGTH and text[LENGTH] != "-":
        return ""
    known = match.group()
    return f"00{known[2:-2]}{int(known[-2:], 16) & KNOWN_FLAGS:02x}"


def parse_tracestate(text: str) -> str:
    """Return the list in its shortest form, or ``""`` when it breaks the grammar.

    More than 512 characters need not be sent on: long members go first, then those at the end.
    """
    if len(text) > LONGEST:
        return ""
    members = [part for each in text.split(",") if (part := each.strip(" \t"))]
    if len(members) > STATE_MEMBERS:
        return ""
    matches = [STATE.fullmatch(member) for member in members]
    keys = {match[1] for match in matches if match}
    if len(keys) < len(members):  # one is malformed, or there twice
        return ""
    if len(",".join(members)) > STATE_LENGTH:
        members = [member for member in members if len(member) <= LONG_STATE]
    while len(whole := ",".join(members)) > STATE_LENGTH:
        members.pop()
    return whole


def parse_baggage(text: str, chosen: Collection[str]) -> dict[str, str]:
    """Return the chosen members with their values decoded; those that are malformed are left out.

    Properties, which say something about a member (``key=value;property``), are dropped.
    """
    if len(text) > LONGEST or not chosen:
        return {}
    every = EVERY in chosen
    found: dict[str, str] = {}
    for member in text.split(","):
        name, equals, rest = member.partition("=")
        key, value = name.strip(" \t"), rest.partition(";")[0].strip(" \t")
        if not equals or not (every or key in chosen) or not TOKEN.fullmatch(key):
            continue
        if OCTETS.fullmatch(value):
            found[key] = unquote(value, errors="replace") if "%" in value else value
    return found


def format_baggage(members: Mapping[str, str]) -> str:
    """Return the header's text, percent-encoded; what is above the limits is left out."""
    return ",".join(_within_limits(members))


def is_key(text: str) -> bool:
    """Whether a member of baggage may have this key."""
    return TOKEN.fullmatch(text) is not None


def fits(members: Mapping[str, str]) -> bool:
    """Whether all of them can be sent."""
    return len(list(_within_limits(members))) == len(members)


def _within_limits(members: Mapping[str, str]) -> Iterator[str]:
    """Yield at most 64 members, and at most 8,192 bytes with the commas between them."""
    left = BAGGAGE_LENGTH + 1  # the first has no comma before it
    for key, value in list(members.items())[:BAGGAGE_MEMBERS]:
        member = f"{key}={_encoded(value)}"
        left -= len(member) + 1
        if left < 0:
            return
        yield member


def _encoded(value: str) -> str:
    if "%" not in value and OCTETS.fullmatch(value):
        return value  # as nearly all are
    return quote(value, safe=UNQUOTED, errors="replace")
