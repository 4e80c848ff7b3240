"""What commands print: for people sentences and tables in plain words; for csv and json the rows of their columns."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from gmv.bronze import WAITING
from gmv.evidence import Part
from gmv.explain import NOTHING, Change
from gmv.lake.reader import Reader
from gmv.publication import closed_books
from gmv.quality.lists import LISTS
from gmv.settings import settings
from gmv.terminal import Rows
from gmv.verify import Certificate, in_words

if TYPE_CHECKING:
    from gmv.run.plan import Plan
    from gmv.run.record import Record
    from gmv.status import Status

MOST_ROWS = 20

EXPLAIN_COLUMNS = (
    *("transaction_date", "subsidiary", "state", "published_by", "published_at", "before", "after"),
    *("amount", "reason", "why", "cause", "purchase_id", "purchases", "known_on"),
    *("posted_by", "ledger_seq", "recorded_at"),
    *("event_table", "event_at", "event_values", "event_file", "arrived_files", "because"),
)

_STATES = {
    "published": "published",
    "unpublished": "posted, changes no published number",
    "damaged": "damaged",
    "pending": "pending: waits to be published",
    "in_progress": "in progress: not published yet",
}


def explanation_rows(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """A row for each part of each change, with the columns EXPLAIN_COLUMNS.

    `amount` adds up to `after` - `before` over the rows of a change, an empty one counting as 0.
    """
    return [
        {
            "transaction_date": change.transaction_date,
            "subsidiary": change.subsidiary,
            "state": change.state,
            "published_by": change.run,
            "published_at": change.published_at,
            "before": change.before,
            "after": change.after,
            "amount": part.amount,
            "reason": part.reason,
            "why": part.why,
            "cause": part.cause,
            "purchase_id": part.purchase_id,
            "purchases": part.purchases,
            "known_on": part.known_on,
            "posted_by": part.run,
            "ledger_seq": part.ledger_seq,
            "recorded_at": part.recorded_at,
            "event_table": part.event.table if part.event else None,
            "event_at": part.event.at if part.event else None,
            "event_values": _values(part) if part.event else None,
            "event_file": part.event.file if part.event else None,
            "arrived_files": list(part.arrived),
            "because": part.because,
        }
        for change in changes
        for part in change.parts
    ]


def explanation(changes: Sequence[Change], run: str = "") -> Iterator[RenderableType]:
    """Tables for people: the numbers in order of time, then why they changed, then the postings.

    Args:
        run: the changes are those of this run, not all that days had.
    """
    if run:
        yield from _explanation_of_run(changes, run)
        return
    if not changes:
        yield "Nothing counts on these days, and nothing ever did."
        return
    restated = [change for change in changes if change.is_restatement]
    yield _numbers(changes, restated)
    if restated:
        yield _why("Why it changed after it was first published", restated)
        yield _postings("The postings behind that", restated)
    else:
        yield _why("Why it is what it is (it never changed)", changes)
        yield _postings("The postings behind that", changes)


PLAN_COLUMNS = (
    *("transaction_date", "subsidiary", "result", "published", "coming", "difference"),
    *("reason", "why", "of_which", "purchases", "files"),
)


def plan_rows(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """A row for each reason of each number that changes, with the columns PLAN_COLUMNS.

    `of_which` adds up to `difference`; `files` are those whose arrival causes it.
    """
    rows = []
    for change in changes:
        by: dict[tuple[str, str], list[Part]] = defaultdict(list)
        for part in change.parts:
            by[part.reason, part.why].append(part)
        rows += [
            {
                "transaction_date": change.transaction_date,
                "subsidiary": change.subsidiary,
                "result": change.state,
                "published": change.before,
                "coming": change.after,
                "difference": change.difference,
                "reason": reason,
                "why": why,
                "of_which": sum((part.amount for part in parts), NOTHING),
                "purchases": len({part.purchase_id for part in parts if part.purchase_id}),
                "files": sorted({file for part in parts for file in part.arrived}),
            }
            for (reason, why), parts in by.items()
        ]
    return rows


def plan_as_object(plan: Plan) -> dict[str, Any]:
    """The whole plan, for json."""
    return {
        "refused": plan.refused,
        "files": list(plan.files),
        "touched_purchases": plan.touched_purchases,
        "days": plan.days,
        "changes": plan_rows(plan.changes),
    }


def plan_tables(plan: Plan) -> Iterator[RenderableType]:
    """Tables for people: the files, then the numbers that would change, and why."""
    if plan.is_empty:
        yield "Nothing is new: a run would read no file and change no number."
        return
    files = _table("Files that a run would read", file="", table="", records="right", outcome="")
    for file in plan.files[:MOST_ROWS]:
        outcome = file["outcome"] + (f": {file['reason']}" if file["reason"] else "")
        records = "" if file["records"] is None else f"{file['records']:,}"
        files.add_row(escape(file["path"]), file["table"] or "", records, escape(outcome))
    if len(plan.files) > MOST_ROWS:
        files.caption = f"The first {MOST_ROWS} of {len(plan.files):,}; --format json has all."
    yield files if plan.files else "It would read no file."
    yield f"Purchases that it would work on: {plan.touched_purchases:,}"
    results = [
        f"{list(plan.days.values()).count(result):,} {result}" for result in dict.fromkeys(plan.days.values())
    ]
    if not plan.refused:  # a run that is refused comes to no day
        yield f"Days: {', '.join(results) or 'none'}"
    if not plan.changes:
        yield "It would change no number."
        return
    numbers = _table(
        "Numbers that it would change",
        day="",
        subsidiary="",
        GMV="right",
        change="right",
        **{"why, and by which files": ""},
    )
    for change in sorted(plan.changes, key=lambda change: -abs(change.difference))[: 2 * MOST_ROWS]:
        numbers.add_row(
            str(change.transaction_date),
            escape(change.subsidiary),
            f"{_amount(change.before)} → {_amount(change.after)}",
            f"{change.difference:+,.2f}",
            escape(_in_brief(change)),
        )
    if len(plan.changes) > 2 * MOST_ROWS:
        numbers.caption = f"The largest {2 * MOST_ROWS} of {len(plan.changes):,}; --format csv has all."
    numbers.add_section()
    coming = [change for change in plan.changes if change.state == "published"]
    numbers.add_row("together", "", "", f"{_sum(coming):+,.2f}", "published by this run")
    if waiting := [change for change in plan.changes if change.is_waiting]:
        numbers.add_row("", "", "", f"{_sum(waiting):+,.2f}", "not published by this run")
    yield numbers
    yield from until_published(plan.days, plan.meanwhile)


def until_published(days: Mapping[str, str], amounts: Mapping[str, str]) -> Iterator[str]:
    """Which pending days wait in closed books, and which runs put right what counts twice or nowhere until then.

    Args:
        days: the result of each planned day.
        amounts: what `publication.counted_meanwhile` found.
    """
    pending = [dt.date.fromisoformat(day) for day, result in days.items() if result == "pending"]
    closed_until = settings().closed_until
    runs = []
    if waiting := closed_books(pending, closed_until):
        yield waiting
        runs.append("that window")
    if not closed_until or any(day > closed_until for day in pending):
        runs.append("the next run without a window")
    for how, amount in amounts.items():
        if Decimal(amount):
            yield (
                f"Until the pending days are published, {Decimal(amount):,.2f} of purchases that moved day "
                f"count {how}; {' and '.join(runs)} {'put' if runs[1:] else 'puts'} that right."
            )


def _in_brief(change: Change) -> str:
    lines = [] if change.state == "published" else [_STATES[change.state]]
    for row in plan_rows([change]):
        files = row["files"]
        told = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        lines.append(f"{row['of_which']:+,.2f} {row['why']} ({told or 'no file'})")
    return "\n".join(lines)


def _explanation_of_run(changes: Sequence[Change], run: str) -> Iterator[RenderableType]:
    if not changes:
        yield f"Run {run} published no number and posted nothing."
        return
    yield _numbers(changes, changes)
    yield _why(f"Why run {run} changed them", changes)
    yield _postings("The postings behind that", changes)


def _numbers(changes: Sequence[Change], restated: Sequence[Change]) -> Table:
    table = _table(
        "The numbers, in order of time", day="", subsidiary="", what="", GMV="right", change="right"
    )
    shown = restated if restated and len(changes) > 2 * MOST_ROWS else changes
    for change in shown[-2 * MOST_ROWS :]:
        table.add_row(
            str(change.transaction_date),
            escape(change.subsidiary),
            _when(change),
            f"{_amount(change.before)} → {_amount(change.after)}",
            f"{change.difference:+,.2f}",
        )
    waiting = [change for change in changes if change.is_waiting]
    new = _sum(change for change in changes if not change.is_restatement and change not in waiting)
    published = _sum(change for change in changes if change not in waiting)
    table.add_section()
    table.add_row("", "", "first published", "", f"{new:+,.2f}")
    table.add_row("", "", "restated", "", f"{published - new:+,.2f}")
    if waiting:
        table.add_row("", "", "not published yet", "", f"{_sum(waiting):+,.2f}")
    table.add_row("", "", "together", "", f"{_sum(changes):+,.2f}")
    if len(shown) > 2 * MOST_ROWS or len(shown) < len(changes):
        table.caption = f"The newest of {len(changes):,} changes; --format csv prints all."
    return table


def _why(title: str, changes: Sequence[Change]) -> Table:
    """The changes by reason, subsidiary, run and purchase; each of the four adds up to the same."""
    by: dict[str, Callable[[Change, Part], str]] = {
        "reason": lambda _, part: part.why,
        "subsidiary": lambda change, _: change.subsidiary,
        "run": lambda change, _: change.run or _STATES[change.state],
        "purchase": lambda _, part: part.purchase_id or "none",
    }
    table = _table(title, by="", what="", purchases="right", change="right")
    for name, key in by.items():
        amounts: dict[str, Decimal] = defaultdict(lambda: NOTHING)
        purchases: dict[str, set[str]] = defaultdict(set)
        for change in changes:
            for part in change.parts:
                amounts[key(change, part)] += part.amount
                purchases[key(change, part)] |= {part.purchase_id} if part.purchase_id else set()
        largest = sorted(amounts.items(), key=lambda item: (-abs(item[1]), item[0]))
        for value, amount in largest[:MOST_ROWS]:
            table.add_row(name, escape(value), f"{len(purchases[value]):,}", f"{amount:+,.2f}")
        if others := largest[MOST_ROWS:]:
            rest = sum((amount for _, amount in others), NOTHING)
            table.add_row(name, f"{len(others):,} others", "", f"{rest:+,.2f}")
        table.add_section()
    concerned = {part.purchase_id for change in changes for part in change.parts if part.purchase_id}
    table.add_row("together", "", f"{len(concerned):,}", f"{_sum(changes):+,.2f}")
    return table


def _sum(changes: Iterable[Change]) -> Decimal:
    return sum((change.difference for change in changes), NOTHING)


def _postings(title: str, changes: Iterable[Change]) -> Table:
    table = _table(title, counted="", change="right", why="", purchase="", **{"the event, and its file": ""})
    table.columns[2].max_width = 22  # the files' names need the room
    parts = [(change, part) for change in changes for part in change.parts]
    shown = parts
    if len(parts) > MOST_ROWS:
        shown = sorted(parts, key=lambda pair: -abs(pair[1].amount))[:MOST_ROWS]
        table.caption = f"The {MOST_ROWS} largest of {len(parts):,}; --format csv prints all."
    for change, part in shown:
        table.add_row(
            f"{change.transaction_date}\n{escape(change.subsidiary)}",
            f"{part.amount:+,.2f}",
            escape(part.why),
            escape(part.purchase_id or ""),
            escape(_event(part)),
        )
    return table


def _event(part: Part) -> str:
    lines = []
    if part.event:
        lines.append(f"{part.event.table} of {part.event.at:%Y-%m-%d %H:%M}: {_values(part)}")
        lines.append(part.event.file + ("" if part.event.is_in_force else " (not in force any more)"))
    others = [file for file in part.arrived if not part.event or file != part.event.file]
    if others:
        lines.append(f"posted when {', '.join(others)} {_came(part)}")
    if part.because:
        lines.append(f"because: {part.because}")
    return "\n".join(lines)


def _came(part: Part) -> str:
    return {"retraction": "was retracted", "undo": "was restored"}.get(part.cause, "arrived")


def _values(part: Part) -> str:
    assert part.event is not None
    values = part.event.values
    if part.event.table == "product_item":
        return f"{values['item_quantity']} × {values['purchase_value']:,.2f}"
    if part.event.table == "purchase_extra_info":
        return str(values["subsidiary"])
    if values["release_date"] is None:
        return "not paid"
    return f"paid {values['release_date']}, for {values['transaction_date']}"


def _when(change: Change) -> str:
    if change.published_at is None:
        return _STATES[change.state]
    how = "restated" if change.is_restatement else "first published"
    return f"{how} {change.published_at:%Y-%m-%d %H:%M} by {change.run}"


def _amount(value: Decimal | None) -> str:
    return "no row" if value is None else f"{value:,.2f}"


def _table(title: str, **columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for name, justify in columns.items():
        table.add_column(name, justify="right" if justify else "left", overflow="fold")
    return table


# --- gmv verify -----------------------------------------------------------------------------------------

CERTIFICATE_COLUMNS = ("compared", "agrees", "rows", "different", "cents_apart", "first_difference")


def certificate_rows(certificate: Certificate) -> list[dict[str, Any]]:
    """A row for each comparison, with the columns CERTIFICATE_COLUMNS."""
    return [
        {
            "compared": comparison.name,
            "agrees": comparison.agrees,
            "rows": comparison.rows,
            "different": comparison.different,
            "cents_apart": comparison.cents_apart,
            "first_difference": in_words(comparison.differences[0]) if comparison.differences else None,
        }
        for comparison in certificate.comparisons
    ]


def certificate(of: Certificate) -> Iterator[RenderableType]:
    """The certificate as a table, the differences by name, and on which state of the lake it was made."""
    table = Table(title=f"Recomputed from bronze by a second engine: {of.scope}")
    for name in ("compared", "rows", "differ", "cents apart", "verdict"):
        table.add_column(name, justify="left" if name in ("compared", "verdict") else "right")
    for comparison in of.comparisons:
        cents = "-" if comparison.cents_apart is None else f"{comparison.cents_apart:,}"
        verdict = "agrees" if comparison.agrees else "DIFFERS"
        table.add_row(comparison.name, f"{comparison.rows:,}", f"{comparison.different:,}", cents, verdict)
    yield table
    for comparison in of.comparisons:
        for difference in comparison.differences:
            yield escape(f"{comparison.name}: {in_words(difference)}")
        if comparison.different > len(comparison.differences):
            yield f"{comparison.name}: {comparison.different - len(comparison.differences):,} more"
    versions = [f"{path} {version}" for path, version in of.versions.items() if version is not None]
    yield f"Table versions  {', '.join(versions) or 'none: the lake is empty'}"
    if of.pending_days:
        days = f"{of.pending_days[0]} … {of.pending_days[-1]}" if of.pending_days[1:] else of.pending_days[0]
        yield f"Pending         {len(of.pending_days)} day(s), {days}: not compared with what is published"
    if of.unfinished:
        yield (
            f"Unfinished      {', '.join(of.unfinished)}: not in silver or ledger yet, so they may differ; "
            "`gmv run` takes them in"
        )
    apart = sum(comparison.cents_apart or 0 for comparison in of.comparisons)
    rows = sum(comparison.rows for comparison in of.comparisons)
    verdict = "every table agrees" if of.agrees else "TABLES DIFFER"
    yield f"Certificate     {verdict}; {rows:,} rows compared, {apart:,} cents apart"
    yield f"Made            {of.made_at:%Y-%m-%d %H:%M} UTC, in {of.seconds:.1f} s"


# --- gmv rebuild ----------------------------------------------------------------------------------------


def rebuilt(told: dict[str, Any], certificate: Certificate) -> Iterator[RenderableType]:
    """What became of each table, what was repaired and posted, and what waits to be published.

    Args:
        told: `gmv.rebuild.Rebuilt` as a dictionary.
    """
    table = Table(title="Silver, made anew from bronze")
    for name in ("table", "rows", "rows that differed", "outcome"):
        table.add_column(name, justify="right" if name.startswith("rows") else "left")
    for row in told["tables"]:
        different = "unreadable" if row["different"] is None else f"{row['different']:,}"
        table.add_row(row["table"], f"{row['rows']:,}", different, row["outcome"])
    yield table
    for said in told["repaired"]:
        yield escape(f"Repaired        {said}")
    yield f"Ledger          {told['posted']['postings']:,} posting(s) were lacking"
    if certificate.pending_days:
        yield f"Pending         {len(certificate.pending_days)} day(s); `gmv run` publishes them"
    yield f"Certificate     every table agrees; {sum(c.rows for c in certificate.comparisons):,} rows compared"


# --- gmv run --------------------------------------------------------------------------------------------


def run_ended(record: Record, runs_dir: Path, accepting: str = "") -> Iterator[str | Rows]:
    """What became of a run: its days, the numbers that it changed, what failed or waits, where its report is.

    Args:
        record: of a run that has ended well.
        runs_dir: where a run that had nothing to do finds the last report.
        accepting: the check that a person accepted in this run; empty: none.
    """
    from gmv.run.runner import last_report

    if record.outcome == "nothing_new":
        yield "Nothing is new: no file to read, no step to finish, no day to publish."
        yield f"Last report: {last_report(runs_dir) or 'none yet'}"
        return
    for file in record.steps["01_bronze"]["files"]:
        if file["outcome"] == WAITING:
            yield f"waiting  {file['reason']}"
    gold = record.steps["03_gold"]
    by_result: dict[str, list[str]] = {}
    for day, result in gold["days"].items():
        by_result.setdefault(result, []).append(day)
    for result, days in by_result.items():
        span = days[0] if len(days) == 1 else f"{days[0]} … {days[-1]}"
        yield f"{len(days):5} day(s) {result:<12} {span}"
    yield _changed_numbers(gold["changes"])
    yield from until_published(gold["days"], gold["meanwhile"])
    yield from _failed_checks(gold["checks"])
    if accepting:
        yield _accepted(record, accepting)
    yield f"Run:    {record.place}"
    yield f"Report: {record.place / 'report.html'}"


def _changed_numbers(changes: Sequence[Mapping[str, Any]]) -> str | Rows:
    if not changes:
        return "No published number has changed."
    newest = [
        {**change, **{name: change[name] and Decimal(change[name]) for name in ("previous_gmv", "gmv")}}
        for change in changes[-MOST_ROWS:]
    ]
    return Rows(
        ("transaction_date", "subsidiary", "previous_gmv", "gmv"),
        newest,
        f"published numbers that changed: {len(changes):,}",
        f"The newest {MOST_ROWS}." if len(changes) > MOST_ROWS else "",
    )


def _failed_checks(results: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for check, of_check in itertools.groupby(results, key=lambda result: result["check"]):
        failed = [result for result in of_check if not result["passed"]]
        if failed:
            named = next((result for result in failed if not result["accepted"]), failed[0])
            where = check if check in LISTS else "check_results"
            more = f" (and {len(failed) - 1} more: gmv show {where})" if len(failed) > 1 else ""
            yield f"{'accepted' if named['accepted'] else 'warning':<8} {check}: {named['message']}{more}"


def _accepted(record: Record, check: str) -> str:
    (accepted,) = Reader(record.lake).rows(
        "select count(*) as n from monitoring.runs where run = $run and event = 'accepted'", run=record.run
    )
    if accepted["n"]:
        return f"Accepted {accepted['n']} subject(s), until they change: gmv show runs"
    return f"There was nothing to accept: {check} did not fail, or was accepted before."


# --- gmv status -----------------------------------------------------------------------------------------


def status(found: Status, runs_dir: Path) -> Iterator[str | Rows]:
    """The state of a lake: a line for each fact, a table of pending days, a line for each problem."""
    from gmv.run.runner import last_report

    last, fresh = found.last_run, found.freshness
    told = "none"
    if last:
        how = last["outcome"] or ("is at work" if found.is_at_work else "did not end")
        told = f"{last['run']} {how} ({last['started']:%Y-%m-%d %H:%M} UTC)"
    late = f" ({fresh.days_late} day(s) late: {fresh.expected_day} was expected)" if fresh.days_late else ""
    yield f"Last run        {told}"
    yield f"Published up to {fresh.newest_published_day or '-'}{late}"
    yield f"Newest event    {fresh.newest_event or '-'}"
    yield f"Newest file     {f'{fresh.newest_file:%Y-%m-%d %H:%M} UTC' if fresh.newest_file else '-'}"
    yield f"Report          {last_report(runs_dir) or '-'}"
    for step, runs in found.unfinished.items():
        if runs:
            yield f"Unfinished      {step}: {', '.join(runs)}; the next run takes them in"
    if found.pending:
        yield Rows(("day", "published", "coming"), found.pending, "pending days")
        if any(row["published"] == row["coming"] for row in found.pending):
            yield "Equal numbers   mean that subsidiaries alone differ"
        if waiting := closed_books((row["day"] for row in found.pending), settings().closed_until):
            yield f"Closed books    {waiting}"
    else:
        yield "Pending days    none"
    for kind in dict.fromkeys(problem.kind for problem in found.problems):
        of_kind = [problem for problem in found.problems if problem.kind == kind]
        for problem in of_kind[:MOST_ROWS]:
            yield f"{'BROKEN' if problem.is_broken else 'Problem':<15} {problem}"
        if more := of_kind[MOST_ROWS:]:
            yield f"{'':<15} And {len(more):,} more of {kind}; --format json has all."
