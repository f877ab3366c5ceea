"""``meshkit registrator``: containers that know nothing of meshkit, in any registry."""

from __future__ import annotations

import gc
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from meshkit.registrator.options import Deregister

# Registrator is a Go program: one dash, and `-internal=true` for what is on or off.
SWITCHES = ("--internal", "--explicit", "--cleanup")
ON, OFF = ("1", "t", "true"), ("0", "f", "false")
ONE_DASH = re.compile(r"-[A-Za-z][A-Za-z-]+(=.*)?")

command = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def app(arguments: Sequence[str], prog_name: str) -> None:
    """Run the command line, also one that was written for Registrator."""
    command(switched(arguments), prog_name=prog_name)


def switched(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with two dashes, ``-internal=true`` as a flag, ``=false`` as none."""
    found: list[str] = []
    for word in arguments:
        flag = f"-{word}" if ONE_DASH.fullmatch(word) else word
        name, _, value = flag.partition("=")
        if name not in SWITCHES or value.lower() not in (*ON, *OFF):
            found.append(flag)
        elif value.lower() in ON:
            found.append(name)
    return found


def _version(value: bool) -> None:  # noqa: FBT001
    if value:
        from meshkit import __version__

        print(f"meshkit {__version__}")
        raise typer.Exit


@command.command()
def registrator(
    url: Annotated[
        str, typer.Argument(metavar="REGISTRY_URL", help="Where to register.", show_default=False)
    ],
    *,
    ip: Annotated[str, typer.Option("--ip", help="Address of published ports [the host's].")] = "",
    internal: Annotated[
        bool, typer.Option("--internal", help="Register containers' own addresses.")
    ] = False,
    explicit: Annotated[
        bool, typer.Option("--explicit", help="Only those with a SERVICE_NAME.")
    ] = False,
    only_label: Annotated[
        str, typer.Option(help="Only containers with this label: NAME or NAME=VALUE.")
    ] = "",
    use_ip_from_label: Annotated[
        str,
        typer.Option(
            "--useIpFromLabel",
            "--use-ip-from-label",
            help="Label that holds the address.",
        ),
    ] = "",
    network_label: Annotated[
        str, typer.Option(help="Label that names the network to be reached in.")
    ] = "SERVICE_NETWORK",
    hostname: Annotated[
        str, typer.Option(help="First part of ids, and the owner of entries [the engine's].")
    ] = "",
    tags: Annotated[str, typer.Option("--tags", help="Tags of all, a template.")] = "",
    ttl: Annotated[
        float | None, typer.Option("--ttl", help="Seconds until entries expire.")
    ] = None,
    ttl_refresh: Annotated[
        float | None, typer.Option("--ttl-refresh", help="Seconds to renew after.")
    ] = None,
    resync: Annotated[
        float, typer.Option("--resync", help="Seconds between full comparisons.")
    ] = 30.0,
    deregister: Annotated[
        str, typer.Option("--deregister", help="always, or on-success only.")
    ] = "always",
    retry_attempts: Annotated[
        int, typer.Option("--retry-attempts", help="At start; -1: for ever.")
    ] = -1,
    retry_interval: Annotated[
        float, typer.Option("--retry-interval", help="Milliseconds between.")
    ] = 2000.0,
    cleanup: Annotated[
        bool, typer.Option("--cleanup", help="Remove what Registrator has left.")
    ] = False,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Remove our entries at the end; else they stay.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Compare and correct once.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change; change nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: JSON.")] = False,
    health_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Serve /health and /metrics on this port."),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="The same; when it differs, a second one."),
    ] = None,
    health_host: Annotated[
        str, typer.Option(help="Address for that; 0.0.0.0 lets others ask.")
    ] = "127.0.0.1",
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, text or json.")] = None,
    version: Annotated[  # noqa: ARG001 - it ends by itself
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Register the containers that Docker runs, whatever is in them.

    Takes the place of gliderlabs/registrator: the same flags (one dash will do), SERVICE_*
    variables and labels. Docker is found by DOCKER_HOST, and only read. docs/registrator.md
    has the details.
    """
    from meshkit.cli.logs import configure, held
    from meshkit.registrator.options import Options
    from meshkit.registrator.running import Task, run
    from meshkit.settings import load_settings

    with held():
        settings = load_settings(log_level=log_level, log_format=log_format)
        configure(settings.log_level, settings.log_format)
    options = Options(
        ip=ip,
        internal=internal,
        explicit=explicit,
        use_ip_from_label=use_ip_from_label,
        only_label=only_label,
        network_label=network_label,
        hostname=hostname,
        tags=tags,
        ttl=ttl,
        ttl_refresh=ttl_refresh,
        resync=resync,
        deregister=cast("Deregister", deregister),  # checked there
        retry_attempts=retry_attempts,
        retry_interval=retry_interval,
        cleanup=cleanup,
    )
    gc.enable()  # it runs for months
    ports = tuple(dict.fromkeys(each for each in (health_port, metrics_port) if each is not None))
    run(
        Task(
            url=url,
            options=options,
            once=once,
            dry_run=dry_run,
            as_json=as_json,
            withdraw=withdraw,
            ports=ports,
            page_host=health_host,
        ),
        print,
    )
