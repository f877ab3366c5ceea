"""Templates: the user's own, and what ours must keep to for any name."""

import ast
import itertools
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from meshkit.cli import dispatch as run
from meshkit.cli.scaffold.project import CLASSES, Project
from meshkit.cli.scaffold.render import File, built_in, fit, import_line, render

REPOSITORY = Path(__file__).parents[2]
TRANSPORTS = [(True, False), (False, True), (True, True)]
# Their class would be called like one that the template uses, a builtin or a keyword.
AWKWARD = ["item", "settings", "mesh", "none", "exception", "get-item-request", "listitemsrequest"]


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("template").mkdir()


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Use a template that is wrong; return what is said about it."""

    def check() -> str:
        assert run(["new", "service", "orders", "--template", "template"]) == 1
        assert not Path("orders").exists()
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1
        return errors

    return check


def rendered(name: str, *, http: bool, grpc: bool) -> list[File]:
    project = Project(name=name, root=Path(name), http=http, grpc=grpc)
    return render(built_in("service"), project.context())


def test_a_template_of_ones_own() -> None:
    Path("template/{{ package }}").mkdir()
    Path("template/{% if grpc %}proto{% endif %}").mkdir()
    Path("template/.git").mkdir()
    Path("template/{{ package }}/main.py").write_text("# {{ class_name }} over HTTP: {{ http }}")
    Path("template/{% if grpc %}proto{% endif %}/a.proto").touch()
    Path("template/.git/config").touch()
    Path("template/logo.png").write_bytes(b"\x89PNG\r\n{{ \xff")
    Path("template/deploy").write_text("#!/bin/sh\n")
    Path("template/deploy").chmod(0o755)
    assert run(["new", "service", "my-orders", "--template", "template"]) == 0
    root = Path("my-orders")
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} == {
        "my_orders/main.py",
        "logo.png",
        "deploy",
    }
    assert (root / "my_orders/main.py").read_text() == "# MyOrders over HTTP: True"
    assert (root / "logo.png").read_bytes() == b"\x89PNG\r\n{{ \xff"
    assert os.access(root / "deploy", os.X_OK)
    assert not os.access(root / "my_orders/main.py", os.X_OK)


def test_a_template_folder_that_is_not_there(refused: Callable[[], str]) -> None:
    Path("template").rmdir()
    assert "template folder template does not exist" in refused()


def test_a_template_folder_without_files(refused: Callable[[], str]) -> None:
    assert "template folder template makes no file" in refused()


def test_a_template_with_a_mistake(refused: Callable[[], str]) -> None:
    Path("template/a.py").write_text("first\n{% if http %}\n")
    assert "template a.py, line 2: Unexpected end of template." in refused()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ colour }}", "'colour' is undefined"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% include 'missing' %}", "missing"),
        ("{{ descriptor('message { }') }}", "no field named"),
    ],
)
def test_a_template_that_fails(refused: Callable[[], str], text: str, reason: str) -> None:
    Path("template/a.py").write_text(text)
    message = refused()
    assert "template a.py: " in message
    assert reason in message


def test_a_template_that_leads_out_of_the_project(refused: Callable[[], str]) -> None:
    Path("template/{{ '..' }}").mkdir()
    Path("template/{{ '..' }}/evil").touch()
    assert "leads out of the project" in refused()


def test_a_template_with_two_files_for_one_path(refused: Callable[[], str]) -> None:
    Path("template/orders").touch()
    Path("template/{{ name }}").touch()
    assert "makes orders twice" in refused()


@pytest.mark.parametrize("transports", TRANSPORTS)
def test_the_service_class_is_called_like_no_other(transports: tuple[bool, bool]) -> None:
    http, grpc = transports
    for file in rendered("orders", http=http, grpc=grpc):
        if file.path.suffix == ".py" and not file.path.name.endswith(("_pb2.py", "_pb2_grpc.py")):
            names = {name for name in top_level(file.content) if name[0].isupper()}
            assert names - {"Orders"} <= CLASSES, file.path


def top_level(source: bytes) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(source).body:
        match node:
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names.update(alias.asname or alias.name for alias in aliases)
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]):
                names.add(name)
    return names


def test_a_line_is_broken_when_it_is_too_long() -> None:
    assert fit("class A(", ["B" * 80, "C" * 8], "):") == f"class A({'B' * 80}, {'C' * 8}):"
    assert fit("class A(", ["B" * 80, "C" * 9], "):") == (
        f"class A(\n    {'B' * 80},\n    {'C' * 9},\n):"
    )
    assert fit("a = b(", ["c" * 89], ")", indent=5) == f"a = b(\n         {'c' * 89},\n     )"
    assert import_line("a", ["b" * 86]) == f"from a import {'b' * 86}"
    assert import_line("a", ["b" * 87]) == f"from a import (\n    {'b' * 87},\n)"


def test_any_name_makes_code_that_is_formatted_and_clean(tmp_path: Path) -> None:
    lengths = ["a", *("a" * length for length in range(15, 64, 12)), "a-b" * 21]
    names = [*itertools.product(lengths, TRANSPORTS), *((name, (True, True)) for name in AWKWARD)]
    for number, (name, (http, grpc)) in enumerate(names):
        for file in rendered(name, http=http, grpc=grpc):
            target = tmp_path / "made" / str(number) / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.content)
    for check in (["check"], ["format", "--check"]):
        result = subprocess.run(
            ["ruff", *check, "--no-cache", "--quiet", tmp_path / "made"],
            env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]


def test_the_wheel_brings_the_template(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    script = (
        "import meshkit.cli, sys\n"
        "assert meshkit.__file__.startswith(sys.argv[1]), meshkit.__file__\n"
        "sys.exit(meshkit.cli.dispatch(['new', 'service', 'orders', '--grpc']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "installed")],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    made = {file.path: file.content for file in rendered("orders", http=True, grpc=True)}
    assert made == {path: Path("orders", path).read_bytes() for path in made}
