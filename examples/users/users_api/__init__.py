"""Generated from users.proto; the command is in README.md."""
