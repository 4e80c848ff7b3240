"""What a step has still to take in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Unfinished:
    """The bronze runs that a step's progress lacks.

    Attributes:
        step: `silver` or `ledger`.
        runs: their ids, oldest first.
        records: how many records they brought.
        is_everything: the step has taken in nothing yet, so these are all there are.
        retractions: those of the runs that took a file out of force, or put it back.
        changed_files: sha256 of the files that they did it to.
        out_of_force: sha256 of every file that is retracted now; for the ledger, as far as silver has taken it in.
    """

    step: str
    runs: Sequence[str]
    records: int
    is_everything: bool
    retractions: Sequence[str] = ()
    changed_files: Sequence[str] = ()
    out_of_force: Sequence[str] = ()

    @property
    def arrivals(self) -> list[str]:
        """Those of the runs that brought files."""
        return [run for run in self.runs if run not in self.retractions]
