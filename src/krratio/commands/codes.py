"""What an exit code of the command line means."""

__all__ = ["FAILED", "INTERRUPTED", "OK", "WRONG_INPUT"]

OK = 0
"""Everything that was asked for was done."""

FAILED = 1
"""Something ran and failed, or could not be written."""

WRONG_INPUT = 2
"""What was given is wrong; nothing ran."""

INTERRUPTED = 130
"""Ended by Ctrl-C, a polite request to end, or a closed terminal; what was finished is kept."""
