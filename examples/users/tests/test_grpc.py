import grpc
import pytest
from meshkit import Mesh

from users_api import users_pb2, users_pb2_grpc


async def test_a_created_user_is_found_over_both_transports(mesh: Mesh) -> None:
    stub = mesh.grpc(users_pb2_grpc.UsersStub, "users")
    request = users_pb2.CreateUserRequest(name=" Ann ", email="Ann@Example.com")
    created = await stub.CreateUser(request)
    assert created == users_pb2.User(id=6, name="Ann", email="ann@example.com")
    assert await stub.GetUser(users_pb2.GetUserRequest(id=6)) == created
    over_http = (await mesh.http("users").get("/users/6")).json()
    assert over_http == {"id": 6, "name": "Ann", "email": "ann@example.com"}


async def test_all_users_are_streamed(mesh: Mesh) -> None:
    stub = mesh.grpc(users_pb2_grpc.UsersStub, "users")
    assert [user.id async for user in stub.ListUsers(users_pb2.ListUsersRequest())] == [
        *range(1, 6)
    ]
    rest = stub.ListUsers(users_pb2.ListUsersRequest(after_id=3))
    assert [user.id async for user in rest] == [4, 5]


@pytest.mark.parametrize(
    ("method", "request_", "code", "details"),
    [
        ("GetUser", users_pb2.GetUserRequest(id=404), grpc.StatusCode.NOT_FOUND, "no user 404"),
        (
            "CreateUser",
            users_pb2.CreateUserRequest(name="Eve", email="user1@example.com"),
            grpc.StatusCode.ALREADY_EXISTS,
            "user1@example.com belongs to another user",
        ),
        (
            "CreateUser",
            users_pb2.CreateUserRequest(name="Eve", email="nowhere"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "email: is not an email address",
        ),
    ],
)
async def test_errors_have_their_status(
    mesh: Mesh, method: str, request_: object, code: grpc.StatusCode, details: str
) -> None:
    stub = mesh.grpc(users_pb2_grpc.UsersStub, "users")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(request_)
    assert (caught.value.code(), caught.value.details()) == (code, details)


async def test_a_negative_position_is_refused(mesh: Mesh) -> None:
    stub = mesh.grpc(users_pb2_grpc.UsersStub, "users")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(stub.ListUsers(users_pb2.ListUsersRequest(after_id=-1))))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
