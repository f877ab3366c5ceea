"""`meshkit new service`: what it writes, what it refuses, and that it leaves nothing half done."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshkit.cli import dispatch as run

HTTP = {
    ".dockerignore",
    ".gitignore",
    "Dockerfile",
    "README.md",
    "orders/__init__.py",
    "orders/models.py",
    "orders/py.typed",
    "orders/service.py",
    "orders/settings.py",
    "orders/store.py",
    "pyproject.toml",
    "tests/conftest.py",
    "tests/test_http.py",
}
GRPC = {
    "orders_api/__init__.py",
    "orders_api/orders_pb2.py",
    "orders_api/orders_pb2.pyi",
    "orders_api/orders_pb2_grpc.py",
    "proto/orders_api/orders.proto",
    "tests/test_grpc.py",
}


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail; return its one line."""

    def check(*arguments: str) -> str:
        before = content(Path())
        assert run(["new", "service", *arguments]) == 1
        output, errors = capsys.readouterr()
        assert output == ""
        assert content(Path()) == before
        assert errors.startswith("meshkit: error: ")
        assert errors.count("\n") == 1
        return errors

    return check


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be somebody whom file permissions hold back, as root is not."""
    before = os.getresuid()
    if before[0] == 0:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(*before)


def new(*arguments: str) -> None:
    assert run(["new", "service", *arguments]) == 0


def content(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def files(folder: Path) -> set[str]:
    return {name for name, data in content(folder).items() if data is not None}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], HTTP),
        (["--grpc"], HTTP | GRPC),
        (["--grpc", "--no-http"], (HTTP | GRPC) - {"tests/test_http.py"}),
    ],
)
def test_a_project_has_the_files_of_its_transports(options: list[str], expected: set[str]) -> None:
    new("orders", *options)
    assert files(Path("orders")) == expected


def test_one_line_a_file_then_the_next_commands(capsys: pytest.CaptureFixture[str]) -> None:
    new("orders")
    lines, _, commands = capsys.readouterr().out.partition("\n\n")
    assert lines.splitlines() == [
        f"CREATE orders/{name} ({Path('orders', name).stat().st_size} bytes)"
        for name in sorted(HTTP, key=lambda name: Path(name).parts)
    ]
    assert commands.splitlines() == [
        "cd orders",
        'python -m pip install "pip>=25.1"',
        "pip install -e . --group dev",
        "pytest",
        "meshkit run",
    ]


def test_a_name_with_a_dash_and_a_folder_with_a_space(capsys: pytest.CaptureFixture[str]) -> None:
    new("payments-gateway", "--grpc", "--path", "my services/eu")
    root = Path("my services/eu/payments-gateway")
    service = (root / "payments_gateway/service.py").read_text()
    assert 'name = "payments-gateway"' in service
    assert "class PaymentsGateway(MeshService, pb2_grpc.PaymentsGatewayServicer):" in service
    assert 'env_prefix="PAYMENTS_GATEWAY_"' in (root / "payments_gateway/settings.py").read_text()
    assert (
        "package payments_gateway.v1;"
        in (root / "proto/payments_gateway_api/payments_gateway.proto").read_text()
    )
    assert f"cd '{root}'" in capsys.readouterr().out.splitlines()


def test_a_dry_run_says_the_same_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    new("orders", "--grpc", "--dry-run")
    announced = capsys.readouterr().out
    assert content(Path()) == {}
    new("orders", "--grpc")
    assert capsys.readouterr().out == announced


def test_existing_files_are_not_touched(refused: Callable[..., str]) -> None:
    Path("orders/orders").mkdir(parents=True)
    Path("orders/README.md").write_text("mine")
    Path("orders/orders/service.py").write_text("mine")
    assert "orders/README.md exists (and 1 more)" in refused("orders")
    assert "orders/README.md exists (and 1 more)" in refused("orders", "--dry-run")


def test_an_empty_or_unrelated_folder_is_filled() -> None:
    Path("orders").mkdir()
    Path("orders/LICENSE").write_text("mine")
    new("orders")
    assert files(Path("orders")) == HTTP | {"LICENSE"}


def test_force_overwrites_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Path("orders").mkdir()
    Path("orders/README.md").write_text("mine")
    Path("orders/LICENSE").write_text("mine")
    Path("elsewhere").write_text("mine")
    Path("orders/pyproject.toml").symlink_to(Path("elsewhere").resolve())
    new("orders", "--force")
    words = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert ["UPDATE", "orders/README.md"] in words
    assert ["UPDATE", "orders/pyproject.toml"] in words
    assert ["CREATE", "orders/.gitignore"] in words
    assert Path("orders/README.md").read_text().startswith("# orders\n")
    assert Path("orders/LICENSE").read_text() == "mine"
    assert Path("elsewhere").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Orders", "invalid service name 'Orders'"),
        ("1st", "invalid service name '1st'"),
        ("my_orders", "invalid service name 'my_orders'"),
        ("../orders", "invalid service name '../orders'"),
        ("a" * 64, "invalid service name"),
        ("class", "would be a keyword"),
        ("json", "would hide a module of Python's standard library"),
        ("fastapi", "would hide the one at "),
        ("google", "would hide the one at "),
        ("meshkit", "would hide the one at "),
        ("tests", "would be the project's tests/ folder"),
        ("proto", "would be the project's proto/ folder"),
    ],
)
def test_an_unusable_name_is_refused(refused: Callable[..., str], name: str, reason: str) -> None:
    assert reason in refused(name)


def test_the_package_of_the_stubs_may_not_hide_another(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("installed").mkdir()
    Path("installed/orders_api.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "installed")
    assert "'orders_api' would hide the one at " in refused("orders", "--grpc")
    new("orders")


def test_a_project_that_is_installed_does_not_hide_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new("orders", "--grpc")
    monkeypatch.syspath_prepend(tmp_path / "orders")
    new("orders", "--grpc", "--force")


def test_a_service_needs_a_transport(refused: Callable[..., str]) -> None:
    assert "needs a transport" in refused("orders", "--no-http")


def test_wrong_usage_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new", "service"]) == 2
    assert run(["new", "service", "orders", "--colour"]) == 2
    assert run(["new", "servcie", "orders"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_its_help_loads_nothing_that_only_rendering_needs() -> None:
    script = (
        "import sys, meshkit.cli\n"
        "assert meshkit.cli.dispatch(['new', 'service', '--help']) == 0\n"
        "print(*sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert "--dry-run" in output
    assert set(output.split()) & {"fastapi", "google.protobuf", "grpc", "jinja2"} == set()


def test_a_file_where_a_folder_has_to_be(refused: Callable[..., str]) -> None:
    Path("orders").write_text("mine")
    assert "orders is in the way: it has to be a folder" in refused("orders")
    assert "orders is in the way: it has to be a folder" in refused("users", "--path", "orders")
    assert "orders is in the way: it has to be a folder" in refused("orders", "--force")


def test_a_folder_where_a_file_has_to_be(refused: Callable[..., str]) -> None:
    Path("orders/pyproject.toml").mkdir(parents=True)
    assert "orders/pyproject.toml is in the way: it has to be a file" in refused(
        "orders", "--force"
    )


def test_an_unwritable_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        arguments = ["new", "service", "orders", "--path", name]
        assert run([*arguments, "--dry-run"]) == 0  # imports what an other user may not read
        Path(name).chmod(0o555)
        with unprivileged():
            code = run(arguments)
        assert code == 1
        assert capsys.readouterr().err == f"meshkit: error: folder {name} is not writable\n"
        assert content(Path(name)) == {}


@pytest.mark.parametrize("existing", [[], ["README.md", "pyproject.toml"]])
def test_a_full_disk_leaves_everything_as_it_was(existing: list[str]) -> None:
    for name in existing:
        Path("orders", name).parent.mkdir(exist_ok=True)
        Path("orders", name).write_text("mine")
    before = content(Path())

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    result = subprocess.run(
        [sys.executable, "-m", "meshkit.cli", "new", "service", "orders", "--grpc", "--force"],
        preexec_fn=limit,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stderr == (
        "meshkit: error: can't write to orders: File too large; nothing was changed\n"
    )
    assert result.returncode == 1
    assert content(Path()) == before


def test_what_was_put_in_place_is_taken_back(refused: Callable[..., str]) -> None:
    Path("orders").mkdir()
    Path("orders/README.md").write_text("mine")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other_filesystem:
        assert Path(other_filesystem).stat().st_dev != Path("orders").stat().st_dev
        Path("orders/tests").symlink_to(other_filesystem)
        assert "can't write to orders: " in refused("orders", "--force")
        assert Path("orders/README.md").read_text() == "mine"
