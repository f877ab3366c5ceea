"""Where users are kept: the memory of one instance, gone when it ends."""

from itertools import islice

from users.models import Page, User, UserInput


class UnknownUserError(LookupError):
    """No user has this id."""


class DuplicateEmailError(ValueError):
    """Another user has this email."""


class UserStore:
    """Users by id, each email at most once; put a database behind the same methods.

    No method gives way to another task between a look and a change, so every change is whole.
    """

    def __init__(self) -> None:
        self._users: dict[int, User] = {}  # in the order of the ids, as they only grow
        self._ids: dict[str, int] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._users)

    async def add(self, data: UserInput) -> User:
        """Store a new user. Raises DuplicateEmailError."""
        self._claim(data.email, 0)
        self._last_id += 1
        return self._put(self._last_id, data)

    async def get(self, user_id: int) -> User:
        """Return the user. Raises UnknownUserError."""
        try:
            return self._users[user_id]
        except KeyError:
            raise UnknownUserError(f"no user {user_id}") from None

    async def replace(self, user_id: int, data: UserInput) -> User:
        """Change a user. Raises UnknownUserError or DuplicateEmailError."""
        old = await self.get(user_id)
        self._claim(data.email, user_id)
        del self._ids[old.email]
        return self._put(user_id, data)

    async def remove(self, user_id: int) -> None:
        """Forget the user. Raises UnknownUserError."""
        user = await self.get(user_id)
        del self._users[user_id], self._ids[user.email]

    async def page(self, *, cursor: int, limit: int) -> Page:
        """Return up to ``limit`` users whose ids come after ``cursor``."""
        after = (user for user in self._users.values() if user.id > cursor)
        users = list(islice(after, limit))
        return Page(users=users, next_cursor=users[-1].id if next(after, None) else None)

    async def check(self) -> None:
        """Raise RuntimeError when the two indexes no longer tell of the same users."""
        if len(self._users) != len(self._ids):
            raise RuntimeError(f"{len(self._users)} users have {len(self._ids)} emails")

    async def seed(self, count: int) -> None:
        """Fill an empty store with users 1 to ``count``, the same in every instance."""
        for number in range(1, count + 1):
            await self.add(UserInput(name=f"User {number}", email=f"user{number}@example.com"))

    def _claim(self, email: str, user_id: int) -> None:
        if self._ids.get(email, user_id) != user_id:
            raise DuplicateEmailError(f"{email} belongs to another user")

    def _put(self, user_id: int, data: UserInput) -> User:
        user = User(id=user_id, name=data.name, email=data.email)
        self._users[user_id] = user
        self._ids[user.email] = user_id
        return user
