"""Errors that a user can act on. Each carries the exit code that the command line ends with."""

from __future__ import annotations


class GmvError(Exception):
    """Something that the user must know: one or two sentences, what happened and what to do."""

    exit_code = 1


class UsageError(GmvError):
    """A parameter or a combination of them that can't be understood."""

    exit_code = 2


class PublicationRefused(GmvError):
    """Blocking checks failed: nothing was published, the last good numbers stay.

    Attributes:
        report: where the report is that a run has made of it; empty before.
    """

    exit_code = 3
    report = ""


class LakeLocked(GmvError):
    """Another run holds the lake."""

    exit_code = 4
