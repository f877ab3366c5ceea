"""``httpGet``: a text from the network, such as a cloud's word on the zone this host is in."""

from __future__ import annotations

import http.client
import logging
import threading
import time
import urllib.request

TIMEOUT = 10.0
KEPT = 60.0  # seconds; one container after the other asks for the same
LARGEST = 1 << 20

logger = logging.getLogger("meshkit.registrator")
_answers: dict[str, tuple[float, str]] = {}
_lock = threading.Lock()


def http_get(url: str) -> str:
    """Return the body of an answer, empty (and a line in the log) when there is none."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("the URL must begin with http:// or https://")
    with _lock:
        for old in [each for each, (read_at, _) in _answers.items() if _age(read_at) >= KEPT]:
            del _answers[old]
        if url not in _answers:
            text = _get(url)
            _answers[url] = (time.monotonic(), text)
        return _answers[url][1]


def _age(read_at: float) -> float:
    return time.monotonic() - read_at


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 (checked above)
            return str(answer.read(LARGEST).decode(errors="replace"))
    except (OSError, ValueError, http.client.HTTPException) as error:
        logger.warning("-tags: httpGet %s: %s", url, error)
        return ""
