"""``local://`` against a model of it, with real processes as owners."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from meshkit.registry import open_registry
from tests.registry.processes import Nursery

OWNERS = st.integers(0, 2)
WEIGHTS = st.integers(1, 65535)
NAMES = st.integers(0, 2)
GENERATION = itertools.count()


class LocalMachine(RuleBasedStateMachine):
    """Three processes, each with up to three instances of two services."""

    nursery: ClassVar[Nursery]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="meshkit-test-"))
        self.url = f"local://?dir={self.folder}"
        self.reader = open_registry(self.url)
        self.owners = [self.spawn() for _ in range(3)]
        self.model: dict[str, dict[str, tuple[str, int]]] = {"users": {}, "users-admin": {}}

    def spawn(self) -> str:
        name = f"w{next(GENERATION)}"
        self.nursery.spawn(name, self.url)
        return name

    @rule(
        owner=OWNERS, name=NAMES, weight=WEIGHTS, service=st.sampled_from(["users", "users-admin"])
    )
    def register(self, owner: int, name: int, weight: int, service: str) -> None:
        """Anew, again, or moved to the other service."""
        instance_id = f"{self.owners[owner]}-{name}"
        assert (
            self.nursery.tell(self.owners[owner], "register", service, instance_id, weight) == "ok"
        )
        for instances in self.model.values():
            instances.pop(instance_id, None)
        self.model[service][instance_id] = self.owners[owner], weight

    @rule(owner=OWNERS, name=NAMES)
    def deregister(self, owner: int, name: int) -> None:
        instance_id = f"{self.owners[owner]}-{name}"
        assert self.nursery.tell(self.owners[owner], "deregister", instance_id) == "ok"
        for instances in self.model.values():
            instances.pop(instance_id, None)

    @rule(owner=OWNERS, name=NAMES)
    def renew(self, owner: int, name: int) -> None:
        instance_id = f"{self.owners[owner]}-{name}"
        answer = self.nursery.tell(self.owners[owner], "renew", instance_id)
        known = any(instance_id in instances for instances in self.model.values())
        assert (answer == "ok") if known else answer.startswith("LeaseLost")

    @rule(owner=OWNERS)
    def kill(self, owner: int) -> None:
        self.nursery.kill(self.owners[owner])
        for instances in self.model.values():
            for instance_id in [
                each for each in instances if instances[each][0] == self.owners[owner]
            ]:
                del instances[instance_id]
        self.owners[owner] = self.spawn()

    @precondition(lambda self: any(self.model.values()))
    @rule(deep=st.booleans())
    def wipe(self, *, deep: bool) -> None:
        shutil.rmtree(self.folder if deep else self.folder / "default")
        for instances in self.model.values():
            instances.clear()

    @invariant()
    def reader_sees_the_model(self) -> None:
        for service, expected in self.model.items():
            snapshot = asyncio.run(self.reader.instances(service))
            found = {each.id: each.weight for each in snapshot.instances}
            assert found == {each: weight for each, (_, weight) in expected.items()}
            assert [
                each.name for each in sorted((self.folder / "default" / service).iterdir())
            ] == [f"{each}{suffix}" for each in sorted(expected) for suffix in (".json", ".lock")]
        services = asyncio.run(self.reader.services())
        assert {each.name: each.instances for each in services} == {
            service: len(instances) for service, instances in self.model.items() if instances
        }

    def teardown(self) -> None:
        for owner in self.owners:
            self.nursery.kill(owner)
        shutil.rmtree(self.folder)


def test_local_against_a_model(nursery: Nursery) -> None:
    LocalMachine.nursery = nursery
    run_state_machine_as_test(
        LocalMachine,
        settings=settings(
            max_examples=8,
            stateful_step_count=20,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
