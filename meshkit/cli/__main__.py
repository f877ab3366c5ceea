"""``python -m meshkit.cli``."""

from meshkit.cli import main

main()
