"""Alive means registered: the reconcile loop against a registry that forgets, fails and hangs."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator

import pytest

from meshkit.backoff import Backoff
from meshkit.errors import RegistryUnavailable
from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot, Status
from meshkit.registry import Lease, Registry, open_registry
from meshkit.registry.memory import MemoryRegistry, Store
from meshkit.runtime.registration import Registration
from tests.support.waiting import aeventually

INSTANCE = Instance(
    id="users-host-8000-abc123", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)}
)


class Moody(Registry):
    """A working registry that can be made to fail or hang, with short leases."""

    def __init__(self, name: str) -> None:
        super().__init__("moody://")
        self.inner = MemoryRegistry("memory://", name)
        self.failing = False
        self.hanging = False
        self.writes: list[tuple[str, float]] = []

    async def _mood(self, what: str) -> None:
        self.writes.append((what, time.monotonic()))
        while self.hanging:
            await asyncio.sleep(0.01)
        if self.failing:
            raise RegistryUnavailable("moody:// refused the connection")

    async def register(self, instance: Instance) -> Lease:
        await self._mood("register")
        await self.inner.register(instance)
        return Lease(instance_id=instance.id, ttl=0.3)

    async def renew(self, lease: Lease) -> None:
        await self._mood("renew")
        await self.inner.renew(lease)

    async def deregister(self, instance_id: str) -> None:
        await self._mood("deregister")
        await self.inner.deregister(instance_id)

    def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        return self.inner.watch(service)

    async def services(self) -> tuple[ServiceInfo, ...]:
        return await self.inner.services()


@pytest.fixture
def moody(request: pytest.FixtureRequest) -> Moody:
    return Moody(request.node.name)


@pytest.fixture
def content(moody: Moody) -> Store:
    return moody.inner._store


async def begin(moody: Moody, *, lag_limit: float = 5.0) -> Registration:
    registration = Registration(lambda: moody, INSTANCE, lag_limit=lag_limit)
    registration.start()
    await registration.first(5)
    return registration


async def test_it_is_registered_renewed_and_gone_after_stop(moody: Moody, content: Store) -> None:
    registration = await begin(moody)
    assert list(content.instances) == [INSTANCE.id]
    assert registration.state == "registered"

    async def renewed() -> bool:
        return any(what == "renew" for what, _ in moody.writes)

    await aeventually(renewed)
    await registration.stop()
    assert not content.instances
    assert registration.state == "not registered"
    assert INSTANCE.service not in " ".join(each.name for each in threading.enumerate())


async def test_a_forgotten_registration_is_made_anew(moody: Moody, content: Store) -> None:
    registration = await begin(moody)
    content.clear()

    async def back() -> bool:
        return bool(content.instances)

    await aeventually(back, within=5)
    await registration.stop()


async def test_a_loss_that_is_told_after_a_failure_costs_no_second_pause(
    moody: Moody, content: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = iter([0.01])
    monkeypatch.setattr(Backoff, "next", lambda _: next(pauses, 3600.0))
    registration = await begin(moody)

    original = moody.renew

    async def renew(lease: Lease) -> None:
        content.clear()
        moody.renew = original  # type: ignore[method-assign]
        raise RegistryUnavailable("moody:// refused the connection")

    moody.renew = renew  # type: ignore[method-assign]

    async def back() -> bool:
        return moody.renew == original and bool(content.instances)

    await aeventually(back)
    await registration.stop()


async def test_nothing_is_written_after_stop(moody: Moody, content: Store) -> None:
    registration = await begin(moody)
    await registration.stop()
    count = len(moody.writes)
    content.clear()
    await asyncio.sleep(0.5)
    assert len(moody.writes) == count
    assert moody.writes[-1][0] == "deregister"
    await registration.stop()
    assert len(moody.writes) == count


async def test_it_never_gives_up_and_says_so_once(
    moody: Moody, content: Store, caplog: pytest.LogCaptureFixture
) -> None:
    moody.failing = True
    registration = Registration(lambda: moody, INSTANCE, lag_limit=5)
    with caplog.at_level(logging.INFO, "meshkit"):
        registration.start()
        assert not await registration.first(1.5)
        assert registration.state == "retrying: moody:// refused the connection"
        assert len(moody.writes) > 2
        moody.failing = False
        assert await registration.first(5)
    warnings = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert [each.getMessage() for each in warnings] == [
        "can't register with moody://: moody:// refused the connection; serving and retrying"
    ]
    assert list(content.instances) == [INSTANCE.id]
    await registration.stop()


async def test_retries_back_off(moody: Moody) -> None:
    moody.failing = True
    registration = Registration(lambda: moody, INSTANCE, lag_limit=5)
    registration.start()
    await asyncio.sleep(2)
    times = [at for _, at in moody.writes]
    assert 2 < len(times) < 12
    await registration.stop()


async def test_stop_does_not_wait_for_a_hung_registry(moody: Moody) -> None:
    registration = await begin(moody)
    moody.hanging = True
    began = time.monotonic()
    await registration.stop()
    assert time.monotonic() - began < 6  # limits of 0.7 s and 2 s, on a busy machine


async def test_stop_right_after_start_is_safe(moody: Moody, content: Store) -> None:
    registration = Registration(lambda: moody, INSTANCE, lag_limit=5)
    registration.start()
    await registration.stop()
    assert not content.instances


async def test_health_decides_the_status(moody: Moody, content: Store) -> None:
    registration = await begin(moody)

    async def status(wanted: Status) -> None:
        async def shown() -> bool:
            return content.instances[INSTANCE.id].status is wanted

        await aeventually(shown, within=5)

    registration.show(healthy=False)
    await status(Status.DOWN)
    registration.show(healthy=True)
    await status(Status.UP)
    await registration.stop()


async def test_a_blocked_loop_keeps_its_lease_and_is_shown_as_down(
    moody: Moody, content: Store
) -> None:
    registration = await begin(moody, lag_limit=0.5)
    seen: list[Status] = []
    renewals = len(moody.writes)

    def look() -> None:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            seen.append(content.instances[INSTANCE.id].status)
            time.sleep(0.02)

    watcher = threading.Thread(target=look)
    watcher.start()
    time.sleep(2.5)
    assert len(moody.writes) > renewals + 3
    await asyncio.to_thread(watcher.join)
    assert Status.DOWN in seen
    assert INSTANCE.id in content.instances

    async def up() -> bool:
        return content.instances[INSTANCE.id].status is Status.UP

    await aeventually(up, within=5)
    await registration.stop()


async def test_an_unexpected_error_is_retried_too(moody: Moody, content: Store) -> None:
    class Broken(Exception):
        pass

    original = moody.inner.register
    failures = 2

    async def register(instance: Instance) -> Lease:
        nonlocal failures
        if failures:
            failures -= 1
            raise Broken("a bug in an engine")
        return await original(instance)

    moody.inner.register = register  # type: ignore[method-assign]
    registration = await begin(moody)
    assert list(content.instances) == [INSTANCE.id]
    await registration.stop()


async def test_a_registration_that_nobody_sees_is_warned_of(
    moody: Moody, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshkit.runtime.registration.CONFIRM_LIMIT", 0.3)
    blind = Moody("another store, as when servers refuse what the agent accepted")
    moody.watch = blind.watch  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING, "meshkit"):
        registration = await begin(moody)

        async def warned() -> bool:
            return "accepted users-host-8000-abc123 but does not list it" in caplog.text

        await aeventually(warned)
    await registration.stop()


async def test_one_that_leaves_is_not_missed(
    moody: Moody, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshkit.runtime.registration.CONFIRM_LIMIT", 0.5)

    async def nobody(service: str) -> Snapshot:
        return Snapshot(service=service, instances=())

    monkeypatch.setattr(moody, "instances", nobody)
    registration = await begin(moody)
    moody.hanging = True  # so that leaving lasts longer than the confirmation would
    await registration.stop()
    assert "could not deregister" in caplog.text
    assert "does not list it" not in caplog.text


async def test_a_write_whose_answer_was_lost_is_undone(moody: Moody, content: Store) -> None:
    original = moody.register

    async def register(instance: Instance) -> Lease:
        await original(instance)
        raise RegistryUnavailable("the answer was lost")

    moody.register = register  # type: ignore[method-assign]
    registration = Registration(lambda: moody, INSTANCE, lag_limit=5)
    registration.start()
    assert not await registration.first(0.5)
    assert list(content.instances) == [INSTANCE.id]
    await registration.stop()
    assert not content.instances


@pytest.mark.parametrize("undone", [True, False])
async def test_what_may_be_left_behind_is_said_and_nothing_else(
    moody: Moody, caplog: pytest.LogCaptureFixture, *, undone: bool
) -> None:
    async def fail(_: object) -> Lease:
        raise RegistryUnavailable("moody:// is away", undone=undone)

    moody.register = moody.deregister = fail  # type: ignore[method-assign, assignment]
    registration = Registration(lambda: moody, INSTANCE, lag_limit=5)
    registration.start()
    await aeventually(lambda: failed(registration))
    await registration.stop()
    assert caplog.text.count("can't register") == 1
    assert ("could not deregister" in caplog.text) is not undone


@pytest.mark.parametrize("scheme", ["consul", "etcd", "zookeeper"])
@pytest.mark.parametrize("host", ["no-such-host.invalid", "127.0.0.1:1"])
async def test_a_registry_that_never_was_there_keeps_nothing(
    scheme: str, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    registration = Registration(
        lambda: open_registry(f"{scheme}://{host}"), INSTANCE, lag_limit=5.0
    )
    registration.start()
    await aeventually(lambda: failed(registration), within=30)
    await registration.stop()
    assert "could not deregister" not in caplog.text


async def failed(registration: Registration) -> bool:
    return registration.state.startswith("retrying")
