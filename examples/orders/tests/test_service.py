import pytest
from meshkit import HttpClient

from tests.conftest import StandIn

LINE = {"sku": "TEA-1", "quantity": 3, "price_cents": 250}
ORDER = {"user_id": 1, "lines": [LINE, {**LINE, "sku": "CUP", "quantity": 1}]}
ANN = {"id": 1, "name": "Ann", "email": "someone@example.com"}


async def test_an_order_is_taken_and_shown_with_who_ordered(
    users: StandIn, orders: HttpClient
) -> None:
    created = await orders.post("/orders", json=ORDER)
    assert created.status_code == 201
    assert created.json() == {**ORDER, "id": 1, "total_cents": 1000}
    shown = await orders.get(created.headers["location"])
    assert shown.json() == {**created.json(), "user": ANN}


async def test_an_order_outlives_its_user(users: StandIn, orders: HttpClient) -> None:
    await orders.post("/orders", json=ORDER)
    del users.users[1]
    assert (await orders.get("/orders/1")).json()["user"] is None


async def test_who_is_unknown_can_not_order(users: StandIn, orders: HttpClient) -> None:
    answer = await orders.post("/orders", json={**ORDER, "user_id": 9})
    assert (answer.status_code, answer.json()) == (422, {"detail": "no user 9"})


async def test_an_unknown_order_is_not_found(orders: HttpClient) -> None:
    answer = await orders.get("/orders/9")
    assert (answer.status_code, answer.json()) == (404, {"detail": "no order 9"})


@pytest.mark.parametrize(
    "body",
    [
        {"user_id": 1, "lines": []},
        {"user_id": 0, "lines": [LINE]},
        {"user_id": 1, "lines": [LINE] * 51},
        {"user_id": 1, "lines": [{**LINE, "sku": "no such-sku"}]},
        {"user_id": 1, "lines": [{**LINE, "quantity": 0}]},
        {"user_id": 1, "lines": [{**LINE, "price_cents": -1}]},
        {"user_id": 1, "lines": [LINE], "total_cents": 1},
    ],
)
async def test_bad_orders_are_refused_before_anyone_is_asked(
    orders: HttpClient, body: dict[str, object]
) -> None:
    answer = await orders.post("/orders", json=body)
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], list)


@pytest.mark.parametrize("via", ["http", "grpc"])
class TestQuote:
    async def test_it_tells_who_answered(
        self, users: StandIn, orders: HttpClient, via: str
    ) -> None:
        quote = (await orders.get("/quote/1", params={"via": via, "amount_cents": 500})).json()
        instance = quote.pop("users_instance")
        assert instance.startswith("users-")
        assert quote == {
            "user_id": 1,
            "user_name": "Ann",
            "total_cents": 450,
            "via": via,
        }

    async def test_late_users_get_no_discount(
        self, users: StandIn, orders: HttpClient, via: str
    ) -> None:
        quote = await orders.get("/quote/51", params={"via": via, "amount_cents": 500})
        assert quote.json()["total_cents"] == 500

    async def test_an_unknown_user_is_not_found(
        self, users: StandIn, orders: HttpClient, via: str
    ) -> None:
        assert (await orders.get("/quote/9", params={"via": via})).status_code == 404

    async def test_users_away_is_503_with_the_time_to_come_back(
        self, orders: HttpClient, via: str
    ) -> None:
        answer = await orders.get("/quote/1", params={"via": via})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "users" in answer.json()["detail"]

    async def test_users_broken_is_502(self, users: StandIn, orders: HttpClient, via: str) -> None:
        users.broken = True
        answer = await orders.get("/quote/1", params={"via": via})
        assert answer.status_code == 502
        assert answer.json()["detail"].startswith("users answered ")


async def test_calls_to_users_are_counted(users: StandIn, orders: HttpClient) -> None:
    for via in ("http", "http", "grpc"):
        await orders.get("/quote/1", params={"via": via})
    assert (await orders.get("/stats")).json() == {
        "http": {"calls": 2, "failed": 0, "retried": 0},
        "grpc": {"calls": 1, "failed": 0, "retried": 0},
    }


async def test_an_unknown_transport_is_refused(orders: HttpClient) -> None:
    assert (await orders.get("/quote/1", params={"via": "pigeon"})).status_code == 422
