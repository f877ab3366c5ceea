"""The fault matrix: one suite of faults, run on every engine against real servers."""
