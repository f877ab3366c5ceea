"""A plan for people, as a table, and for programs, as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from meshkit.model import Endpoint
from meshkit.registrator.backends import Backend
from meshkit.registrator.reconcile import Plan
from meshkit.registrator.record import Record

COLUMNS = ("ACTION", "ID", "SERVICE", "ADDRESS", "STATUS", "CONTAINER", "TAGS")


def render(plan: Plan, backend: Backend, *, as_json: bool) -> str:
    """Return what would be done."""
    changes = [
        *(_change("add" if each.id in plan.new else "change", each) for each in plan.write),
        *({"action": "remove", "id": entry_id} for entry_id in plan.remove),
        *(_change("refuse", each) for each in plan.twice),
    ]
    if as_json:
        return json.dumps(changes, indent=2)
    if not changes:
        return f"nothing to change: {plan.owned} entries in {backend.url} are as they should be"
    return _table(changes)


def _change(action: str, record: Record) -> dict[str, Any]:
    fields = dataclasses.asdict(record)
    fields["address"] = str(Endpoint(fields.pop("host"), fields.pop("port")))
    return {"action": action, **fields, "status": record.status.value}


def _table(changes: list[dict[str, Any]]) -> str:
    rows = [COLUMNS, *map(_row, changes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(change: dict[str, Any]) -> tuple[str, ...]:
    return (
        change["action"],
        change["id"],
        change.get("name", "-"),
        change.get("address", "-"),
        change.get("status", "-"),
        change.get("container_name", "-"),
        ",".join(change.get("tags", ())) or "-",
    )
