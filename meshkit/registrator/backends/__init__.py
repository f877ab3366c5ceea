"""Where records are kept: one file for each way in which a registry can hold them."""

from meshkit.registrator.backends.base import Backend, Held

__all__ = ["Backend", "Held"]
