"""The service: what it answers to."""

{% if http and grpc %}
from typing import Annotated, Any
{% elif http %}
from typing import Annotated
{% else %}
from typing import Any
{% endif %}

{% if grpc %}
import grpc
{% endif %}
{% if http %}
from fastapi import HTTPException, Query
from meshkit import MeshService, get, health_check, post
{% else %}
from meshkit import MeshService, health_check
{% endif %}
{% if grpc %}
from pydantic import ValidationError
{% endif %}

from {{ package }} import __version__
from {{ package }}.models import Item, NewItem
from {{ package }}.settings import Settings
from {{ package }}.store import ItemStore
{% if grpc %}
{{ import_line(api, [package ~ "_pb2 as pb2"]) }}
{{ import_line(api, [package ~ "_pb2_grpc as pb2_grpc"]) }}

Context = grpc.aio.ServicerContext[Any, Any]
{% endif %}


{% if grpc %}
{{ fit("class " ~ class_name ~ "(", ["MeshService", "pb2_grpc." ~ class_name ~ "Servicer"], "):") }}
{% else %}
class {{ class_name }}(MeshService):
{% endif %}
    """Keeps items."""

    name = "{{ name }}"
    version = __version__

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()

    async def on_start(self) -> None:
        self.store = ItemStore()

    @health_check(name="store")
    async def read_store(self) -> None:
        """Fails when the store does: nobody calls this instance until it works again."""
        await self.store.page(after=0, limit=1)
{% if http %}

    @get("/items")
    async def list_items(self, after: Annotated[int, Query(ge=0)] = 0) -> list[Item]:
        """List the items after an id; an empty list is the end."""
        return await self.store.page(after=after, limit=self.settings.page_size)

    @get("/items/{item_id}")
    async def read_item(self, item_id: int) -> Item:
        item = await self.store.get(item_id)
        if item is None:
            raise HTTPException(404, f"there is no item {item_id}")
        return item

    @post("/items", status_code=201)
    async def create_item(self, new: NewItem) -> Item:
        return await self.store.add(new)
{% endif %}
{% if grpc %}

    async def ListItems(
        self, request: pb2.ListItemsRequest, context: Context
    ) -> pb2.ListItemsResponse:
        items = await self.store.page(after=request.after, limit=self.settings.page_size)
        return pb2.ListItemsResponse(items=map(_message, items))

    async def GetItem(self, request: pb2.GetItemRequest, context: Context) -> pb2.Item:
        item = await self.store.get(request.id)
        if item is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no item {request.id}")
        return _message(item)

    async def CreateItem(self, request: pb2.CreateItemRequest, context: Context) -> pb2.Item:
        try:
            new = NewItem(name=request.name, quantity=request.quantity)
        except ValidationError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, _explain(error))
        return _message(await self.store.add(new))


def _message(item: Item) -> pb2.Item:
    return pb2.Item(id=item.id, name=item.name, quantity=item.quantity)


def _explain(error: ValidationError) -> str:
    return "; ".join(f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors())
{% endif %}
