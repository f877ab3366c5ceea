"""Where items are kept."""

from itertools import count, islice

from {{ package }}.models import Item, NewItem


class ItemStore:
    """Keeps items in this process; put a database behind the same methods."""

    def __init__(self) -> None:
        self._ids = count(1)
        self._items: dict[int, Item] = {}  # in the order of their ids

    async def add(self, new: NewItem) -> Item:
        """Keep a new item under the next id."""
        item = Item(id=next(self._ids), **new.model_dump())
        self._items[item.id] = item
        return item

    async def get(self, item_id: int) -> Item | None:
        """Return the item, or None when there is none."""
        return self._items.get(item_id)

    async def page(self, *, after: int, limit: int) -> list[Item]:
        """Return up to `limit` items whose ids are above `after`."""
        return list(islice((item for item in self._items.values() if item.id > after), limit))
