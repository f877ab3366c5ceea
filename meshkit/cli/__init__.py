"""The `meshkit` command."""
