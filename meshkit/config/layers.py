"""One model of several layers: what the registry holds, over the settings, over the defaults."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, SettingsError

from meshkit.config.fields import Path, UnreadableError, argument, located, slots
from meshkit.places import place

M = TypeVar("M", bound=BaseModel)
Values = Mapping[Path, bytes]
#: changes that are looked for one by one; when more do not go together, all are held up
FEW = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the value at a path; with no certain one when it is empty."""

    path: Path
    reason: str


class UnbuildableError(Exception):
    """The model can't be made, whatever is left out of what was found."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.reason)
        self.problem = problem


@dataclasses.dataclass(frozen=True, slots=True)
class Settled(Generic[M]):
    """A model, the values that were used for it, and what had to be refused."""

    model: M
    used: Values
    refused: tuple[Problem, ...]


def settle(model: type[M], found: Values, good: Values) -> Settled[M]:
    """Make a model of what was found; a value that it refuses stays what it was before.

    Args:
        model: its class.
        found: values at paths that the model has.
        good: what was used before; a path that is not in it falls back to the settings.

    Raises:
        UnbuildableError: it can't be made of what was good before either.
    """
    values, refused, clashes = dict(found), dict[Path, Problem](), dict[Path, Problem]()
    while True:
        made, problems = _try(model, values)
        if made is not None:
            return Settled(made, values, tuple(refused.values()))
        changed = {path for path in values.keys() | good if values.get(path) != good.get(path)}
        if not changed:
            raise UnbuildableError(refused.get(problems[0].path, problems[0]))
        blamed = _blamed(problems, changed)
        if not blamed:
            clash = _clash(model, values, good, changed, most=FEW - len(clashes))
            clashes |= clash
            blamed = clash or {path: _beside(path, problems[0]) for path in changed}
        refused |= blamed
        values = _replaced(values, blamed, good)


def _replaced(values: Values, paths: Collection[Path], source: Values) -> dict[Path, bytes]:
    """Return the values, but at these paths those of the source, which may have none."""
    replaced = {path: source[path] for path in paths if path in source}
    gone = set(paths) - replaced.keys()
    return {path: raw for path, raw in values.items() if path not in gone} | replaced


def _blamed(problems: list[Problem], changed: set[Path]) -> dict[Path, Problem]:
    """Return the problems by the changed values that have caused them."""
    blamed: dict[Path, Problem] = {}
    for path, reason in ((problem.path, problem.reason) for problem in problems if problem.path):
        # The value it lies in, the most specific one; else all that lie in it.
        around = sorted((each for each in changed if each == path[: len(each)]), key=len)
        within = (each for each in changed if each[: len(path)] == path)
        blamed |= {each: Problem(each, reason) for each in around[-1:] or within}
    return blamed


def _clash(
    model: type[M], values: Values, good: Values, changed: set[Path], *, most: int
) -> dict[Path, Problem]:
    """Return the problem by the fewest changes that do not go together with what was good before.

    None when there are more than ``most``. They are found one by one: the last of the fewest that
    fail beside those that are known; halving makes that a few attempts, however many have changed.
    """
    clash: list[Path] = []
    others = sorted(changed)

    def problems_with(count: int) -> list[Problem]:
        return _try(model, _replaced(good, [*clash, *others[:count]], values))[1]

    while not (problems := problems_with(0)) and others and len(clash) < most:
        end = bisect.bisect_left(
            range(1, len(others)), x=True, key=lambda count: bool(problems_with(count))
        )
        clash.append(others[end])
        del others[end:]
    return {path: _beside(path, problems[0]) for path in clash if problems}


def _beside(path: Path, problem: Problem) -> Problem:
    """Return the problem of a value that others, which may be elsewhere, do not go with."""
    where = "" if problem.path in ((), path) else f"{'/'.join(problem.path)}: "
    return Problem(path, where + problem.reason)


def _try(model: type[M], values: Values) -> tuple[M | None, list[Problem]]:
    """Make the model, or say what is wrong."""
    given: dict[str, Any] = {}
    problems = []
    for path in sorted(values, key=len):  # what is more specific comes later, and wins
        way = slots(model, path)
        try:
            _put(given, [slot.argument for slot in way], way[-1].read(values[path]))
        except UnreadableError as error:
            problems.append(Problem(path, str(error)))
    if problems:
        return None, problems
    try:
        return model(**_over_defaults(model, given)), []
    except ValidationError as error:
        problems = list(_explain(model, error))
    except SettingsError as error:
        problems = [Problem((), str(error))]
    except Exception as error:  # noqa: BLE001 - of a validator of the user's own
        problems = [Problem((), f"{type(error).__name__}: {error}{place(error)}")]
    return None, [_without_secrets(problem, model, values) for problem in problems]


def _put(given: dict[str, Any], way: list[str], value: object) -> None:
    """Set one value in nested arguments."""
    *folders, name = way
    for folder in folders:
        inner = given.get(folder)
        given[folder] = inner = dict(inner) if isinstance(inner, dict) else {}
        given = inner
    given[name] = value


def _over_defaults(model: type[BaseModel], given: dict[str, Any]) -> dict[str, Any]:
    """Complete parts of a nested model by those of the field's default, not of its class.

    Settings are left alone: their parts come from the environment, and they merge by themselves.
    """
    if issubclass(model, BaseSettings):
        return given
    defaults = {}
    for name, field in model.model_fields.items():
        if isinstance(given.get(argument(model, name, field)), dict):
            with contextlib.suppress(TypeError, ValueError):  # a factory that asks for other fields
                default = field.get_default(call_default_factory=True)
                defaults[argument(model, name, field)] = default
    return _merged(defaults, given)


def _merged(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    merged = dict(given)
    for name, value in given.items():
        default = defaults.get(name)
        if isinstance(value, dict) and isinstance(default, BaseModel):
            parts = _arguments(default)
            merged[name] = parts | _merged(parts, value)
    return merged


def _arguments(instance: BaseModel) -> dict[str, Any]:
    """Return what the instance could be made of again."""
    cls = type(instance)
    fields = cls.model_fields.items()
    return {argument(cls, name, field): getattr(instance, name) for name, field in fields}


def _explain(model: type[BaseModel], error: ValidationError) -> Iterator[Problem]:
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        path, secret = located(model, tuple(map(str, each["loc"])))
        # Whatever a validator says may quote the value.
        reason = str(each["type"] if secret else each["msg"]).removeprefix("Value error, ")
        yield Problem(path, reason)


def _without_secrets(problem: Problem, model: type[BaseModel], values: Values) -> Problem:
    """Mask the secrets that a validator of others may quote, and make it one line."""
    reason = problem.reason
    for path, raw in values.items():
        if raw and any(slot.secret for slot in slots(model, path)):
            reason = reason.replace(raw.decode(errors="replace"), "***")
    return Problem(problem.path, " ".join(reason.split()))
