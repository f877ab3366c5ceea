"""``python -m meshkit`` is the ``meshkit`` command."""

from meshkit.cli import main

main()
