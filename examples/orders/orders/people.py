"""What orders asks of the users service, over either transport, and what its errors mean here."""

from __future__ import annotations

import dataclasses

import grpc
from meshkit import CallError, HttpClient

from orders.models import User
from users_api import users_pb2, users_pb2_grpc

INSTANCE = "x-meshkit-instance"  # by which every answer names the instance that gave it


class UnknownUserError(LookupError):
    """The users service knows nobody by this id."""


class UsersUnavailableError(Exception):
    """Nobody of the users service answered; a later call may do better."""


class UsersFailedError(Exception):
    """The users service answered, but with an error of its own."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A user, and the id of the instance that told of them."""

    user: User
    instance: str


async def find_over_http(users: HttpClient, user_id: int) -> Found:
    """Ask over HTTP. Raises one of the errors above."""
    try:
        answer = await users.get(f"/users/{user_id}")
    except CallError as error:
        raise UsersUnavailableError(str(error)) from error
    if answer.status_code == 404:
        raise UnknownUserError(f"no user {user_id}")
    if not answer.is_success:
        raise UsersFailedError(f"users answered {answer.status_code}")
    return Found(user=User.model_validate_json(answer.content), instance=answer.instance.id)


async def find_over_grpc(users: users_pb2_grpc.UsersStub, user_id: int) -> Found:
    """Ask over gRPC. Raises one of the errors above."""
    call = users.GetUser(users_pb2.GetUserRequest(id=user_id))
    try:
        user = await call
    except grpc.aio.AioRpcError as error:
        raise _meaning(error) from error
    return Found(
        user=User(id=user.id, name=user.name, email=user.email),
        instance=(await call.trailing_metadata())[INSTANCE],
    )


def _meaning(error: grpc.aio.AioRpcError) -> Exception:
    details = error.details() or error.code().name
    match error.code():
        case grpc.StatusCode.NOT_FOUND:
            return UnknownUserError(details)
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return UsersUnavailableError(details)
        case _:
            return UsersFailedError(f"users answered {error.code().name}: {details}")
