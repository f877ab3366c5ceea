"""``meshkit explain``: whom a caller that starts now would call, and why not the others."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer

from meshkit.cli.registries import Url, hint_at_unknown, in_time, opened

if TYPE_CHECKING:
    from meshkit.client.explanation import Explanation
    from meshkit.registry import Registry

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def explain(
    service: Annotated[
        str, typer.Argument(help="As in users, or users@v2 for a tag.", show_default=False)
    ],
    *,
    registry: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show whom a caller of a service would call, and why not the others.

    A caller that starts now, with the settings of this folder: zone, failover and balancer. What
    those who run already have seen, such as instances set aside, is on their /debug/mesh.
    """
    asyncio.run(show(registry, service, as_json=as_json))


async def show(urls: list[str] | None, service: str, *, as_json: bool) -> None:
    """Print the explanation. Raises RegistryError when the registry can't be read."""
    async with opened(urls) as registry:
        found = await explained(registry, service)
        if not any(view.instances for view in found.views):
            await hint_at_unknown(registry, found.service)
    print(json.dumps(found.to_dict()) if as_json else found)


async def explained(registry: Registry, service: str) -> Explanation:
    """Follow the service until it is known, as a client does, and look at what it makes of it."""
    from meshkit.client.mesh import Mesh
    from meshkit.settings import load_settings

    settings = load_settings()
    async with Mesh(
        registry,
        balancer=settings.balancer,
        zone=settings.zone,
        failover=settings.failover,
        failover_share=settings.failover_share,
    ) as mesh:
        client = mesh.http(service)
        async with in_time(registry):
            # Following would go on trying; whoever waits here wants to know why it fails.
            snapshot = await registry.instances(client.service)
            await client.target.subscription.known()
            await client.router.ready()
        if any("grpc" in each.endpoints for each in snapshot.instances):
            mesh.channel(service)
        return mesh.explain(client.service)
