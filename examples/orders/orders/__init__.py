"""Orders: takes orders of people whom the users service knows."""

__version__ = "1.0.0"
