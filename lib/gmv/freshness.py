"""How new what the lake holds is, and how new it should be by now."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from gmv.lake.reader import Reader
from gmv.settings import settings
from gmv.tables import EVENT_TABLES


@dataclass(frozen=True)
class Freshness:
    """How new what the lake holds is.

    Attributes:
        newest_events: the time of each table's newest event, by the source's clock.
        newest_file: the newest file's own time, UTC.
        newest_published_day: with GMV.
        expected_day: the day that should be published by now: `GMV_LATE_AFTER_DAYS` before yesterday.
    """

    newest_events: dict[str, dt.datetime | None]
    newest_file: dt.datetime | None
    newest_published_day: dt.date | None
    expected_day: dt.date

    @property
    def newest_event(self) -> dt.datetime | None:
        return max((at for at in self.newest_events.values() if at), default=None)

    @property
    def days_late(self) -> int:
        """How many days the newest published day lies behind the expected one; 0 before the first."""
        if self.newest_published_day is None:
            return 0
        return max(0, (self.expected_day - self.newest_published_day).days)


def newest_events(reader: Reader) -> dict[str, dt.datetime | None]:
    """The time of each table's newest event, by the source's clock; empty where it has none."""
    return {event.name: reader.newest(event.latest, "transaction_datetime") for event in EVENT_TABLES}


def freshness(reader: Reader, today: dt.date) -> Freshness:
    """How new what the lake holds is, and what is expected by now."""
    (other,) = reader.rows(
        "select (select max(modified_at) from bronze.files) as file, "
        "(select max(transaction_date) from gold.daily_gmv) as day"
    )
    expected = today - dt.timedelta(days=1 + settings().late_after_days)
    return Freshness(newest_events(reader), other["file"], other["day"], expected)
