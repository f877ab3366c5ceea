"""What goes over HTTP, and the rules that hold for a user whichever way it comes in."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
# What mail servers accept in practice (RFC 5321 lengths); only a sent mail proves an address.
EMAIL = re.compile(rf"(?=.{{3,254}}$)[a-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{LABEL}(\.{LABEL})+")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not contain control characters")
    return text


def _email(text: str) -> str:
    local = text.partition("@")[0]
    if not EMAIL.fullmatch(text) or local[:1] == "." or local[-1:] == "." or ".." in local:
        raise ValueError("is not an email address")
    return text


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100),
    AfterValidator(_printable),
]
# Addresses are compared without case, as every large provider does.
Email = Annotated[
    str, StringConstraints(strip_whitespace=True, to_lower=True), AfterValidator(_email)
]


class UserInput(BaseModel):
    """What a client says about a user."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    email: Email


class User(UserInput):
    """A user as it is stored and answered."""

    id: int


class Page(BaseModel):
    """Some users in the order of their ids, and where the next page starts.

    Attributes:
        users: at most as many as were asked for.
        next_cursor: pass it as ``cursor`` to read on; null on the last page.
    """

    users: list[User]
    next_cursor: int | None
