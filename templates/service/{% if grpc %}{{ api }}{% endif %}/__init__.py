"""Generated from proto/; the command is in README.md."""
