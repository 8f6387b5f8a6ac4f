"""Exit statuses of `refcore`."""

FAILED = 1
"""A command that failed."""
MISUSED = 2
"""A wrong command line."""
INTERRUPTED = 130
"""Ctrl-C, as a shell gives it."""
TERMINATED = 143
"""SIGTERM, as a shell gives it."""
