"""What is wrong with a template."""

from __future__ import annotations

from meshkit.errors import ConfigError


class TemplateError(ConfigError):
    """A template is malformed, or does not fit the container it is filled with."""
