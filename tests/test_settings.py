"""Where settings come from, which source wins, and what is said of a bad one."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values

from meshkit import ConfigError, MeshSettings
from meshkit.settings import OTHER_VARIABLES, PREFIX, load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and no variables of ours but the state folder."""
    for name in list(os.environ):
        if name.startswith(PREFIX) and name != "MESHKIT_STATE_DIR":
            monkeypatch.delenv(name)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def project(folder: Path, table: str) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.meshkit]\n{table}\n")


def test_nothing_needs_to_be_set() -> None:
    settings = load_settings()
    assert settings.registry == "local://"
    assert (settings.host, settings.port, settings.grpc_port) == ("127.0.0.1", 0, 0)
    assert settings.registration
    assert settings.instances == 1
    assert settings.drain_delay is None
    assert settings.shutdown_timeout == 28


def test_flags_win_over_variables_over_dotenv_over_the_project(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(folder, 'zone = "project"')
    assert load_settings().zone == "project"
    (folder / ".env").write_text("MESHKIT_ZONE=dotenv\n")
    assert load_settings().zone == "dotenv"
    monkeypatch.setenv("MESHKIT_ZONE", "variable")
    assert load_settings().zone == "variable"
    assert load_settings(zone="flag").zone == "flag"
    assert load_settings(zone=None).zone == "variable"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("service", "shop.service:Shop", "shop.service:Shop"),
        ("baggage", "tenant, user.id", ("tenant", "user.id")),
        ("baggage", "*", ("*",)),
        ("registry", "consul://127.0.0.1:8500", "consul://127.0.0.1:8500"),
        ("registration", "false", False),
        ("host", "0.0.0.0", "0.0.0.0"),
        ("port", "8000", 8000),
        ("grpc_port", "9000", 9000),
        ("grpc_thread", "true", True),
        ("advertise", "docker", "docker"),
        ("advertise_host", "10.0.0.7", "10.0.0.7"),
        ("advertise_port", "8080", 8080),
        ("advertise_grpc_port", "9090", 9090),
        ("tags", " v1, blue ,,", ("v1", "blue")),
        ("zone", "eu-1", "eu-1"),
        ("failover", "dc2, dc3", ("dc2", "dc3")),
        ("failover_share", "0.7", 0.7),
        ("instances", "4", 4),
        ("reload", "true", True),
        ("env", "production", "production"),
        ("log_level", "debug", "debug"),
        ("log_format", "json", "json"),
        ("self_probe", "off", "off"),
        ("metrics", "off", "off"),
        ("metrics_port", "9100", 9100),
        ("debug_endpoint", "true", True),
        ("check_timeout", "0.5", 0.5),
        ("access_log", "true", True),
        ("shedding", "auto", "auto"),
        ("otel", "off", "off"),
        ("max_concurrency", "100", 100),
        ("max_body", "1MiB", 1048576),
        ("check_interval", "1", 1.0),
        ("loop_lag_limit", "9", 9.0),
        ("drain_delay", "0", 0.0),
        ("shutdown_timeout", "10", 10.0),
        ("balancer", "least", "least"),
        ("call_timeout", "3", 3.0),
    ],
)
def test_each_field_is_a_variable_and_a_key_of_the_project(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    monkeypatch.setenv(PREFIX + name.upper(), text)
    assert getattr(load_settings(), name) == value
    monkeypatch.delenv(PREFIX + name.upper())
    project(folder, f'{name} = "{text}"')
    assert getattr(load_settings(), name) == value


def test_the_table_above_knows_all_fields() -> None:
    (mark,) = test_each_field_is_a_variable_and_a_key_of_the_project.pytestmark  # type: ignore[attr-defined]
    assert {row[0] for row in mark.args[1]} == set(MeshSettings.model_fields)
    assert all(field.description for field in MeshSettings.model_fields.values())


def test_a_list_of_tags_is_a_list_in_toml(folder: Path) -> None:
    project(folder, 'tags = ["v1", "blue"]')
    assert load_settings().tags == ("v1", "blue")


def test_several_registries_are_a_list_in_toml(folder: Path) -> None:
    project(folder, 'registry = ["local://", "consul://127.0.0.1:8500"]')
    assert load_settings().registry == "local:// consul://127.0.0.1:8500"
    project(folder, "registry = [1]")
    assert complaint().startswith("bad value for registry in [tool.meshkit]: should be a")


def test_the_project_is_found_from_a_folder_within_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(folder, 'zone = "project"')
    (folder / "src" / "shop").mkdir(parents=True)
    monkeypatch.chdir(folder / "src" / "shop")
    assert load_settings().zone == "project"


def test_an_env_file_is_read_instead_of_dotenv(folder: Path) -> None:
    (folder / ".env").write_text("MESHKIT_ZONE=dotenv\nMESHKIT_HOST=0.0.0.0\n")
    (folder / "staging.env").write_text("MESHKIT_ZONE=staging\nDATABASE_URL=x\n")
    settings = load_settings(folder / "staging.env")
    assert (settings.zone, settings.host) == ("staging", "127.0.0.1")


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHKIT_PORT", "")
    assert load_settings().port == 0
    monkeypatch.setenv("PORT", "8123")
    assert load_settings().port == 8123


def test_the_platforms_port_gives_way_to_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "8123")
    assert load_settings().port == 8123
    monkeypatch.setenv("MESHKIT_PORT", "8124")
    assert load_settings().port == 8124
    assert load_settings(port=8125).port == 8125
    assert load_settings(port=0).port == 0


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("10.0.0.5", "10.0.0.5"),
        ("[fd00::5]", "fd00::5"),
        ("users-1.example.com", "users-1.example.com"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3/8", "10.1.2.3/8"),
        ("::/0", "::/0"),
    ],
)
def test_hosts_that_others_can_call(written: str, read: str) -> None:
    assert load_settings(advertise_host=written).advertise_host == read


@pytest.mark.parametrize(
    "written",
    ["0.0.0.0", "::", "http://users", "users:8000", "10.0.0.0/33", "10.0.0.300", "eth 0", "[::1"],
)
def test_hosts_that_nobody_can_call(written: str) -> None:
    assert complaint(advertise_host=written).endswith(f"{written!r} can't be called")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]


def complaint(env_file: Path | None = None, **flags: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(env_file, **flags)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("MESHKIT_PORT", "http", "bad value for MESHKIT_PORT: should be a whole number"),
        ("MESHKIT_PORT", "65536", "bad value for MESHKIT_PORT: should be less than or equal to"),
        ("MESHKIT_GRPC_PORT", "-1", "bad value for MESHKIT_GRPC_PORT: should be greater than or"),
        ("PORT", "http", "bad value for PORT: should be a whole number"),
        ("MESHKIT_INSTANCES", "0", "bad value for MESHKIT_INSTANCES: should be greater than or"),
        (
            "MESHKIT_LOG_LEVEL",
            "loud",
            "bad value for MESHKIT_LOG_LEVEL: should be 'debug', 'info', 'warning' or 'error'",
        ),
        (
            "MESHKIT_ENV",
            "prod",
            "bad value for MESHKIT_ENV: should be 'development' or 'production'",
        ),
        (
            "MESHKIT_BAGGAGE",
            "user,te nant",
            "bad value for MESHKIT_BAGGAGE: should be names without",
        ),
        ("MESHKIT_ADVERTISE", "podman", "bad value for MESHKIT_ADVERTISE: should be 'auto' or 'do"),
        ("MESHKIT_ADVERTISE_PORT", "0", "bad value for MESHKIT_ADVERTISE_PORT: should be greater"),
        (
            "MESHKIT_ADVERTISE_HOST",
            "10.0.0.5:8000",
            "bad value for MESHKIT_ADVERTISE_HOST: should be an address, a name, or a network such",
        ),
        ("MESHKIT_RELOAD", "perhaps", "bad value for MESHKIT_RELOAD: should be true or false"),
        ("MESHKIT_CHECK_TIMEOUT", "2s", "bad value for MESHKIT_CHECK_TIMEOUT: should be a number"),
        ("MESHKIT_CHECK_TIMEOUT", "nan", "bad value for MESHKIT_CHECK_TIMEOUT: should be "),
    ],
)
def test_a_bad_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert complaint().startswith(message)


def test_a_bad_flag_is_named() -> None:
    assert complaint(grpc_port=70000).startswith("bad value for --grpc-port: should be less than")


def test_a_bad_value_in_a_file_is_named(folder: Path) -> None:
    project(folder, 'port = "http"')
    assert complaint().startswith("bad value for port in [tool.meshkit]: should be a whole number")


def test_a_bad_value_in_an_env_file_is_named_with_its_line(folder: Path) -> None:
    (folder / ".env").write_text("# ours\n\nDATABASE_URL=x\nMESHKIT_PORT=http\n")
    assert complaint() == "bad value for MESHKIT_PORT in .env:4: should be a whole number"
    (folder / "other.env").write_text("export meshkit_zone=a\nmeshkit_port = 70000\n")
    assert complaint(folder / "other.env").startswith(
        f"bad value for MESHKIT_PORT in {folder}/other.env:2: should be less than"
    )


def test_lines_of_an_env_file_that_say_nothing_are_told_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / ".env").write_text(
        "MESHKIT_ZONE=a\n\n  what is this\nMESHKIT_PROT=1\nMESHKIT_ENV_FILE=x\n"
    )
    with caplog.at_level(logging.WARNING):
        assert load_settings().zone == "a"
    said = [each.getMessage() for each in caplog.records]
    assert said == [
        f"{folder}/.env:3 is left out: it is not NAME=value, or a quote is not closed",
        "unknown variable MESHKIT_PROT in .env:4 is ignored; did you mean MESHKIT_PORT?",
        "MESHKIT_ENV_FILE in .env:5 is ignored: it has to be in the environment",
    ]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        dotenv_values(folder / ".env")  # as the settings of a service of their own do
    assert not caplog.records
    (folder / "their.env").write_text("A=1\n" * 41 + "A='b\n")
    with caplog.at_level(logging.WARNING):
        dotenv_values(folder / "their.env")  # whose lines we have not looked at
    assert caplog.records


def test_a_value_is_not_repeated_for_it_may_be_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHKIT_PORT", "hunter2")
    assert "hunter2" not in complaint()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("prot = 1", "unknown key 'prot' in [tool.meshkit]; did you mean 'port'?"),
        ("zzz = 1", "unknown key 'zzz' in [tool.meshkit]"),
        ("port = = 1", "pyproject.toml can't be read: Invalid value"),
    ],
)
def test_a_mistake_in_the_project_is_said(folder: Path, table: str, message: str) -> None:
    project(folder, table)
    assert complaint().startswith(message)


def test_files_that_can_not_be_read_are_said(folder: Path) -> None:
    missing = folder / "missing.env"
    assert complaint(missing) == f"env file {missing} does not exist"
    (folder / "broken.env").write_bytes(b"MESHKIT_ZONE=\xff\xfe\n")
    assert "can't be read" in complaint(folder / "broken.env")
    (folder / "pyproject.toml").write_bytes(b'[tool.meshkit]\nzone = "\xff"\n')
    assert "can't be read" in complaint()


def test_variables_that_look_like_ours_are_hinted_at(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MESHKIT_REGISTY", "consul://127.0.0.1")
    for name in OTHER_VARIABLES:
        monkeypatch.setenv(name, "x")
    with caplog.at_level(logging.WARNING, "meshkit"):
        load_settings()
    assert [each.getMessage() for each in caplog.records] == [
        "unknown variable MESHKIT_REGISTY is ignored; did you mean MESHKIT_REGISTRY?"
    ]
