"""`meshkit run --reload`: started anew on a change, on the same port, also after a mistake."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

from tests.cli.command import HELLO, running
from tests.support.waiting import eventually


def answer(url: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{url}/hello", timeout=5) as got:
            return str(json.load(got))
    except OSError:
        return None


def test_a_change_is_served_on_the_same_port(tmp_path: Path) -> None:
    service = tmp_path / "service.py"
    service.write_text(HELLO)
    with running("run", "--reload", "--tag", "blue", folder=tmp_path) as command:
        first = command.ready()
        url = first["http"]
        assert answer(url) == "world"

        service.write_text(HELLO.replace("world", "moon"))
        second = command.ready(2)
        assert second["http"] == url
        assert second["tags"] == ["v1", "blue"]
        assert second["instance"] != first["instance"]
        assert answer(url) == "moon"
        assert "service.py changed; starting anew" in command.err

        service.write_text("def (:\n")
        eventually(lambda: "meshkit: error: service can't be imported: " in command.err)
        assert answer(url) is None
        assert command.process.poll() is None

        service.write_text(HELLO.replace("world", "sun"))
        assert command.ready(3)["http"] == url
        assert answer(url) == "sun"

        assert command.stop() == 0
        assert answer(url) is None
        assert "Traceback" not in command.err
        assert "unknown variable" not in command.err


def test_it_can_be_asked_for_by_a_variable(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(HELLO)
    (tmp_path / ".env").write_text("MESHKIT_PROT=1\n")
    with running("run", folder=tmp_path, env={"MESHKIT_RELOAD": "true"}) as command:
        facts = command.ready()
        assert command.err.count("unknown variable MESHKIT_PROT in .env:1 is ignored") == 1
        assert facts["pid"] != command.process.pid
        assert command.stop() == 0
        assert answer(facts["http"]) is None
