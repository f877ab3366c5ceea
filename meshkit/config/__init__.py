"""Dynamic configuration: a pydantic model whose values come from the registry, and follow it.

One key per field under ``config/<name>/``, read as pydantic-settings reads environment variables:
``config/orders/max_items`` = ``20``. :mod:`.fields` knows which key is which field, :mod:`.layers`
makes a model of what is found, :mod:`.live` follows the registry, and :mod:`.declared` is how a
service says that it wants one.
"""
