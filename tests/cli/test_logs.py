"""Log lines: text for people, JSON for programs, and silence from libraries."""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator

import pytest

from meshkit import context
from meshkit.cli import complaints
from meshkit.cli.logs import NOISY, LogFormat, configure, held, is_json


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave the process's logging as it was."""
    names = [None, "meshkit.server.lifespan", *NOISY]
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    handlers = logging.getLogger().handlers[:]
    yield
    logging.captureWarnings(False)
    complaints.json_line = None
    logging.getLogger().handlers[:] = handlers
    for logger, level in before:
        logger.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err.splitlines()


def test_text_has_time_level_logger_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")
    logging.getLogger("meshkit.health").warning("not ready: %s", "database")
    logging.getLogger("meshkit.health").debug("unheard")
    (line,) = lines(capsys)
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning meshkit.health  not ready: database", line)


def test_text_is_coloured_when_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    configure("info", "text")
    logging.getLogger("meshkit").error("bad")
    logging.getLogger("meshkit").info("good")
    bad, good = lines(capsys)
    assert bad.startswith("\033[31m")
    assert bad.endswith("\033[0m")
    assert "\033" not in good


def test_json_is_one_object_a_line_with_what_was_added(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    log = logging.getLogger("shop")
    log.info("sold %d", 3, extra={"sku": "a", "price": 2.5, "odd": {1}})
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log.exception("failed")
    sold, failed = map(json.loads, lines(capsys))
    assert sold.pop("time") > 1.7e9
    assert sold == {
        "level": "info",
        "logger": "shop",
        "message": "sold 3",
        "sku": "a",
        "price": 2.5,
        "odd": "{1}",
    }
    assert failed["exception"].endswith("ValueError: first\nsecond")


@pytest.mark.parametrize(
    ("level", "heard"),
    [("info", ["theirs: warning"]), ("debug", ["theirs: info", "theirs: warning"])],
)
def test_libraries_are_quiet_unless_everything_is_wanted(
    level: str, heard: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    configure(level, "text")
    theirs = logging.getLogger("uvicorn.error")
    theirs.info("theirs: info")
    theirs.warning("theirs: warning")
    assert [line.rpartition("  ")[2] for line in lines(capsys)] == heard


def test_configuring_again_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    configure("info", "text")
    logging.getLogger("meshkit").info("once")
    assert len(lines(capsys)) == 1


@pytest.mark.parametrize(
    ("format", "terminal", "wanted"),
    [
        ("auto", True, False),
        ("auto", False, True),
        ("json", True, True),
        ("text", False, False),
    ],
)
def test_json_is_for_whatever_is_no_terminal(
    format: LogFormat,
    terminal: bool,  # noqa: FBT001 - a parameter of the table
    wanted: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert is_json(format) is wanted


@pytest.mark.parametrize("format", ["text", "json"])
def test_lines_tell_the_call_that_is_being_handled(
    capsys: pytest.CaptureFixture[str], format: LogFormat
) -> None:
    configure("info", format)
    log = logging.getLogger("shop")
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    log.info("outside")
    with context.use(request_id="job-7"):
        log.info("inside")
        with context.use(traceparent=traceparent):
            log.info("traced")
    outside, inside, traced = lines(capsys)
    if format == "text":
        assert outside.endswith("shop  outside")
        assert inside.endswith("shop  inside [job-7]")
        return
    assert not {"request_id", "trace_id"} & set(json.loads(outside))
    assert json.loads(inside)["request_id"] == "job-7"
    assert "trace_id" not in json.loads(inside)
    assert json.loads(traced)["trace_id"] == traceparent[3:35]


def test_python_s_warnings_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old hat", DeprecationWarning, stacklevel=1)
    (line,) = lines(capsys)
    assert "DeprecationWarning: old hat" in json.loads(line)["message"]
    configure("info", "text")
    assert warnings.showwarning is not logging._showwarning  # type: ignore[attr-defined]


def test_what_is_held_is_written_in_the_format_and_from_the_level_that_come_after_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with held():
        logging.getLogger("meshkit").warning("early")
        logging.getLogger("meshkit").error("bad")
        configure("error", "json")
    (line,) = lines(capsys)
    assert json.loads(line)["message"] == "bad"
    with held() as records:
        logging.getLogger("meshkit").warning("taken out")
        configure("info", "json")
        records.clear()
    assert lines(capsys) == []
