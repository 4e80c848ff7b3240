"""Numbers that are unlike their history: a day against the day before, and against its own weekday's past.

Plain Python over daily sums, so that the same functions judge a run's days and are measured on planted
faults (`make anomalies`; the rates are in docs/quality.md).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal
from functools import lru_cache
from itertools import combinations
from statistics import median

from gmv import checks
from gmv.checks import Check
from gmv.quality.findings import Finding
from gmv.settings import settings

Day = dt.date
Series = Mapping[Day, Decimal]
"""A number for each day; a day that it lacks counts 0, from its first day on."""

_DEVIATION_OF_MAD = Decimal("1.4826")
"""A normal distribution's standard deviation, in median absolute deviations."""


@dataclass(frozen=True)
class Expected:
    """What a day's number is likely to be, by the same weekday before it.

    Attributes:
        middle: what it would be if it followed them.
        low, high: outside of these it is unlike them.
        weeks: how many there were.
        never_zero: none of them was 0.
    """

    middle: Decimal
    low: Decimal
    high: Decimal
    weeks: int
    never_zero: bool


def expected(series: Series, day: Day, leave_out: Collection[Day]) -> Expected | None:
    """What the same weekday's recent history lets expect of a day; None where it is too short or mostly empty.

    Args:
        series: the numbers of all days; the judged day's own is not looked at.
        leave_out: days that were flagged before, so that a fault does not become what is normal.

    Works on logarithms, since numbers vary by shares of themselves. Their growth is taken out as the median of
    the slopes between any two weeks (Theil and Sen), what remains is judged by its median and median absolute
    deviation: one odd week in four moves none of these. The band is the wider the fewer weeks there are.
    """
    limits, first = settings(), min(series, default=day)
    weeks = [
        (number, series.get(one, Decimal(0)))
        for number in range(1, limits.anomaly_weeks + 1)
        if (one := day - dt.timedelta(weeks=number)) >= first and one not in leave_out
    ]
    with_number = sum(value > 0 for _, value in weeks)
    if with_number < limits.anomaly_least_weeks or 2 * with_number <= len(weeks):
        return None
    ago = [(number, _logarithm(value)) for number, value in weeks]
    growth = median((new - old) / (before - since) for (since, new), (before, old) in combinations(ago, 2))
    levelled = [value + growth * number for number, value in ago]
    middle = median(levelled)
    deviation = median(abs(value - middle) for value in levelled) * _DEVIATION_OF_MAD
    few = (Decimal(limits.anomaly_weeks) / len(weeks)).sqrt()
    width = max(limits.anomaly_deviations * deviation * few, (1 + limits.anomaly_least_percent / 100).ln())
    return Expected(
        middle.exp(),
        (middle - width).exp(),
        (middle + width).exp(),
        len(weeks),
        all(value for _, value in weeks),
    )


@lru_cache(maxsize=100_000)
def _logarithm(value: Decimal) -> Decimal:
    return max(value, Decimal(1)).ln()


def drops(totals: Series, days: Iterable[Day]) -> list[Finding]:
    """Days whose total is too far below the day before's.

    Args:
        totals: GMV of all days.
        days: the days to judge.
    """
    found = []
    for day in sorted(days):
        before, now = totals.get(day - dt.timedelta(1), Decimal(0)), totals.get(day, Decimal(0))
        if before > 0 and now * 100 < before * (100 - settings().day_drop_percent):
            percent = (100 * (before - now) / before).quantize(
                Decimal("0.1"), ROUND_DOWN
            )  # 100: nothing is left
            message = f"{day} has {now:,.2f}, {percent} % less than the {before:,.2f} of the day before."
            found.append(Finding(checks.DAY_DROP, f"{day}", f"{now:.2f}", message, amount=before - now))
    return found


def unlike_weekday(
    check: Check,
    series: Mapping[str, Series],
    days: Iterable[Day],
    flagged: Collection[tuple[str, str]] = (),
    decimals: int = 2,
) -> list[Finding]:
    """Days that lie outside of their own weekday's history; those that count nothing at all any more are
    findings of `subsidiary_vanished`, where GMV is judged.

    Args:
        check: WEEKDAY_GMV or WEEKDAY_RECORDS.
        series: numbers by subsidiary or table.
        days: the days to judge.
        flagged: subject and value of what was flagged before and not accepted; left out of the history
            while the number is still the same.
        decimals: how the numbers are written.
    """
    found = []
    for name, numbers in sorted(series.items()):
        leave_out = {
            day for day, number in numbers.items() if (f"{day} {name}", f"{number:.{decimals}f}") in flagged
        }
        for day in sorted(days):
            leave_out.discard(day)
            number = numbers.get(day, Decimal(0))
            before = expected(numbers, day, leave_out)
            if before is None:
                continue
            has_vanished = check is checks.WEEKDAY_GMV and number == 0 and before.never_zero
            # The history takes what is below 1 for 1, since it has logarithms.
            if before.low <= max(number, Decimal(1)) <= before.high and not has_vanished:
                continue
            leave_out.add(day)
            message = (
                f"On {day} {name} has {number:,.{decimals}f}; by the {before.weeks} {day:%A}s before, about "
                f"{before.middle:,.{decimals}f} is likely ({_rounded(before.low, decimals, ROUND_CEILING):,} to "
                f"{_rounded(before.high, decimals, ROUND_FLOOR):,})."
            )
            found.append(
                Finding(
                    checks.SUBSIDIARY_VANISHED if has_vanished else check,
                    f"{day} {name}",
                    f"{number:.{decimals}f}",
                    message,
                    amount=_cents(abs(number - before.middle)) if check is checks.WEEKDAY_GMV else None,
                )
            )
    return found


def _rounded(limit: Decimal, decimals: int, inwards: str) -> Decimal:
    """A limit as it is told: what lies outside of it lies outside of what is told, too."""
    return limit.quantize(Decimal(1).scaleb(-decimals), inwards)


def _cents(amount: Decimal) -> Decimal:
    """A distance from a median, which may lie between two amounts, in whole cents."""
    return amount.quantize(Decimal("0.01"))
