"""``consul://``: services of the local agent in Registrator's form, checked by Consul itself."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from meshkit.errors import RegistryError
from meshkit.model import METADATA_KEY, METADATA_VALUE_LENGTH, Status
from meshkit.registrator.backends.base import Backend, Held
from meshkit.registrator.backends.consul_checks import CONTAINER, checks_of, container_check_id
from meshkit.registrator.record import Record
from meshkit.registry.consul import codec, failures
from meshkit.registry.consul.engine import DEREGISTER, REGISTER, UNKNOWN
from meshkit.registry.consul.transport import Answer, Transport

# Whose an entry is, and what Consul does not give back of it.
OWNER = "meshkit-registrator"
CONTAINER_ID = "meshkit-container"
CHECKS = "meshkit-checks"
OWN = (OWNER, CONTAINER_ID, CHECKS, codec.STATUS)
PAIRS = 64 - len(OWN)  # https://developer.hashicorp.com/consul/api-docs/agent/service#meta
COMPARED = ("Name", "Address", "Port", "Tags", "Meta")


class ConsulServices(Backend):
    """Registers with an agent, whose anti-entropy carries the rest.

    The container's own state is a check of its own beside the one that it asks for. So every
    reader of Consul sees a draining or unhealthy container as critical, and meshkit's own sees
    which of the two it is.

    Args:
        url: without secrets.
        owner: our host.
        transport: to the agent.
        adopt: whether entries without a mark, but in Registrator's form of ids and with our host's
            name, are ours too: what Registrator has left behind.
    """

    runs_checks = True

    def __init__(self, url: str, owner: str, transport: Transport, *, adopt: bool = False) -> None:
        super().__init__(url, owner)
        self._transport = transport
        self._adopted = re.compile(rf"{re.escape(self.host)}:[^:]+:\d+(:udp)?") if adopt else None
        self._foreign: dict[str, str] = {}  # ids that other registrators have marked as theirs

    def id_of(self, record: Record) -> str:
        return record.id

    def state_of(self, record: Record) -> Any:
        return _state(self._encode(record), record.status is Status.UP)

    async def owned(self) -> dict[str, Held]:
        services = await self._read("/v1/agent/services")
        checks = await self._read("/v1/agent/checks")
        found: dict[str, Held] = {}
        self._foreign.clear()
        try:
            for entry_id, service in services.items():
                meta = service.get("Meta") or {}
                mark = meta.get(OWNER, "")
                if mark == self.owner or self._is_adopted(entry_id, mark):
                    check = checks.get(container_check_id(entry_id)) or {}
                    passing = check.get("Status") == "passing"
                    # As "Name" it is registered, as "Service" it is read.
                    seen = {**service, "Name": service["Service"]}
                    found[entry_id] = Held(_state(seen, passing), meta.get(CONTAINER_ID, ""))
                elif mark:
                    self._foreign[entry_id] = mark
        except (AttributeError, KeyError, TypeError):
            request = "GET /v1/agent/services"
            raise failures.not_consul(self._transport.address, request=request) from None
        return found

    async def put(self, record: Record) -> None:
        if rival := self._foreign.get(record.id):
            raise RegistryError(
                f"{record.id} of container {record.container_name} is registered with {self.url} "
                f"by the registrator of {rival}: give each a SERVICE_ID of its own"
            )
        body = self._encode(record) | {"Checks": checks_of(record)}
        replace = (("replace-existing-checks", "true"),)
        async with self._transport.within():
            answer = await self._transport.write(REGISTER, replace, body=json.dumps(body).encode())
            self._expect_success(answer, f"the registration of {record.id}", record)
            # A check that is known already keeps its old status.
            verb = "pass" if record.status is Status.UP else "fail"
            path = f"/v1/agent/check/{verb}/{container_check_id(record.id)}"
            answer = await self._transport.write(path, (("note", str(record.status)),))
            self._expect_success(answer, f"PUT {path}")

    async def remove(self, entry_id: str) -> None:
        path = f"{DEREGISTER}/{entry_id}"
        answer = await self._transport.write(path)
        if answer.status not in (200, 404) and UNKNOWN not in answer.body:
            raise self._transport.error(answer, f"PUT {path}")

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _encode(self, record: Record) -> dict[str, Any]:
        own = {OWNER: self.owner, CONTAINER_ID: record.container_id[:12]}
        if record.status is not Status.UP:
            own[codec.STATUS] = record.status.value
        if record.check is not None:
            text = json.dumps(checks_of(record), sort_keys=True)
            own[CHECKS] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return {
            "ID": record.id,
            "Name": record.name,
            "Address": record.host,
            "Port": record.port,
            "Tags": list(record.tags),
            "Meta": fitting(record.attributes) | own,
        }

    def _is_adopted(self, entry_id: str, mark: str) -> bool:
        return self._adopted is not None and not mark and bool(self._adopted.fullmatch(entry_id))

    async def _read(self, path: str) -> Mapping[str, Any]:
        answer = await self._transport.read(path)
        if answer.status != 200:
            raise self._transport.error(answer, f"GET {path}")
        try:
            found = json.loads(answer.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise failures.not_consul(self._transport.address, request=f"GET {path}")
        return found

    def _expect_success(self, answer: Answer, request: str, record: Record | None = None) -> None:
        if answer.status == 200:
            return
        if "Scripts are disabled" in answer.body and record is not None:
            raise RegistryError(
                f"container {record.container_name} asks for a check by a command, and Consul at "
                f"{self._transport.address} runs none: start it with -enable-script-checks"
            )
        raise self._transport.error(answer, request)


def fitting(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes that Consul takes as meta; one that does not fit fails them all."""
    fit = {
        name: value
        for name, value in attributes.items()
        if METADATA_KEY.fullmatch(name)
        and name not in OWN
        and len(value.encode()) <= METADATA_VALUE_LENGTH
    }
    return dict(sorted(fit.items())[:PAIRS])


def _state(service: Mapping[str, Any], passing: bool) -> Any:  # noqa: FBT001
    compared = {name: service[name] for name in COMPARED}
    compared["Tags"] = list(compared["Tags"] or ())
    compared["Meta"] = dict(compared["Meta"] or {})
    return compared | {CONTAINER: passing}
