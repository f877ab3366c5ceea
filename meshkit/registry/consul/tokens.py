"""Where the ACL token comes from: it may change while we run, so it is asked for each request."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable

from meshkit.errors import RegistryDenied
from meshkit.registry.tokens import is_word

#: returns the token to use now; a plain function runs in a thread, a coroutine function on the loop
TokenCall = Callable[[], str | Awaitable[str]]


async def call_for_token(call: TokenCall) -> str:
    """Return the token that the function gives. Raises RegistryDenied."""
    name = getattr(call, "__qualname__", type(call).__name__)
    try:
        if inspect.iscoroutinefunction(call):
            token = await call()
        else:
            token = await asyncio.to_thread(call)
            if inspect.isawaitable(token):
                token = await token
    except Exception as error:  # noqa: BLE001 - it is the user's, and may raise anything
        # Its text is not shown: it may hold what the function works with.
        raise RegistryDenied(
            f"Consul's token function {name} failed: {type(error).__name__}"
        ) from None
    if not isinstance(token, str) or not is_word(token):
        raise RegistryDenied(f"Consul's token function {name} returned no token")
    return token


def find_token_call(target: str) -> TokenCall:
    """Import ``package.module:function``. Raises ValueError that says what is wrong with it."""
    module, colon, name = target.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise ValueError(f"should be package.module:function, not {target!r}")
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise ValueError(f"names {target}, and {module} has no {name}") from None
    except Exception as error:  # noqa: BLE001 - importing runs the user's code
        raise ValueError(f"names {target}, which can't be imported: {error!r}") from None
    if not callable(found):
        raise ValueError(f"names {target}, which is no function")  # noqa: TRY004 - one family
    call: TokenCall = found
    return call
