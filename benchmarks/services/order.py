"""What both sides of chain answer."""

from __future__ import annotations

from pydantic import BaseModel


class Order(BaseModel):
    id: int
    ordered_by: str
