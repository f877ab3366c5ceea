"""A registry engine for meshkit: ``sqlite:///FILE``."""

from meshkit_sqlite.registry import SqliteRegistry, open_sqlite

__all__ = ["SqliteRegistry", "open_sqlite"]
