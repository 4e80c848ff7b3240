"""The reasons for which the ledger posts: in words that finance uses, and which event is behind each.

`gmv.ledger.postings` decides which reason a posting has.
"""

from __future__ import annotations

from gmv.tables import PRODUCT_ITEM, PURCHASE, PURCHASE_EXTRA_INFO, EventTable

UNEXPLAINED = "unexplained"

_WORDS = {
    ("paid", True): "Payment received",
    ("paid", False): "Payment that no longer counts here",
    ("item_arrived", True): "Item details arrived after the payment",
    ("item_arrived", False): "Item details that no longer count here",
    ("withdrawn", False): "Payment withdrawn",
    ("withdrawn", True): "Withdrawal that no longer counts",
    ("repriced", True): "Price or quantity raised",
    ("repriced", False): "Price or quantity lowered",
    ("moved_day", True): "Moved here from another day",
    ("moved_day", False): "Moved to another day",
    ("subsidiary_known", True): "Subsidiary became known: this one",
    ("subsidiary_known", False): "Subsidiary became known: another one",
    ("moved_subsidiary", True): "Moved here from another subsidiary",
    ("moved_subsidiary", False): "Moved to another subsidiary",
    (UNEXPLAINED, True): "Not explained by the ledger: the published number had been damaged",
    (UNEXPLAINED, False): "Not explained by the ledger: the published number had been damaged",
}
_CAUSES = {
    "retraction": ", because a file was retracted",
    "undo": ", because a retracted file was restored",
    "rule": ", because the lake was rebuilt (a rule of GMV had changed, or a table was damaged)",
}
REASON_TOLD = """if(purchases = 0, 'repriced', reason) as reason, cause,
    if(purchases = 0, amount > 0, purchases > 0) as adds"""
"""SQL: what `why` is asked of a posting. One that corrects an amount alone, where the purchase goes on counting, keeps
the reason of what it corrects, and is told as another price."""

BEHIND: dict[str, EventTable] = {
    "paid": PURCHASE,
    "withdrawn": PURCHASE,
    "moved_day": PURCHASE,
    "item_arrived": PRODUCT_ITEM,
    "repriced": PRODUCT_ITEM,
    "subsidiary_known": PURCHASE_EXTRA_INFO,
    "moved_subsidiary": PURCHASE_EXTRA_INFO,
}
"""The table whose event makes a purchase's standing change for this reason."""


def why(reason: str, adds: bool, cause: str) -> str:
    """A reason of the ledger in words.

    Args:
        adds: the posting enters the day and subsidiary, or raises its amount.
        cause: event, retraction, undo or rule.
    """
    return _WORDS.get((reason, adds), reason) + _CAUSES.get(cause, "")
