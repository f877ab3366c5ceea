"""Server-sent events, read from bytes as they come.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import codecs
import dataclasses
import json
from typing import Any

from meshkit.errors import AnswerTooLarge

MOST = 16 * 1024 * 1024  # characters of one event
LONGEST_RETRY = 24 * 3600 * 1000  # milliseconds


@dataclasses.dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event.

    Attributes:
        event: its type, ``"message"`` when the server gives none.
        data: its text; several ``data`` lines are joined with line feeds.
        id: the last id that the server gave, with this event or before; ``""`` when none.
        retry: milliseconds after which to connect again, where this event says so.
    """

    event: str = "message"
    data: str = ""
    id: str = ""
    retry: int | None = None

    def json(self, **options: Any) -> Any:
        """Read the data as JSON; ``options`` as for ``json.loads``. Raises ValueError."""
        return json.loads(self.data, **options)


class EventParser:
    """Makes events of pieces of a stream, cut anywhere.

    Args:
        last_event_id: the id that events have until the server gives one.

    Attributes:
        last_event_id: of the last complete event.
        retry: milliseconds that the server asked to wait before connecting again, or None.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry: int | None = None
        self._decode = codecs.getincrementaldecoder("utf-8-sig")(errors="replace").decode
        self._after_cr = False
        self._parts: list[str] = []  # of the line that is not complete yet
        self._size = 0
        self._id = last_event_id
        self._clear()

    def _clear(self) -> None:
        self._event = ""
        self._data: list[str] = []
        self._retry: int | None = None

    @property
    def between_events(self) -> bool:
        """Whether nothing of a further event has arrived."""
        return self._size == 0

    def feed(self, piece: bytes) -> list[ServerSentEvent]:
        """Return the events that are complete with this piece.

        Raises:
            AnswerTooLarge: an event has more than 16 Mi characters.
        """
        found = []
        for line in self._lines(self._decode(piece)):
            if line:
                self._field(line)
            else:
                event = self._dispatch()
                if event is not None:
                    found.append(event)
        if self._size > MOST:
            raise AnswerTooLarge(f"sent an event of more than {MOST} characters")
        return found

    def _lines(self, text: str) -> list[str]:
        """Return the lines that are complete: they end with CR, LF or both.

        A CR ends its line at once, whether or not an LF follows: an event is not kept waiting
        for what comes after it.
        """
        if not text:
            return []
        if self._after_cr and text[0] == "\n":
            text = text[1:]
            self._after_cr = False
            if not text:
                return []
        self._after_cr = text[-1] == "\r"
        self._size += len(text)
        first, *rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._parts.append(first)
        if not rest:
            return []
        lines = ["".join(self._parts), *rest]
        self._parts = [lines.pop()]
        return lines

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id":
            if "\0" not in value:
                self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = self._retry = min(int(value[:20]), LONGEST_RETRY)

    def _dispatch(self) -> ServerSentEvent | None:
        """Return the event that an empty line completes; None when it has no data."""
        self.last_event_id = self._id
        self._size = len(self._parts[0])
        event = None
        if self._data:
            kind, data = self._event or "message", "\n".join(self._data)
            event = ServerSentEvent(kind, data, self._id, self._retry)
        self._clear()
        return event
