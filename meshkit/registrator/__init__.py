"""Registers containers that know nothing of meshkit: what Docker runs, the registry shows."""
