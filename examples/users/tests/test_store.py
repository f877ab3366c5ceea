import pytest
from pydantic import ValidationError

from users.models import User, UserInput
from users.store import DuplicateEmailError, UnknownUserError, UserStore


def ann(email: str = "ann@example.com") -> UserInput:
    return UserInput(name="Ann", email=email)


async def test_a_user_is_stored_read_changed_and_removed() -> None:
    store = UserStore()
    assert await store.add(ann()) == User(id=1, name="Ann", email="ann@example.com")
    await store.replace(1, ann("ann@example.org"))
    assert (await store.get(1)).email == "ann@example.org"
    await store.remove(1)
    with pytest.raises(UnknownUserError, match="no user 1"):
        await store.get(1)
    await store.check()
    assert len(store) == 0


async def test_ids_are_never_given_twice() -> None:
    store = UserStore()
    await store.remove((await store.add(ann())).id)
    assert (await store.add(ann())).id == 2


async def test_an_email_belongs_to_one_user() -> None:
    store = UserStore()
    await store.add(ann())
    bob = await store.add(ann("bob@example.com"))
    with pytest.raises(DuplicateEmailError, match=r"ann@example\.com belongs to another user"):
        await store.add(ann())
    with pytest.raises(DuplicateEmailError):
        await store.replace(bob.id, ann())
    assert await store.get(bob.id) == bob


async def test_a_user_may_keep_its_own_email_and_a_freed_one_can_be_taken() -> None:
    store = UserStore()
    await store.add(ann())
    await store.replace(1, UserInput(name="Anna", email="ann@example.com"))
    await store.replace(1, ann("new@example.com"))
    assert (await store.add(ann())).id == 2


async def test_an_unknown_user_is_not_changed() -> None:
    store = UserStore()
    with pytest.raises(UnknownUserError):
        await store.replace(7, ann())
    with pytest.raises(UnknownUserError):
        await store.remove(7)
    await store.check()
    assert (await store.add(ann())).id == 1


async def test_pages_join_to_the_whole_list() -> None:
    store = UserStore()
    await store.seed(7)
    await store.remove(4)
    ids: list[int] = []
    cursor: int | None = 0
    while cursor is not None:
        page = await store.page(cursor=cursor, limit=3)
        ids += [user.id for user in page.users]
        cursor = page.next_cursor
    assert ids == [1, 2, 3, 5, 6, 7]
    assert (await store.page(cursor=3, limit=3)).next_cursor is None


async def test_an_empty_store_is_one_empty_page() -> None:
    page = await UserStore().page(cursor=0, limit=5)
    assert (page.users, page.next_cursor) == ([], None)


async def test_every_instance_is_seeded_alike() -> None:
    first, second = UserStore(), UserStore()
    await first.seed(5)
    await second.seed(5)
    assert await first.page(cursor=0, limit=9) == await second.page(cursor=0, limit=9)


@pytest.mark.parametrize(
    "email",
    ["a@b.co", "first.last+tag@mail.example.com", "o'brien@example.org", "  Ann@Example.COM "],
)
def test_email_addresses_in_use_are_accepted(email: str) -> None:
    assert ann(email).email == email.strip().lower()


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ann",
        "ann@",
        "@example.com",
        "ann@localhost",
        "ann@@example.com",
        "ann@-example.com",
        "ann@example..com",
        ".ann@example.com",
        "a..b@example.com",
        "ann @example.com",
        "ann@example.com\n.evil",
        "a" * 65 + "@example.com",
        "ann@" + "x" * 64 + ".com",
        "ann@" + "sixty.chars." * 25 + "com",
    ],
)
def test_what_is_no_email_address_is_refused(email: str) -> None:
    with pytest.raises(ValidationError, match="is not an email address"):
        ann(email)


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "Ann\x00", "Ann\nLee"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        UserInput(name=name, email="ann@example.com")


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        UserInput.model_validate({"name": "Ann", "email": "a@b.co", "admin": True})
