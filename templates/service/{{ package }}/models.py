"""What callers send and receive."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class NewItem(BaseModel):
    """An item as its creator describes it."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    quantity: Annotated[int, Field(ge=1, le=10_000)] = 1


class Item(NewItem):
    """An item that is kept."""

    id: Annotated[int, Field(ge=1)]
