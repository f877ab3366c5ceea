"""What goes over HTTP."""

import enum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Sku = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]+(-[A-Z0-9]+)*$", max_length=32)]
Cents = Annotated[int, Field(ge=1, le=100_000_000)]


class Line(BaseModel):
    """One article of an order; the price is that of a single piece."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sku: Sku
    quantity: int = Field(ge=1, le=1000)
    price_cents: Cents


class OrderInput(BaseModel):
    """What a client orders."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user_id: int = Field(ge=1)
    lines: tuple[Line, ...] = Field(min_length=1, max_length=50)


class Order(OrderInput):
    """An order as it is stored."""

    id: int
    total_cents: int


class User(BaseModel):
    """What the users service tells of a user."""

    id: int
    name: str
    email: str


class OrderView(Order):
    """An order as it is answered.

    Attributes:
        user: who ordered; null when the user has been removed since.
    """

    user: User | None


class Via(enum.StrEnum):
    """The transport over which the users service is asked."""

    HTTP = "http"
    GRPC = "grpc"


class Quote(BaseModel):
    """A price for one user, and how it came about.

    Attributes:
        total_cents: the amount less the user's discount.
        via: the transport that was used.
        users_instance: the instance of the users service that answered.
    """

    user_id: int
    user_name: str
    total_cents: int
    via: Via
    users_instance: str


class Calls(BaseModel):
    """Calls to the users service over one transport since this process started.

    Attributes:
        calls: made in all.
        failed: of these, those that nobody answered.
        retried: attempts on another instance after one that failed.
    """

    calls: int
    failed: int
    retried: int


class Stats(BaseModel):
    """How the calls of this instance to the users service went."""

    http: Calls
    grpc: Calls
