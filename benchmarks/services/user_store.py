"""What the measured services have in common: models and a store. Only the frame around differs."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field


class UserInput(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=100)]
    email: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
    tags: list[str] = []


class User(UserInput):
    id: int


class Page(BaseModel):
    users: list[User]
    total: int


class UserStore:
    def __init__(self) -> None:
        self._users: dict[int, User] = {}
        for number in range(1, 51):
            self.add(UserInput(name=f"User {number}", email=f"user{number}@example.org"))

    def add(self, data: UserInput) -> User:
        user = User(id=len(self._users) + 1, **data.model_dump())
        self._users[user.id] = user
        return user

    def get(self, user_id: int) -> User | None:
        return self._users.get(user_id)

    def page(self, limit: int) -> Page:
        users = list(self._users.values())
        return Page(users=users[:limit], total=len(users))
