import pytest
from meshkit import Mesh

ANN = {"name": "Ann", "email": "ann@example.com"}


async def test_a_user_goes_through_its_whole_life(mesh: Mesh) -> None:
    users = mesh.http("users")
    created = await users.post("/users", json=ANN)
    assert created.status_code == 201
    path = created.headers["location"]
    assert created.json() == {"id": 6, **ANN}
    assert (await users.get(path)).json() == created.json()

    replaced = await users.put(path, json={**ANN, "name": "Anna"})
    assert replaced.json() == {"id": 6, **ANN, "name": "Anna"}

    assert (await users.delete(path)).status_code == 204
    gone = await users.get(path)
    assert (gone.status_code, gone.json()) == (404, {"detail": "no user 6"})


async def test_seeded_users_are_there(mesh: Mesh) -> None:
    user = (await mesh.http("users").get("/users/5")).json()
    assert user == {"id": 5, "name": "User 5", "email": "user5@example.com"}


async def test_pages_follow_the_cursor(mesh: Mesh) -> None:
    users = mesh.http("users")
    first = (await users.get("/users", params={"limit": 3})).json()
    assert [user["id"] for user in first["users"]] == [1, 2, 3]
    last = (await users.get("/users", params={"cursor": first["next_cursor"]})).json()
    assert [user["id"] for user in last["users"]] == [4, 5]
    assert last["next_cursor"] is None


async def test_an_email_in_use_is_a_conflict(mesh: Mesh) -> None:
    users = mesh.http("users")
    taken = {"name": "Eve", "email": "USER1@example.com"}
    for answer in (await users.post("/users", json=taken), await users.put("/users/2", json=taken)):
        assert answer.status_code == 409
        assert answer.json() == {"detail": "user1@example.com belongs to another user"}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_an_unknown_user_is_not_found(mesh: Mesh, method: str) -> None:
    body = ANN if method == "PUT" else None
    answer = await mesh.http("users").request(method, "/users/404", json=body)
    assert (answer.status_code, answer.json()) == (404, {"detail": "no user 404"})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "Ann"},
        {"name": " ", "email": "ann@example.com"},
        {"name": "Ann", "email": "nowhere"},
        {**ANN, "id": 7},
    ],
)
async def test_bad_input_is_refused(mesh: Mesh, body: dict[str, object]) -> None:
    answer = await mesh.http("users").post("/users", json=body)
    assert answer.status_code == 422


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 101}, {"cursor": -1}])
async def test_bad_pages_are_refused(mesh: Mesh, params: dict[str, int]) -> None:
    assert (await mesh.http("users").get("/users", params=params)).status_code == 422


async def test_the_instance_is_ready(mesh: Mesh) -> None:
    assert len((await mesh.instances("users")).up) == 1
    assert (await mesh.http("users").get("/health/ready")).status_code == 200
