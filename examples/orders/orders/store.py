"""Where orders are kept: the memory of one instance, gone when it ends."""

from orders.models import Order, OrderInput


class UnknownOrderError(LookupError):
    """No order has this id."""


class OrderStore:
    """Orders by id; put a database behind the same methods."""

    def __init__(self) -> None:
        self._orders: dict[int, Order] = {}

    async def add(self, data: OrderInput) -> Order:
        """Store a new order and reckon its total."""
        order = Order(
            id=len(self._orders) + 1,
            user_id=data.user_id,
            lines=data.lines,
            total_cents=sum(line.quantity * line.price_cents for line in data.lines),
        )
        self._orders[order.id] = order
        return order

    async def get(self, order_id: int) -> Order:
        """Return the order. Raises UnknownOrderError."""
        try:
            return self._orders[order_id]
        except KeyError:
            raise UnknownOrderError(f"no order {order_id}") from None
