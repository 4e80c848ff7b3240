"""Errors that a user can act on. Each carries the exit code that the command line ends with."""

from __future__ import annotations

import traceback


class GmvError(Exception):
    """Something that the user must know: one or two sentences, what happened and what to do."""

    exit_code = 1
    shows_stack_trace = False
    """Whether IPython shows the stack trace, too, instead of the sentence alone."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows."""
        if self.shows_stack_trace:
            return traceback.format_exception(self)
        return [f"{type(self).__name__}: {self}"]


class UsageError(GmvError):
    """A parameter or a combination of them that can't be understood."""

    exit_code = 2


class PublicationRefused(GmvError):
    """Blocking checks failed: nothing was published, the last good numbers stay.

    Attributes:
        begins: the first sentence of what is told.
        report: where the report is that a run has made of it; empty before.
    """

    exit_code = 3
    begins = "Nothing was published; the last good numbers stay."
    report = ""


class LakeLocked(GmvError):
    """Another run holds the lake."""

    exit_code = 4


def is_disk_full(error: BaseException) -> bool:
    """Whether an error is that a disk has no room left: delta-rs has no type of its own for it."""
    return any(said in str(error) for said in ("No space left on device", "Disk quota exceeded"))
