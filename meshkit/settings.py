"""Settings: flags over ``MESHKIT_*`` variables over ``.env`` over ``[tool.meshkit]``."""

from __future__ import annotations

import difflib
import ipaddress
import logging
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)

from meshkit.env_file import EnvFile, read_env_file
from meshkit.errors import ConfigError
from meshkit.w3c import is_key

PREFIX = "MESHKIT_"
# Read elsewhere: the state folder by meshkit.state, before any settings exist.
OTHER_VARIABLES = {"MESHKIT_STATE_DIR", "MESHKIT_ENV_FILE", "MESHKIT_RELOADED"}

# What pydantic says less helpfully.
PLAINER = {
    "bool_parsing": "true or false",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "byte_size": "a number of bytes, or one with a unit such as 64MiB",
}

HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?")

Port = Annotated[int, Field(ge=0, le=65535)]
PublicPort = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Delay = Annotated[float, Field(ge=0, le=3600)]

log = logging.getLogger("meshkit")


class MeshSettings(BaseSettings):
    """What can be set from outside; each field is also the variable ``MESHKIT_<FIELD>``.

    Durations are seconds. ``load_settings`` is the way to make one whose errors are readable.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",  # a .env holds the variables of other programs too
        frozen=True,
        hide_input_in_errors=True,
        pyproject_toml_table_header=("tool", "meshkit"),
        pyproject_toml_depth=4,
    )

    service: str | None = Field(None, description="module:Class of the service to run")
    registry: str = Field(  # may hold a token
        "local://", description="registry URL, or several", repr=False
    )
    registration: bool = Field(True, description="register in the registry")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(0, description="HTTP port, 0 for any free one")
    grpc_port: Port = Field(0, description="gRPC port, 0 for any free one")
    grpc_thread: bool = Field(False, description="serve gRPC on an event loop of its own")
    advertise: Literal["auto", "docker"] = Field(
        "auto", description="docker: the host's address and the ports that Docker publishes there"
    )
    advertise_host: str | None = Field(
        None, description="address that others reach us by, or a network it is in"
    )
    advertise_port: PublicPort | None = Field(None, description="HTTP port that others call")
    advertise_grpc_port: PublicPort | None = Field(None, description="gRPC port that others call")
    tags: Annotated[tuple[str, ...], NoDecode] = Field((), description="added to the service's own")
    zone: str = Field("", description="failure domain of this instance")
    failover: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="other datacenters to call when the own one does not suffice, in order"
    )
    failover_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="of a datacenter's instances that have to be up for it to suffice"
    )
    instances: Annotated[int, Field(ge=1, le=256)] = Field(1, description="processes to run")
    reload: bool = Field(False, description="start anew when a source file changes")
    env: Literal["development", "production"] = Field("development", description="kind of place")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level"
    )
    log_format: Literal["auto", "text", "json"] = Field("auto", description="auto: json off a tty")
    access_log: bool = Field(False, description="log every request, HTTP and gRPC")
    metrics: Literal["auto", "on", "off"] = Field(
        "auto", description="serve /metrics to Prometheus; auto: when its library is installed"
    )
    metrics_port: Port | None = Field(
        None, description="port of its own for /metrics and /debug/mesh; unset: the HTTP port"
    )
    debug_endpoint: bool | None = Field(
        None, description="serve /debug/mesh; unset: in development only"
    )
    otel: Literal["auto", "on", "off"] = Field(
        "auto", description="OpenTelemetry: auto if a provider was set, on makes one"
    )
    self_probe: Literal["require", "warn", "off"] = Field(
        "require", description="call ourselves by the advertised address before registering"
    )
    check_timeout: Seconds = Field(2.0, description="limit for one health check")
    check_interval: Seconds = Field(5.0, description="pause between rounds of health checks")
    loop_lag_limit: Seconds = Field(5.0, description="an event loop stuck longer counts as down")
    drain_delay: Delay | None = Field(None, description="unset: as the registry needs")
    shutdown_timeout: Seconds = Field(28.0, description="from the signal to the end of the process")
    shedding: Literal["auto", "off"] = Field(
        "off", description="auto: refuse requests that would only wait when overloaded"
    )
    max_concurrency: Annotated[int, Field(ge=1)] | None = Field(
        None, description="requests at once that are never exceeded, HTTP and gRPC each"
    )
    max_body: Annotated[ByteSize, Field(ge=0)] = Field(
        ByteSize(16 * 1024 * 1024), description="largest HTTP body and gRPC message; 0: any"
    )
    balancer: Literal["p2c", "round_robin", "weighted", "least", "hash", "random"] = Field(
        "p2c", description="how an instance is chosen for an outgoing call"
    )
    call_timeout: Seconds = Field(10.0, description="limit for one outgoing call")
    baggage: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="keys of W3C baggage that travel on with calls, * for all"
    )

    @field_validator("registry", mode="before")
    @classmethod
    def _join(cls, value: object) -> object:
        if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
            return " ".join(value)
        return value

    @field_validator("tags", "failover", "baggage", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(tag for tag in (part.strip() for part in value.split(",")) if tag)
        return value

    @field_validator("advertise_host")
    @classmethod
    def _can_be_called(cls, value: str | None) -> str | None:
        return None if value is None else read_advertised(value)

    @field_validator("baggage")
    @classmethod
    def _are_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for key in value:
            if not is_key(key):
                raise ValueError(f"names without spaces, separated by commas; {key!r} is none")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Add ``[tool.meshkit]`` as the last source."""
        project = PyprojectTomlConfigSettingsSource(settings_cls)
        for key in project.toml_data:
            if key not in settings_cls.model_fields:
                raise ConfigError(f"unknown key {key!r} in [tool.meshkit]{_did_you_mean(key)}")
        return init_settings, env_settings, dotenv_settings, project


def load_settings(env_file: Path | None = None, **flags: Any) -> MeshSettings:
    """Read all sources. ``flags`` win, and those that are None are not given.

    Raises:
        ConfigError: a value is not usable; the message names the flag or variable it came from.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    # A platform (Heroku, Cloud Run, fastapi run) tells the port by PORT.
    if "port" not in given and not os.environ.get(PREFIX + "PORT") and os.environ.get("PORT"):
        given["port"] = os.environ["PORT"]
    if env_file is not None and not env_file.is_file():
        raise ConfigError(f"env file {env_file} does not exist")
    file = EnvFile(env_file or Path(".env"))
    try:
        file = read_env_file(file.path)
        _hint_at_typos(file)
        return MeshSettings(_env_file=file.path, **given)
    except ValidationError as error:
        raise ConfigError(_explain(error, flags, file)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"pyproject.toml can't be read: {error}") from None
    except (UnicodeDecodeError, OSError) as error:
        files = f"{file.path} or pyproject.toml"
        raise ConfigError(f"{files} can't be read: {error}") from None


def read_advertised(text: str) -> str:
    """Return a host or a network as it is written without brackets. Raises ValueError."""
    host = text.strip()
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if HOST_NAME.fullmatch(host) and not host.replace(".", "").isdigit():
        return host
    try:
        found = ipaddress.ip_interface(host)
    except ValueError:
        found = None
    if found is None or (found.ip.is_unspecified and "/" not in host):
        raise ValueError(
            f"an address, a name, or a network such as 10.0.0.0/8; {text!r} can't be called"
        )
    return host


def _explain(error: ValidationError, flags: dict[str, Any], file: EnvFile) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = str(problem["loc"][0]) if problem["loc"] else "settings"
    message = PLAINER.get(problem["type"]) or str(problem["msg"])
    message = message.removeprefix("Value error, ").removeprefix("Input should be ")
    return f"bad value for {_source(name, flags, file)}: should be {message}"


def _source(name: str, flags: dict[str, Any], file: EnvFile) -> str:
    if flags.get(name) is not None:
        return "--" + name.replace("_", "-")
    variable = PREFIX + name.upper()
    if variable in os.environ:
        return variable
    if name == "port" and os.environ.get("PORT"):
        return "PORT"
    return file.place(variable) or f"{name} in [tool.meshkit]"


def _hint_at_typos(file: EnvFile) -> None:
    known = {PREFIX + name.upper() for name in MeshSettings.model_fields} | OTHER_VARIABLES
    for variable in sorted({*os.environ, *file.lines}):
        if variable.startswith(PREFIX) and variable not in known:
            near = difflib.get_close_matches(variable, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            where = variable if variable in os.environ else file.place(variable)
            log.warning("unknown variable %s is ignored%s", where, hint)
    for variable in sorted(OTHER_VARIABLES - set(os.environ)):
        if where := file.place(variable):
            log.warning("%s is ignored: it has to be in the environment", where)


def _did_you_mean(name: str) -> str:
    near = difflib.get_close_matches(name, MeshSettings.model_fields, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
