"""The stubs of a new project are what protoc writes, though it need not be installed."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies

from meshkit.cli import dispatch as run
from meshkit.cli.scaffold.stubs import escape

PROTOBUF_VERSION = re.compile(rb"Protobuf Python Version: ([\d.]+)")
GRPC_VERSION = re.compile(rb"GRPC_GENERATED_VERSION = '([\d.]+)'")


@pytest.mark.parametrize(
    "name", ["orders", "payments-gateway", "a", "item", "message", "x" * 63, "a-1-b-2"]
)
def test_stubs_equal_those_of_protoc(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["new", "service", name, "--grpc"]) == 0
    root = Path(name)
    readme = (root / "README.md").read_text()
    (command,) = (line for line in readme.splitlines() if "grpc_tools.protoc" in line)
    stubs = [path for path in root.rglob("*_pb2*") if path.is_file()]
    assert len(stubs) == 3
    ours = {path: path.read_bytes() for path in stubs}
    for path in stubs:
        path.unlink()
    subprocess.run(
        [sys.executable, *command.split()[1:]], cwd=root, check=True, timeout=60, env=os.environ
    )
    for path in stubs:
        assert without_versions(ours[path]) == without_versions(path.read_bytes()), path


def without_versions(stub: bytes) -> bytes:
    """Leave out which release wrote it: ours name the installed runtimes, protoc names its own."""
    if found := PROTOBUF_VERSION.search(stub):
        numbers = b"".join(b"    %s,\n" % part for part in found[1].split(b"."))
        assert numbers in stub
        stub = stub.replace(numbers, b"").replace(found[1], b"")
    if found := GRPC_VERSION.search(stub):
        stub = stub.replace(found[1], b"")
    return stub


@given(strategies.binary())
def test_escaped_bytes_are_read_back(data: bytes) -> None:
    assert ast.literal_eval(f"b'{escape(data)}'") == data


def test_a_hex_digit_after_an_escape_is_escaped() -> None:
    assert escape(b"\x05after \xffF g\n\"'\\") == r"\x05\x61\x66ter \xff\x46 g\n\"\'\\"
