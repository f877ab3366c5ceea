"""``meshkit new``: start a project from a template."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from meshkit.cli.scaffold.project import Project
from meshkit.cli.scaffold.render import built_in, render
from meshkit.cli.scaffold.write import check, write

NEXT = (
    'python -m pip install "pip>=25.1"',  # for --group: Python may bring an older one
    "pip install -e . --group dev",
    "pytest",
    "meshkit run",
)

app = typer.Typer(
    name="new",
    help="Start a new project.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def new() -> None:
    """Start a new project."""


@app.command()
def service(
    name: Annotated[str, typer.Argument(help="What others find it by: a-z, 0-9 and '-'.")],
    *,
    http: Annotated[bool, typer.Option(help="Serve HTTP.")] = True,
    grpc: Annotated[bool, typer.Option(help="Serve gRPC.")] = False,
    path: Annotated[Path, typer.Option(help="Folder to make the project's folder in.")] = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
    template: Annotated[Path | None, typer.Option(help="Template folder instead of ours.")] = None,
) -> None:
    """Start a service, with settings, a store and tests."""
    root = path / name
    project = Project(name=name, root=root, http=http, grpc=grpc)
    files = render(template or built_in("service"), project.context())
    check(files, root, force=force)
    lines = [
        f"{'UPDATE' if os.path.lexists(root / file.path) else 'CREATE'} "
        f"{root / file.path} ({len(file.content)} bytes)"
        for file in files
    ]
    if not dry_run:
        write(files, root)
    print(*lines, "", f"cd {shlex.quote(str(root))}", *NEXT, sep="\n")
