"""What has to be written and removed, compared in pure values; and that one failure is only one."""

import random
from typing import Any, cast

import pytest

from meshkit.docker import Docker
from meshkit.errors import RegistryError, RegistryUnavailable
from meshkit.model import Status
from meshkit.registrator.backends import Backend, Held
from meshkit.registrator.counters import Counters
from meshkit.registrator.options import Host, Options
from meshkit.registrator.reconcile import Desired, Reconciler, make_plan
from meshkit.registrator.record import Record
from meshkit.registrator.registrator import Registrator

CONTAINER = "c" * 64


class Shelf(Backend):
    """Keeps entries in a dictionary; refuses some, or is lost."""

    def __init__(self) -> None:
        super().__init__("shelf://", "host")
        self.entries: dict[str, Held] = {}
        self.refused: set[str] = set()
        self.lost = False

    def id_of(self, record: Record) -> str:
        return record.id

    def state_of(self, record: Record) -> Any:
        return None if record.status is Status.STARTING else (record.port, record.status)

    async def owned(self) -> dict[str, Held]:
        if self.lost:
            raise RegistryUnavailable("the shelf is lost")
        return dict(self.entries)

    async def put(self, record: Record) -> None:
        if record.id in self.refused:
            raise RegistryError(f"{record.id} is refused")
        self.entries[record.id] = Held(self.state_of(record), record.container_id[:12])

    async def remove(self, entry_id: str) -> None:
        if entry_id in self.refused:
            raise RegistryError(f"{entry_id} is refused")
        del self.entries[entry_id]


def record(
    record_id: str,
    *,
    port: int = 80,
    status: Status = Status.UP,
    container: str = CONTAINER,
    name: str = "web",
) -> Record:
    return Record(
        id=record_id,
        name="users",
        host="10.0.0.1",
        port=port,
        container_id=container,
        container_name=name,
        private_port=80,
        status=status,
    )


def desired(*records: Record, **more: Any) -> Desired:
    return Desired(records=records, **more)


async def test_whatever_was_there_it_is_right_afterwards() -> None:
    rng = random.Random(5)
    shelf = Shelf()
    reconciler = Reconciler(shelf, Counters())
    for _ in range(300):
        wanted = {
            str(number): record(
                str(number),
                port=rng.randrange(1, 4),
                status=rng.choice((Status.UP, Status.DRAINING, Status.STARTING)),
            )
            for number in rng.sample(range(8), rng.randrange(8))
        }
        if rng.random() < 0.2:
            shelf.entries.clear()  # restarted empty
        if shelf.entries and rng.random() < 0.3:
            del shelf.entries[rng.choice(sorted(shelf.entries))]  # by somebody else
        assert await reconciler.apply(desired(*wanted.values())) == []
        assert {key: held.state for key, held in shelf.entries.items()} == {
            key: shelf.state_of(each)
            for key, each in wanted.items()
            if each.status is not Status.STARTING
        }
        plan = await reconciler.plan(desired(*wanted.values()))
        assert (plan.write, plan.remove) == ((), ())


async def test_one_that_is_refused_keeps_no_other(caplog: pytest.LogCaptureFixture) -> None:
    shelf, counters = Shelf(), Counters()
    shelf.refused = {"b", "old"}
    shelf.entries = {"old": Held("x"), "gone": Held("x")}
    reconciler = Reconciler(shelf, counters)
    for _ in range(3):
        errors = await reconciler.apply(desired(record("a"), record("b"), record("c")))
        assert sorted(map(str, errors)) == ["b is refused", "old is refused"]
    assert sorted(shelf.entries) == ["a", "c", "old"]
    assert caplog.text.count("b is refused") == 1
    assert counters.errors["registry"] == 6
    assert counters.reconciled_at is None
    shelf.refused.clear()
    assert await reconciler.apply(desired(record("a"), record("b"), record("c"))) == []
    assert sorted(shelf.entries) == ["a", "b", "c"]
    assert counters.age is not None


async def test_nothing_is_removed_that_may_still_be_there() -> None:
    shelf = Shelf()
    held = {
        "missing": Held("x"),
        "kept": Held("x", "k" * 12),
        "gone": Held("x", "g" * 12),
        "undecided": Held("x"),
        "a": Held((80, Status.UP)),
    }
    records = (record("a"), record("undecided"), record("new"))
    wanted = desired(
        *records, complete=False, undecided=frozenset({"undecided"}), kept=frozenset({"k" * 12})
    )
    plan = make_plan(wanted, held, shelf)
    assert (plan.write, plan.remove) == ((record("new"),), ("gone",))
    complete = Desired(records=records, undecided=wanted.undecided, kept=wanted.kept)
    assert make_plan(complete, held, shelf).remove == ("missing", "gone")


@pytest.mark.parametrize("turned", [False, True])
async def test_one_id_of_two_containers_does_not_go_to_and_fro(
    caplog: pytest.LogCaptureFixture, *, turned: bool
) -> None:
    one = record("same", port=1, container="1" * 64, name="one")
    two = record("same", port=2, container="2" * 64, name="two")
    shelf = Shelf()
    reconciler = Reconciler(shelf, Counters())
    await reconciler.apply(desired(two))
    for _ in range(3):
        await reconciler.apply(desired(*((two, one) if turned else (one, two))))
        assert shelf.entries["same"].state == (2, Status.UP)
    assert caplog.text.count("container one is not registered as same") == 1
    leaving = record("same", port=2, container="2" * 64, name="two", status=Status.DRAINING)
    await reconciler.apply(desired(leaving, one))
    assert shelf.entries["same"].state == (1, Status.UP)


async def test_a_registry_that_is_lost_is_said_and_nothing_is_done() -> None:
    shelf, counters = Shelf(), Counters()
    reconciler = Reconciler(shelf, counters)
    await reconciler.apply(desired(record("a")))
    shelf.lost = True
    with pytest.raises(RegistryUnavailable, match="the shelf is lost"):
        await reconciler.apply(desired())
    assert not counters.registry_up
    assert list(shelf.entries) == ["a"]


async def test_what_cannot_be_withdrawn_is_an_error() -> None:
    shelf = Shelf()
    shelf.entries, shelf.refused = {"stays": Held("x"), "goes": Held("x")}, {"stays"}
    docker, host = cast("Docker", None), Host(name="host")
    registrator = Registrator(docker, shelf, Options(), host, Counters())
    with pytest.raises(RegistryError, match="stays is refused"):
        await registrator.withdraw()
    assert list(shelf.entries) == ["stays"]
