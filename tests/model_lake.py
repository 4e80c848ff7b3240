"""Lakes that runs leave behind, by the model: events in, Delta tables out, without Spark."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path

import model
from gmv import tables
from gmv.lake.reader import Reader
from model import Event
from small_lake import write

Place = tuple[dt.date, str]


class ModelLake:
    """What runs do to a lake, each with the files that arrived since the one before."""

    def __init__(self, began: str = "2023-02-01 06:00:00") -> None:
        self.now = dt.datetime.fromisoformat(began)
        self.events: list[Event] = []
        self.published: dict[Place, Decimal] = {}
        self.ledger: list[dict] = []
        self.history: list[dict] = []
        self.rows: dict[str, list[dict]] = {}

    def run(
        self,
        files: Mapping[str, Sequence[Event]],
        publishes: Callable[[dt.date], bool] = lambda day: True,
    ) -> str:
        """Take files in and publish the pending days that `publishes` says; returns the run's id."""
        self.now += dt.timedelta(days=1)
        run = f"run{len(self.rows.setdefault(tables.RUNS.path, [])) + 1:03}"
        self._note(tables.RUNS, run=run, event="started", kind="run", at=self.now)
        touched = set()
        for file, events in sorted(files.items()):
            self._note(tables.FILES, path=file, outcome="ingested", run=run, recorded_at=self.now)
            for event in events:
                if event not in self.events:
                    self.events.append(event)
                    touched.add(event.purchase_id)
                    brought = {"file": file, "sha256": file, "run": run}
                    self._note(tables.event_table(event.table).versions, **asdict(event), **brought)
        self._post(touched, run)
        for step in ("silver", "ledger"):
            noted_at = self.now + dt.timedelta(minutes=2)
            self._note(tables.PROGRESS, step=step, bronze_run=run, run=run, recorded_at=noted_at)
        self._publish(publishes, run)
        return run

    def save(self, folder: Path) -> Reader:
        """Write all tables into a new lake."""
        for table in tables.TABLES:
            if rows := self.rows.get(table.path):
                write(folder, table, rows)
        write(folder, tables.GMV_LEDGER, self.ledger) if self.ledger else None
        write(folder, tables.DAILY_GMV_HISTORY, self.history) if self.history else None
        published = [
            {"transaction_date": day, "subsidiary": subsidiary, "gmv": gmv}
            for (day, subsidiary), gmv in self.published.items()
        ]
        write(folder, tables.DAILY_GMV, published) if published else None
        return Reader(folder)

    def sums(self) -> dict[Place, Decimal]:
        return model.daily_gmv(self.events)

    def _note(self, table: tables.Table, **row: object) -> None:
        self.rows.setdefault(table.path, []).append(row)

    def _post(self, touched: set[str], run: str) -> None:
        rest: dict[model.PostingKey, tuple[Decimal, int]] = {}
        own = [event for event in self.events if event.purchase_id in touched]
        for key, (amount, purchases) in model.postings(own).items():
            rest[key] = (amount, purchases)
        for row in self.ledger:
            if row["purchase_id"] in touched:
                key = model.PostingKey(*(row[name] for name in model.PostingKey._fields))
                amount, purchases = rest.get(key, (Decimal("0.00"), 0))
                rest[key] = (model.EXACT.subtract(amount, row["amount"]), purchases - row["purchases"])
        seq = max((row["ledger_seq"] for row in self.ledger), default=0) + 1
        recorded = {"cause": "event", "ledger_seq": seq, "run": run}
        recorded["recorded_at"] = self.now + dt.timedelta(minutes=1)
        self.ledger += [
            {**key._asdict(), "amount": amount, "purchases": purchases, **recorded}
            for key, (amount, purchases) in rest.items()
            if amount or purchases
        ]

    def _publish(self, publishes: Callable[[dt.date], bool], run: str) -> None:
        sums = self.sums()
        seq = max((row["ledger_seq"] for row in self.ledger), default=0)
        for place in sorted(sums.keys() | self.published.keys()):
            before, after = self.published.get(place), sums.get(place)
            if before == after or not publishes(place[0]):
                continue
            self.history.append(
                {
                    "transaction_date": place[0],
                    "subsidiary": place[1],
                    "previous_gmv": before,
                    "gmv": after,
                    "ledger_seq": seq,
                    "run": run,
                    "published_at": self.now + dt.timedelta(minutes=3),
                }
            )
            if after is None:
                del self.published[place]
            else:
                self.published[place] = after
