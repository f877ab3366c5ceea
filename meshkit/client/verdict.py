"""What an HTTP answer means: for the instance that gave it, and for the call."""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime

from meshkit import identity
from meshkit.client.headers import Headers
from meshkit.client.transport import RawResponse, RawStream
from meshkit.discovery.balancing import Outcome
from meshkit.errors import WrongInstance
from meshkit.model import Instance
from meshkit.propagation import DEADLINE

MISDIRECTED = 421
UNAVAILABLE = 503
GATEWAY_TIMEOUT = 504


def judge(instance: Instance, raw: RawResponse | RawStream) -> Outcome:
    """Return what an answer says of the instance that was asked."""
    if identify(instance, raw) is not None:
        return Outcome.WRONG
    headers = raw.headers
    # A gateway may pass on the marks of whom it called; only its own are about it. One that
    # leaves may shed too; that the call was not handled matters more, and it is told again.
    if raw.status_code == UNAVAILABLE and instance.id in headers.get_list(identity.SHED):
        return Outcome.SHED
    leaving = headers.get(identity.DRAINING)
    if leaving is not None and leaving == headers.get(identity.INSTANCE):
        return Outcome.DRAINING
    if raw.status_code < 500:
        return Outcome.OK
    # It ended the call itself, a moment before its caller would have. A handler's own 504 is an
    # answer like any other, and so is one that a gateway passes on.
    if raw.status_code == GATEWAY_TIMEOUT and instance.id in headers.get_list(DEADLINE):
        return Outcome.TIMEOUT
    return Outcome.FAILED


def identify(instance: Instance, raw: RawResponse | RawStream) -> WrongInstance | None:
    """Return the error when somebody other than ``instance`` answered."""
    if not identity.proves_identity(instance.metadata):
        return None
    named = raw.headers.get(identity.INSTANCE)
    # A service that passes on another one's answer with all its headers adds its own name.
    if named == instance.id or instance.id in raw.headers.get_list(identity.INSTANCE):
        return None
    return WrongInstance(f"was answered for by {named or 'somebody who gives no name'}")


def was_refused(raw: RawResponse | RawStream) -> bool:
    """Whether somebody else answered, and has surely not handled the request."""
    return raw.status_code == MISDIRECTED and identity.INSTANCE in raw.headers


def retry_after(headers: Headers) -> float:
    """Return the seconds that an answer asks to wait; 0 when it asks for nothing readable.

    https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
    """
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return seconds if 0 < seconds < math.inf else 0.0
