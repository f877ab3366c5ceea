"""What ``meshkit run --access-log`` writes, as text and as JSON."""

from __future__ import annotations

import json
import re

import httpx2

from tests.support.processes import Processes
from tests.support.waiting import eventually


def test_json_lines_have_a_field_for_each_part(services: Processes) -> None:
    service = services.start("echo:Echo", "--access-log").ready()
    agent = 'a "quoted" agent \xe9'.encode("latin-1")
    httpx2.get(service.url + "/who?token=secret", headers={b"user-agent": agent})
    eventually(lambda: "meshkit.access" in service.output)
    (line,) = [line for line in service.lines if "meshkit.access" in line]
    entry = json.loads(line)
    assert entry["path"] == "/who"
    assert entry["status"] == 200
    assert entry["agent"] == agent.decode("latin-1")
    assert entry["bytes"] > 0
    assert entry["duration_ms"] > 0
    assert "secret" not in service.output


def test_text_lines_are_for_people(services: Processes) -> None:
    service = services.start("echo:Echo", "--access-log", "--log-format", "text")
    eventually(lambda: "http://" in service.output)
    url = re.search(r"http://127\.0\.0\.1:\d+", service.output)
    assert url
    httpx2.get(url[0] + "/who?token=secret")
    eventually(lambda: "meshkit.access" in service.output)
    assert re.search(r"info +meshkit\.access +GET /who 200 [\d.]+ms \d+B id=", service.output)
    assert "secret" not in service.output


def test_without_it_there_are_none(services: Processes) -> None:
    service = services.start("echo:Echo").ready()
    httpx2.get(service.url + "/who")
    service.close()
    assert "/who" not in service.output
