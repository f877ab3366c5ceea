"""The tree of errors: as drawn in the module's docstring, with the documented exit codes."""

import inspect
import re

import pytest

import meshkit
from meshkit import errors
from meshkit.cli import EXIT_CODES
from meshkit.errors import HTTPStatusError, MeshError, MissingExtraError

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, MeshError)
}


def drawn_tree() -> dict[str, str]:
    """Each class of the drawing and its parent, by the columns they stand in."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│├└─ ]*)(\w+)", line)
        if not found:
            continue
        depth, name = len(found[1]), found[2]
        path = [each for each in path if each[0] < depth]
        if path:
            parents[name] = path[-1][1]
        path.append((depth, name))
    return parents


def test_the_drawing_shows_every_class_under_its_parent() -> None:
    shown = drawn_tree()
    for name, error in CLASSES.items():
        if error is not MeshError:
            assert shown.pop(name) == error.__bases__[0].__name__
    assert not shown


def test_every_error_is_a_public_name() -> None:
    assert set(CLASSES) <= set(meshkit.__all__)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigError", 1),
        ("RegistryUrlError", 1),
        ("MissingExtraError", 1),
        ("StartError", 3),
        ("BindError", 3),
        ("RegistryError", 4),
        ("RegistryUnavailable", 4),
        ("RegistryDenied", 4),
        ("Unsupported", 1),
        ("CallError", 1),
    ],
)
def test_exit_codes_are_the_documented_ones(name: str, code: int) -> None:
    assert CLASSES[name].exit_code == code
    assert re.search(rf"^  {code}\s", EXIT_CODES, re.MULTILINE)


def test_a_missing_extra_says_how_to_get_it() -> None:
    error = MissingExtraError("a WebSocket route", "websocket")
    assert str(error) == (
        "a WebSocket route needs an optional dependency: pip install 'meshkit[websocket]'"
    )
    assert error.extra == "websocket"


def test_a_status_error_carries_its_status() -> None:
    assert HTTPStatusError("users: 404 Not Found", status_code=404).status_code == 404


def test_a_call_that_took_too_long_is_a_timeout_to_everybody() -> None:
    with pytest.raises(TimeoutError):
        raise errors.CallTimeout("users: no answer within 10 s")
