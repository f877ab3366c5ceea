"""Finding the service: named, configured, or the only one there is."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshkit import ConfigError, MeshService
from meshkit.cli.discover import find_service

CLASS = """
from meshkit import MeshService
class {name}(MeshService):
    name = "{service}"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder of its own, whose modules are forgotten afterwards."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", ".")])
    before = set(sys.modules)
    yield work
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) is None or str(work) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


def write(folder: Path, **files: str) -> None:
    """Write modules; ``shop__service`` is shop/service.py."""
    for name, content in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def shop(name: str = "Shop", service: str = "shop") -> str:
    return CLASS.format(name=name, service=service)


@pytest.mark.parametrize(
    "module", ["service", "app", "main", "api", "shop__service", "src__shop__service", "src__app"]
)
def test_the_only_service_is_found_where_people_put_it(folder: Path, module: str) -> None:
    write(folder, **{module: shop()})
    assert find_service(None, configured=None).name == "shop"


def test_what_is_named_wins_over_what_is_configured(folder: Path) -> None:
    write(folder, one=shop("One", "one"), two=shop("Two", "two"), service=shop())
    assert find_service("one:One", configured="two:Two").name == "one"
    assert find_service(None, configured="two:Two").name == "two"
    assert find_service("two", configured=None).name == "two"


def test_an_object_is_taken_as_it_is(folder: Path) -> None:
    write(
        folder,
        web="from fastapi import FastAPI\n"
        "from meshkit import MeshService\n"
        'service = MeshService.from_app(FastAPI(), name="web")\n',
    )
    service = find_service("web:service", configured=None)
    assert isinstance(service, MeshService)
    assert service.name == "web"
    assert find_service("web", configured=None) is service


def test_base_classes_and_imported_services_are_no_candidates(folder: Path) -> None:
    write(
        folder,
        common="from meshkit import MeshService\nclass Base(MeshService): ...\n" + shop("Other"),
        service="from common import Base, Other\n"
        'class Shop(Base):\n    name = "only"\nMeshService = Base\n',
    )
    assert find_service(None, configured=None).name == "only"


def test_tests_and_other_folders_are_not_searched(folder: Path) -> None:
    write(
        folder,
        shop__service=shop(),
        tests__service=shop("Fake", "fake"),
        docs__app=shop("Shown", "shown"),
        templates__main=shop("Made", "made"),
    )
    (folder / "not-a-package").mkdir()
    (folder / "not-a-package" / "service.py").write_text("raise AssertionError\n")
    assert find_service(None, configured=None).name == "shop"


def complaint(spec: str | None = None, configured: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        find_service(spec, configured=configured)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_several_are_listed_by_name(folder: Path) -> None:
    write(folder, service=shop() + shop("Other", "other"), api=shop("Api", "api"))
    assert complaint() == (
        "several services found, name one of them: api:Api, service:Other, service:Shop"
    )
    assert complaint("service") == (
        "several services found, name one of them: service:Other, service:Shop"
    )


def test_none_says_how_to_name_one(folder: Path) -> None:
    write(folder, service="x = 1\n")
    assert complaint().startswith(
        "no MeshService found here: name it as in `meshkit run users.service:Users`, or set"
    )
    assert complaint("service").startswith("no MeshService found in service: ")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing:Shop", "no module named 'nothing' in "),
        ("service.deeper:Shop", "no module named 'service.deeper' in "),
        ("service:Shopp", "service has no 'Shopp'; did you mean service:Shop?"),
        ("service:zzz", "service has no 'zzz'"),
        ("service:answer", "service:answer is not a MeshService; a FastAPI application becomes"),
        ("service.py", "'service.py': name a module, as in `meshkit run service`"),
        ("shop/service.py", "'shop/service.py': name a module, as in `meshkit run shop.service`"),
        ("./service:Shop", "'./service:Shop': name a module"),
        (":Shop", "':Shop': name a module"),
        ("service:", "'service:': name a module"),
        ("..service:Shop", "'..service:Shop': name a module"),
    ],
)
def test_a_bad_name_says_what_is_wrong(folder: Path, spec: str, message: str) -> None:
    write(folder, service=shop() + "answer = 42\n")
    assert complaint(spec).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def (:\n", "service can't be imported: invalid syntax (*service.py:1)"),
        ("x = '\x00'\n", "service can't be imported: "),
        ("import nothing_like_this\n", "service can't be imported: No module named 'nothing_like"),
        (
            "\nraise ImportError('first\\nsecond')\n",
            "service can't be imported: ImportError: first",
        ),
        ("raise RuntimeError\n", "service can't be imported: RuntimeError (*service.py:1)"),
        ("import sys\nsys.exit('usage')\n", "service can't be imported: SystemExit: usage"),
        ("import json\njson.loads('x')\n", "service can't be imported: JSONDecodeError: "),
        ("from meshkit import Shop\n", "service can't be imported: ImportError: cannot import"),
    ],
)
def test_a_module_that_fails_says_where(folder: Path, content: str, message: str) -> None:
    write(folder, service=content)
    shown = complaint()
    begin, _, end = message.partition("*")
    assert shown.startswith(begin)
    assert end in shown


def test_a_mistake_in_a_declaration_is_told_as_it_is(folder: Path) -> None:
    write(folder, service=shop(service="Bad_Name"))
    assert complaint().startswith("Shop: invalid service name 'Bad_Name'")


def test_a_forgotten_name_is_the_reason_that_is_given(folder: Path) -> None:
    write(folder, forgetful="from meshkit import MeshService\nclass Shop(MeshService): ...\n")
    said = 'forgetful:Shop has no name: set `name = "..."` in its class'
    for spec in ("forgetful", "forgetful:Shop"):
        assert complaint(spec) == f"{said} ({folder}/forgetful.py:2)"
    (folder / "forgetful.py").rename(folder / "service.py")
    assert complaint().endswith(f"{folder}/service.py:2)")


def test_an_application_that_is_no_service_yet_is_told_how_to_become_one(folder: Path) -> None:
    write(folder, main="from fastapi import FastAPI\nshop = FastAPI()\n")
    for spec in (None, "main"):
        assert complaint(spec) == (
            "main:shop is a FastAPI application and no service yet: add "
            '`service = MeshService.from_app(shop, name="...")` beside it'
        )


def test_an_error_in_init_says_where(folder: Path) -> None:
    init = "    def __init__(self):\n        import json\n        json.loads('x')\n"
    write(folder, service=shop() + init)
    line = (folder / "service.py").read_text().splitlines().index("        json.loads('x')") + 1
    shown = complaint()
    assert shown.startswith("service:Shop can't be made: JSONDecodeError: Expecting value")
    assert shown.endswith(f" ({folder}/service.py:{line})")


def test_a_class_with_arguments_says_what_to_do(folder: Path) -> None:
    write(folder, service=shop() + "    def __init__(self, db, *, cache, size=1): ...\n")
    assert complaint() == (
        "service:Shop needs db, cache to be made: give defaults, or write "
        f"`service = Shop(...)` in the module ({folder}/service.py:3)"
    )


OWN_SETTINGS = """
from pydantic import AnyUrl, Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from meshkit import MeshService
class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SHOP_", env_file=".env", extra="ignore")
    page_size: int = 5
    database: AnyUrl
    token: str = Field(validation_alias="THE_TOKEN")
class Shop(MeshService):
    name = "shop"
    def __init__(self):
        self.settings = Settings()
"""


def test_bad_settings_of_the_services_own_are_named_by_their_variables(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, service=OWN_SETTINGS)
    (folder / ".env").write_text("\nSHOP_PAGE_SIZE=hunter2\n")
    monkeypatch.setenv("SHOP_DATABASE", "hunter2")
    shown = complaint()
    assert shown == (
        "service:Shop can't be made: Settings: SHOP_PAGE_SIZE in .env:2 should be a whole number; "
        "SHOP_DATABASE should be a valid URL, relative URL without a base; "
        f"THE_TOKEN is not set ({folder}/service.py:13)"
    )
    assert "hunter2" not in shown
