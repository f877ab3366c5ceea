"""Declaring a service: routes, clients, checks, servicers, and every mistake one can make."""

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel

from meshkit import (
    ConfigError,
    Mesh,
    MeshService,
    delete,
    get,
    grpc_client,
    health_check,
    http_client,
    patch,
    post,
    put,
)
from meshkit.client.declared import dependencies
from meshkit.service import health_checks, routes, serves_http, servicers
from tests.protos import echo_pb2_grpc


class Item(BaseModel):
    sku: str
    price: float = 1.0
    secret: str = "hidden"


class ItemOut(BaseModel):
    sku: str
    price: float


def caller_name(x_caller: Annotated[str, Header()] = "nobody") -> str:
    return x_caller


def guard(x_key: Annotated[str, Header()] = "") -> None:
    if x_key != "open":
        raise HTTPException(403, "closed")


class Shop(MeshService):
    """Uses what FastAPI users use."""

    name = "shop"
    version = "2.1.0"

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.notes: list[str] = []

    @get("/items/{sku}", response_model=ItemOut, summary="Read an item", tags=["items"])
    async def read(self, sku: str) -> Item:
        if sku not in self.items:
            raise HTTPException(404, f"no item {sku}")
        return self.items[sku]

    @post("/items", status_code=201)
    async def add(
        self,
        item: Item,
        background: BackgroundTasks,
        who: Annotated[str, Depends(caller_name)],
    ) -> ItemOut:
        self.items[item.sku] = item
        background.add_task(self.notes.append, f"{who} added {item.sku}")
        return ItemOut(**item.model_dump())

    @put("/items/{sku}")
    def replace(self, sku: str, item: Item) -> ItemOut:
        self.items[sku] = item
        return ItemOut(**item.model_dump())

    @patch("/items/{sku}")
    async def reprice(self, sku: str, price: float) -> ItemOut:
        self.items[sku].price = price
        return ItemOut(**self.items[sku].model_dump())

    @delete("/items/{sku}", status_code=204, dependencies=[Depends(guard)])
    async def remove(self, sku: str) -> None:
        del self.items[sku]


def client(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop")


async def test_a_method_is_an_ordinary_fastapi_route() -> None:
    shop = Shop()
    async with client(shop.app) as http:
        body = {"sku": "a", "price": 2.5}
        added = await http.post("/items", json=body, headers={"x-caller": "ann"})
        assert (added.status_code, added.json()) == (201, body)
        assert shop.notes == ["ann added a"]
        assert (await http.get("/items/a")).json() == body
        assert (await http.get("/items/b")).json() == {"detail": "no item b"}
        assert (await http.post("/items", json={"price": "cheap"})).status_code == 422
        assert (await http.put("/items/a", json=body)).json() == body
        assert (await http.patch("/items/a", params={"price": 9})).json()["price"] == 9
        assert (await http.delete("/items/a")).status_code == 403
        assert (await http.delete("/items/a", headers={"x-key": "open"})).status_code == 204
        assert not shop.items


async def test_openapi_describes_the_methods_without_self() -> None:
    async with client(Shop().app) as http:
        schema = (await http.get("/openapi.json")).json()
    assert schema["info"] == {"title": "shop", "version": "2.1.0"}
    read = schema["paths"]["/items/{sku}"]["get"]
    assert (read["summary"], read["tags"]) == ("Read an item", ["items"])
    assert [each["name"] for each in read["parameters"]] == ["sku"]
    answer = read["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/ItemOut"}
    assert "secret" not in schema["components"]["schemas"]["ItemOut"]["properties"]


async def test_the_app_is_ours_to_extend() -> None:
    shop, router = Shop(), APIRouter(prefix="/extra")

    @router.get("/ping")
    async def ping() -> str:
        return "pong"

    shop.app.include_router(router)
    async with client(shop.app) as http:
        assert (await http.get("/extra/ping")).json() == "pong"


async def test_instances_of_a_class_share_nothing() -> None:
    one, other = Shop(), Shop()
    assert one.app is one.app
    assert one.app is not other.app
    one.items["a"] = Item(sku="a")
    async with client(other.app) as http:
        assert (await http.get("/items/a")).status_code == 404


async def test_routes_are_inherited_and_overridden() -> None:
    class Base(MeshService):
        @get("/kind")
        async def kind(self) -> str:
            return "base"

        @get("/old")
        async def moved(self) -> str:
            return "moved"

    class Child(Base):
        name = "child"

        async def kind(self) -> str:
            return "child"

        @get("/new")
        async def moved(self) -> str:
            return "moved"

    assert [(route.method, route.path) for _, route in routes(Child)] == [
        ("GET", "/kind"),
        ("GET", "/new"),
    ]
    async with client(Child().app) as http:
        assert (await http.get("/kind")).json() == "child"
        assert (await http.get("/old")).status_code == 404


async def test_one_method_may_have_several_routes() -> None:
    class Twice(MeshService):
        name = "twice"

        @get("/a")
        @get("/b")
        @post("/a")
        async def both(self) -> str:
            return "both"

    async with client(Twice().app) as http:
        answers = [await http.get("/a"), await http.get("/b"), await http.post("/a")]
        assert [each.json() for each in answers] == ["both"] * 3


async def test_the_order_of_the_class_body_is_the_order_of_matching() -> None:
    class Ordered(MeshService):
        name = "ordered"

        @get("/items/latest")
        async def latest(self) -> str:
            return "latest"

        @get("/items/{sku}")
        async def one(self, sku: str) -> str:
            return sku

    async with client(Ordered().app) as http:
        assert (await http.get("/items/latest")).json() == "latest"
        assert (await http.get("/items/7")).json() == "7"


def declare(**attributes: Any) -> type[MeshService]:
    return type("Declared", (MeshService,), attributes)


async def read(self: object) -> None: ...


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"name": "Bad_Name"}, r"invalid service name 'Bad_Name': use lower-case"),
        ({"name": 7}, r"invalid service name 7"),
        ({"metadata": {"a.b": "c"}}, r"metadata key 'a.b'"),
        ({"metadata": {"a": 1}}, r"metadata 'a': the value must be text"),
        ({"version": 2}, r"version 2 must be text, as in '1.2.0'"),
        ({"tags": "v1"}, r"tags must be a sequence of words"),
        ({"tags": ("v1", 2)}, r"tags must be a sequence of words"),
        ({"weight": 0}, r"weight 0 must be a whole number from 1 to 65535"),
        ({"weight": 65536}, r"weight 65536 must be"),
        ({"weight": 1.5}, r"weight 1.5 must be"),
    ],
)
def test_a_bad_attribute_is_refused_where_it_is_declared(
    attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^Declared: {message}"):
        declare(**attributes)


def test_a_duplicate_route_names_both_methods() -> None:
    with pytest.raises(ConfigError, match=r"duplicate route GET /a, declared by first and second$"):

        class Doubled(MeshService):
            @get("/a")
            async def first(self) -> None: ...

            @get("/a")
            async def second(self) -> None: ...

    with pytest.raises(ConfigError, match="duplicate route POST /items, declared by add and more"):

        class More(Shop):
            @post("/items")
            async def more(self) -> None: ...


def test_a_path_without_a_slash_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Slashless.read: the path 'a' must start with '/'"):

        class Slashless(MeshService):
            @get("a")
            async def read(self) -> None: ...


def test_what_fastapi_refuses_is_one_line_that_names_the_method() -> None:
    class Odd(MeshService):
        name = "odd"

        @get("/{x:colour}")
        async def by_colour(self, x: str) -> str:
            return x

    with pytest.raises(ConfigError, match=r"Odd.by_colour: FastAPI refuses the route: .*colour"):
        _ = Odd().app

    class Opaque(MeshService):
        name = "opaque"

        @get("/")
        async def read(self) -> Callable[[], object] | object:
            return None

        @get("/socket")
        async def opaque(self, body: inspect.Signature) -> None: ...

    with pytest.raises(ConfigError, match=r"Opaque.opaque: FastAPI refuses the route: Invalid"):
        _ = Opaque().app


def test_a_base_class_needs_no_name() -> None:
    assert declare().name == ""


@pytest.mark.parametrize("service", ["Users", "", "a_b"])
def test_a_client_of_a_bad_name_is_refused_where_it_is_declared(service: str) -> None:
    with pytest.raises(ConfigError, match=r"^http_client\(.*invalid service name"):
        http_client(service)
    with pytest.raises(ConfigError, match=r"^grpc_client\(.*invalid service name"):
        grpc_client(lambda channel: channel, service)


@pytest.mark.parametrize("stub", ["LedgerStub", echo_pb2_grpc, echo_pb2_grpc.EchoServicer])
async def test_what_is_no_stub_is_refused_where_it_is_given(stub: Any) -> None:
    words = re.escape("is no generated stub: give its class, as in (pb2_grpc.LedgerStub, 'echo')")
    with pytest.raises(ConfigError, match=words):
        grpc_client(stub, "echo")
    async with Mesh("memory://") as mesh:
        with pytest.raises(ConfigError, match=words):
            mesh.grpc(stub, "echo")


def test_declared_clients_are_listed_and_wait_for_the_service_to_run() -> None:
    class Base(MeshService):
        users = http_client("users", timeout=1.5)

    class Caller(Base):
        name = "caller"
        ledger = grpc_client(lambda channel: channel, "ledger", idempotent=["Read"])

    users, ledger = dependencies(Caller)
    assert (users, ledger) == (Caller.users, Caller.ledger)
    assert (Caller.users.service, Caller.users.options) == ("users", {"timeout": 1.5})
    assert (Caller.ledger.service, Caller.ledger.idempotent) == ("ledger", ("Read",))
    for attribute in ("users", "ledger", "mesh"):
        with pytest.raises(ConfigError, match=r"^Caller is not running, so it can't call other"):
            getattr(Caller(), attribute)


def test_health_checks_are_found_and_bound() -> None:
    class Checked(MeshService):
        name = "checked"
        ok = True

        @health_check
        async def database(self) -> None: ...

        @health_check(name="disk space", timeout=0.5)
        def disk(self) -> bool:
            return self.ok

    service = Checked()
    found = {check.name: check for check in health_checks(service)}
    assert found.keys() == {"database", "disk space"}
    assert (found["database"].timeout, found["disk space"].timeout) == (None, 0.5)
    service.ok = False
    assert found["disk space"].run() is False


def test_looking_for_checks_does_not_build_the_app_or_ask_for_clients() -> None:
    class Caller(Shop):
        users = http_client("users")

    service = Caller()
    assert health_checks(service) == []
    assert "app" not in vars(service)


class LedgerServicer:
    """In the form of generated code: found by the function that adds it."""


def add_LedgerServicer_to_server(servicer: LedgerServicer, server: object) -> None: ...  # noqa: N802


def test_servicers_among_the_bases_are_found() -> None:
    class Ledger(MeshService, LedgerServicer):
        name = "ledger"

    class Both(Shop, LedgerServicer):
        pass

    assert servicers(Ledger) == [add_LedgerServicer_to_server]
    assert servicers(Shop) == []
    assert not serves_http(Ledger())
    assert serves_http(Both())
    assert serves_http(declare()())  # nothing else to serve

    extended = Ledger()
    extended.app.include_router(APIRouter())
    assert serves_http(extended)


def test_a_servicer_without_generated_code_is_none() -> None:
    class StrayServicer:
        pass

    class Stray(MeshService, StrayServicer):
        name = "stray"

    assert servicers(Stray) == []


async def test_an_existing_application_needs_no_subclass() -> None:
    app = FastAPI(version="3.2.1")

    @app.get("/ping")
    async def ping() -> str:
        return "pong"

    service = MeshService.from_app(app, name="plain", tags=["v1"], metadata={"a": "b"}, weight=3)
    assert service.app is app
    assert (service.name, service.version, service.weight) == ("plain", "3.2.1", 3)
    assert (service.tags, service.metadata) == (("v1",), {"a": "b"})
    assert serves_http(service)
    assert MeshService.from_app(app, name="plain", version="4").version == "4"
    assert MeshService.from_app(FastAPI(), name="plain").version == ""
    assert MeshService.from_app(FastAPI(), name="plain", version="0.1.0").version == "0.1.0"
    with pytest.raises(ConfigError, match="invalid service name 'Plain'"):
        MeshService.from_app(app, name="Plain")
    with pytest.raises(ConfigError, match="weight 0 must be"):
        MeshService.from_app(app, name="plain", weight=0)


async def test_hooks_do_nothing_unless_overridden() -> None:
    service = Shop()
    await service.on_start()
    await service.on_stop()


def test_a_decorator_without_parentheses_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'^@get of len needs a path: @get\("/..."\)$'):
        get(len)  # type: ignore[arg-type]
