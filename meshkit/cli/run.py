"""``meshkit run``: run a service until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meshkit.cli.discover import find_service
from meshkit.cli.logs import configure, configure_access_log, held
from meshkit.cli.serve import hint_at_unused, serve

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def run(
    service: Annotated[
        str | None,
        typer.Argument(
            help="module:Class. Without it: [tool.meshkit] service, else the only one here.",
            show_default=False,
        ),
    ] = None,
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="HTTP port, 0 for any free one [0].")] = None,
    grpc_port: Annotated[
        int | None, typer.Option(help="gRPC port, 0 for any free one [0].")
    ] = None,
    advertise_host: Annotated[
        str | None, typer.Option(help="Address that others call, or a network it is in.")
    ] = None,
    advertise_port: Annotated[
        int | None, typer.Option(help="HTTP port that others call [the one listened on].")
    ] = None,
    advertise_grpc_port: Annotated[
        int | None, typer.Option(help="gRPC port that others call [the one listened on].")
    ] = None,
    advertise: Annotated[
        str | None, typer.Option(help="auto, or docker: the host's address and published ports.")
    ] = None,
    registry: Annotated[
        list[str] | None, typer.Option(help="Registry URL [local://]; may be repeated.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Add a tag; may be repeated.")] = None,
    zone: Annotated[str | None, typer.Option(help="Failure domain of this instance.")] = None,
    instances: Annotated[int | None, typer.Option(help="Processes to run [1].")] = None,
    reload: Annotated[
        bool | None, typer.Option("--reload", help="Start anew when a file changes.")
    ] = None,
    env: Annotated[str | None, typer.Option(help="development or production.")] = None,
    env_file: Annotated[
        Path | None, typer.Option(envvar="MESHKIT_ENV_FILE", help="File of variables [.env].")
    ] = None,
    access_log: Annotated[
        bool | None, typer.Option("--access-log", help="Log every request, HTTP and gRPC.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, text or json.")] = None,
    no_register: Annotated[
        bool, typer.Option("--no-register", help="Serve without registering.")
    ] = False,
) -> None:
    """Run a service: bind, register, serve, drain.

    All settings, also as variables (MESHKIT_PORT, MESHKIT_TAGS, MESHKIT_REGISTRATION, ...; PORT
    is respected) and keys of [tool.meshkit], are in docs/running.md. Ctrl-C or SIGTERM stops in
    order, a second one at once. --debug shows the traceback behind an error.
    """
    from meshkit.settings import load_settings

    with held() as lines:
        settings = load_settings(
            env_file,
            host=host,
            port=port,
            grpc_port=grpc_port,
            advertise_host=advertise_host,
            advertise_port=advertise_port,
            advertise_grpc_port=advertise_grpc_port,
            advertise=advertise,
            registry=registry or None,
            tags=",".join(tag) if tag else None,
            zone=zone,
            instances=instances,
            reload=reload,
            env=env,
            access_log=access_log,
            log_level=log_level,
            log_format=log_format,
            registration=False if no_register else None,
        )
        configure(settings.log_level, settings.log_format)
        if settings.reload:
            lines.clear()  # the service's own process will say them
    if settings.access_log:
        configure_access_log(settings.log_format)
    if settings.reload:
        from meshkit.cli.reload import run_reloading

        raise typer.Exit(run_reloading(settings))
    found = find_service(service, configured=settings.service)
    hint_at_unused(found, settings)
    if settings.instances > 1:
        from meshkit.cli.instances import run_instances

        raise typer.Exit(run_instances(found, settings))
    serve(found, settings)
