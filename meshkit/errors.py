"""Every error that meshkit raises.

    MeshError
    ├── ConfigError              the user can mend it: a setting, a name, a URL, a declaration
    │   ├── RegistryUrlError     malformed registry URL or unknown scheme
    │   └── MissingExtraError    an optional dependency is not installed
    ├── StartError               the service could not start
    │   └── BindError            a port is taken or an address is not ours
    ├── RegistryError            the registry answered with an error
    │   ├── RegistryUnavailable  it did not answer: down, unreachable, no leader
    │   ├── RegistryDenied       it refused: token, ACL, certificate
    │   ├── LeaseLost            it no longer knows this registration
    │   └── Unsupported          this kind of registry can't do that at all
    └── CallError                a call to another service failed
        ├── NoInstances          nobody to call
        ├── ConnectError         the request surely never left this process
        ├── ConnectionLost       the connection broke after the request may have left
        │   └── WebSocketClosed  a WebSocket was closed, or broke
        ├── WrongInstance        somebody else answered at this address
        ├── AnswerTooLarge       the answer has more bytes than the client allows
        ├── CallTimeout          no answer in time
        ├── BreakerOpen          not called: too many calls to this service failed
        ├── BulkheadFull         not called: too many calls to this service are under way
        └── HTTPStatusError      raised by ``raise_for_status()``

Each message is one line that says what failed, where, and what to do. ``exit_code`` is what
the command line ends with when the error reaches it.
"""

from __future__ import annotations

from typing import Any, ClassVar


class MeshError(Exception):
    """Base of all errors raised by meshkit."""

    exit_code: ClassVar[int] = 1


class ConfigError(MeshError):
    """Something the user wrote is not usable: a setting, a name, a URL or a declaration."""


class RegistryUrlError(ConfigError):
    """The registry URL is malformed or its scheme is unknown."""


class MissingExtraError(ConfigError):
    """An optional dependency is needed and not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional dependency: pip install 'meshkit[{extra}]'")
        self.extra = extra


class StartError(MeshError):
    """The service could not start."""

    exit_code = 3


class BindError(StartError):
    """A listening address could not be bound."""


class RegistryError(MeshError):
    """The registry answered with an error.

    Attributes:
        undone: True when what was asked for has surely not been done; False when nobody knows.
    """

    exit_code = 4

    def __init__(self, *args: object, undone: bool = False) -> None:
        super().__init__(*args)
        self.undone = undone


class RegistryUnavailable(RegistryError):
    """The registry could not be reached, or has no leader."""


class RegistryDenied(RegistryError):
    """The registry refused: a wrong token, a missing permission or a bad certificate."""

    def __init__(self, *args: object, undone: bool = True) -> None:
        super().__init__(*args, undone=undone)


class LeaseLost(RegistryError):
    """The registry no longer knows this registration: register anew."""


class Unsupported(RegistryError):
    """A registry of this kind can't do that, however healthy it is: choose another one."""

    exit_code = 1

    def __init__(self, *args: object, undone: bool = True) -> None:
        super().__init__(*args, undone=undone)


class CallError(MeshError):
    """A call to another service failed.

    Attributes:
        final: the call had its chances: a service that fails because of it tells its own callers
            not to repeat theirs, which would multiply the load down here.
    """

    final = True


class NoInstances(CallError):
    """No instance of the service is known or left to try."""

    final = False


class ConnectError(CallError):
    """The request surely never left this process (connection refused, no route)."""

    final = False


class ConnectionLost(CallError):
    """The connection broke; the request may have had an effect."""


class WebSocketClosed(ConnectionLost):
    """A WebSocket was closed by the other side, or broke.

    Attributes:
        code: of https://www.rfc-editor.org/rfc/rfc6455#section-7.4; 1006 when it broke.
        reason: what the other side gave, or ``""``.
    """

    def __init__(self, message: str, *, code: int = 1006, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason

    @property
    def leaving(self) -> bool:
        """Whether the instance is stopping (1001, 1012): open another WebSocket at once."""
        return self.code in (1001, 1012)


class WrongInstance(CallError):
    """The address was answered by another service or instance, as after a reused port."""


class AnswerTooLarge(CallError):
    """The answer has more bytes than the client allows; the request was handled."""


class CallTimeout(CallError, TimeoutError):
    """No answer within the call's time limit."""


class BreakerOpen(CallError):
    """The call was not made, as too many calls to the service failed lately."""


class BulkheadFull(CallError):
    """The call was not made, as too many calls to the service are under way."""

    final = False


class HTTPStatusError(CallError):
    """An answer that is not 2xx, raised by ``Response.raise_for_status()``.

    Attributes:
        status_code: the answer's status.
        response: the answer itself, a :class:`meshkit.Response`.
    """

    def __init__(self, message: str, *, status_code: int, response: Any = None) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.response = response
