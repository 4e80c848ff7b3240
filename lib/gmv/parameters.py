"""What a notebook can be told, and how it is read: the same in a notebook's parameters and on the command line."""

from __future__ import annotations

import ast
import datetime as dt
from typing import Any

from gmv.errors import UsageError
from gmv.settings import DATE

REREAD = "reread"
ACCEPTING = ("accept", "because")

ALL = (
    "start_date",
    "end_date",
    "as_of_date",
    "lake",
    "landing",
    "runs_dir",
    "run_id",
    REREAD,
    *ACCEPTING,
)
OF_ONE = {"01_bronze": (REREAD,), "03_gold": ACCEPTING}
"""By notebook, the parameters that no other has."""


def parse_date(name: str, text: object) -> dt.date | None:
    """The date of `YYYY-MM-DD`; None for an empty text.

    Raises:
        UsageError: naming the parameter and its value.
    """
    if text is None or text == "":
        return None
    if isinstance(text, str) and DATE.fullmatch(text):
        try:
            return dt.date.fromisoformat(text)
        except ValueError:
            pass
    raise UsageError(f"{name}: {text!r} is no date; write it as YYYY-MM-DD.")


def parse_text(value: object) -> str:
    """The text, also of a number, such as papermill makes of a ticket's; an empty one for None."""
    return "" if value is None else str(value)


def parse_flag(name: str, value: object) -> bool:
    """True of `True`, False of `False` or an empty text; papermill's `-r` brings them as texts.

    Raises:
        UsageError: naming the parameter and its value.
    """
    known = {"true": True, "false": False, "": False}
    text = "" if value is None else str(value).lower()
    if text not in known:
        raise UsageError(f"{name}: {value!r} is neither True nor False.")
    return known[text]


def reject_unknown(name: str, namespace: dict[str, Any]) -> None:
    """Refuse a parameter that the notebook does not have; papermill would inject it without a word.

    Args:
        name: the notebook's name.
        namespace: its globals(), whose `In` holds the cells that were run, the injected one among them.

    Raises:
        UsageError: naming the parameter, and those that there are.
    """
    of_others = {one for notebook, names in OF_ONE.items() if notebook != name for one in names}
    known = [parameter for parameter in ALL if parameter not in of_others]
    injected = [cell for cell in namespace.get("In", []) if cell.startswith("# Parameters")]
    for cell in injected[-1:]:
        assigned = {
            target.id
            for statement in ast.parse(cell).body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        for unknown in sorted(assigned - set(known)):
            raise UsageError(f"{unknown}: no such parameter of {name}; there are {', '.join(known)}.")
