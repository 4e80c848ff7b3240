"""The report's figures, in one style, each drawn for a desk and for a phone.

A figure is given frames of exact numbers; they become floats only where they are plotted.
"""

from __future__ import annotations

import base64
import datetime as dt
import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import cycle
from typing import Any

import matplotlib
import matplotlib.dates as mdates
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, StepPatch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from gmv.tables import UNKNOWN_SUBSIDIARY

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,  # a subsidiary may be named $a^$
    "text.color": "#222222",
    "axes.labelcolor": "#444444",
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "grid.color": "#e3e3e3",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "ytick.left": False,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "figure.constrained_layout.use": True,
}

# Okabe and Ito's colours, told apart with every kind of colour vision; the palest is left out.
_PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
_UNKNOWN_COLOUR = "#767676"
_OTHERS_COLOUR = "#c4c4c4"
_GAP_COLOUR = "#f3f3f3"
_LINE_COLOUR = "#222222"
_LAYERS = {
    "bronze": "Bronze: records as they arrived",
    "silver": "Silver: latest version per purchase",
    "gold": "Gold: published numbers, and ledger",
}
_IN_MILLIONS_FROM = 10_000_000
_MOST_BARS = 120
"""Of more days, a gap between bars would be thinner than a dot: a part is drawn as one shape, at once."""
_HALF_A_DAY = pd.Timedelta(hours=12)
_A_YEAR = pd.Timedelta(days=365)
_DOTS_PER_INCH = 200  # twice what a plain screen shows, for sharp text
_SHOWN_PER_INCH = 100


@dataclass(frozen=True)
class Size:
    """The room a figure has, in inches; at 100 pixels per inch text keeps its size on the page."""

    width: float
    name_length: int
    most_dates: int

    @property
    def is_narrow(self) -> bool:
        return self.width < 6


WIDE = Size(width=9.6, name_length=32, most_dates=12)
NARROW = Size(width=3.9, name_length=24, most_dates=5)


class Picture:
    """A figure for a desk (`wide`) and for a phone (`narrow`), with what it shows in words (`alt`)."""

    def __init__(self, draw: Callable[[Size], Figure], alt: str) -> None:
        with matplotlib.rc_context(_STYLE):
            self.wide = draw(WIDE)
            self.narrow = draw(NARROW)
        self.alt = alt

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict, dict]:
        """The wide figure as an image; the narrow one and the words go with it as the image's metadata."""
        shown = {
            "alt": self.alt,
            "width": round(self.wide.get_figwidth() * _SHOWN_PER_INCH),
            "height": round(self.wide.get_figheight() * _SHOWN_PER_INCH),
            "narrow": _png(self.narrow),
        }
        return {"image/png": _png(self.wide), "text/plain": self.alt}, {"image/png": shown}


@dataclass(frozen=True)
class Marks:
    """Days that a figure marks, in any order.

    Attributes:
        restated: whose number was published before and has changed since the last report.
        pending: closed days whose number waits to be published.
        odd: for which a check found something.
    """

    restated: Collection[pd.Timestamp] = ()
    pending: Collection[pd.Timestamp] = ()
    odd: Collection[pd.Timestamp] = ()


NO_MARKS = Marks()
NOTHING_ODD: Mapping[str, Collection[pd.Timestamp]] = {}


def daily_gmv(
    frame: pd.DataFrame,
    start_date: dt.date | None = None,
    end_date: dt.date | None = None,
    marks: Marks = NO_MARKS,
) -> Picture:
    """GMV per day as bars stacked by subsidiary; days without GMV are shaded.

    From seven days on, a line shows the average of the seven days up to each, where a day without GMV
    counts as 0. The line ends with the newest day that has GMV. Beyond six subsidiaries, the smaller ones
    are drawn together.

    Args:
        frame: transaction_date, subsidiary, gmv (Decimal), as `data.daily_gmv` gives it.
        start_date: first day of the axis, if it is not far before the others; none: the first day with GMV.
        end_date: last day of the axis, if it is not far after the others; none: the last day with GMV.
        marks: days to mark above their bars.
    """
    if frame.empty:
        return _sentence("No GMV has been published for these days.")
    newest = frame["transaction_date"].max()
    days = _axis(frame["transaction_date"], start_date, end_date)
    parts = _by_subsidiary(frame)
    totals = frame.groupby("transaction_date")["gmv"].sum()
    total = totals.sum()

    def draw(size: Size) -> Figure:
        figure = Figure(figsize=(size.width, 4.3), dpi=_DOTS_PER_INCH)
        axes = figure.subplots()
        unit, in_words = _unit(totals.max())
        below = pd.Series(0.0, index=totals.index)
        for subsidiary, amounts, colour in parts:
            heights = amounts.astype(float).reindex(totals.index, fill_value=0.0) / unit
            _bars(axes, days, heights, below, _shortened(subsidiary, size.name_length), colour)
            below += heights
        if len(days) >= 7:
            up_to_newest = totals.astype(float).reindex(days[days <= newest], fill_value=0.0) / unit
            average = up_to_newest.rolling(7).mean()
            halo = [withStroke(linewidth=3, foreground="white")]
            axes.plot(
                average.index, average, color=_LINE_COLOUR, lw=1.4, path_effects=halo, label="7-day average"
            )
        gaps = [day for day in days if day <= newest and day not in totals.index]
        _shade(axes, gaps, "no GMV")
        lift = _mark(axes, days, totals.astype(float) / unit, marks)
        _label_bars(axes, size, days, totals, unit, lift)
        axes.set_ylabel(f"GMV per day{in_words}")
        axes.set_title(("\n" if size.is_narrow else " · ").join([_span(days), f"total {total:,.2f}"]))
        figure.suptitle("Daily GMV by subsidiary", x=0.01, ha="left", weight="bold", size=12)
        _thousands(axes)
        _dates(axes, size, days)
        shapes = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
        handles = [*axes.containers, *shapes, *axes.get_lines(), *_shades(axes)]
        _legend(figure, handles)
        return figure

    highest_day, highest = totals.sort_values(ascending=False, kind="stable").reset_index().iloc[0]
    alt = (
        f"Bars of GMV per day by subsidiary, {_span(days)}. The total is {total:,.2f} on {len(totals):,} "
        f"day(s) with GMV, the highest day is {_day(highest_day)} with {highest:,.2f}."
    )
    for marked, what in ((marks.restated, "restated"), (marks.pending, "pending"), (marks.odd, "odd")):
        alt += _marked_in_words(days, marked, what)
    return Picture(draw, alt)


def partition_rows(
    frame: pd.DataFrame,
    start_date: dt.date | None = None,
    end_date: dt.date | None = None,
    odd: Mapping[str, Collection[pd.Timestamp]] = NOTHING_ODD,
) -> Picture:
    """Rows per day as bars stacked by table, one panel for each layer.

    Args:
        frame: layer, table, day, records, as `data.partition_rows` gives it. Records without a day are
            named in the panel's title.
        start_date: first day of the axis, as for `daily_gmv`; none: the first day with rows.
        end_date: last day of the axis; none: the last day with rows.
        odd: days for which a check found something, by the table that it is about.
    """
    dated = frame.dropna(subset=["day"])
    if dated.empty:
        return _sentence("No rows have been counted for these days.")
    days = _axis(dated["day"], start_date, end_date)
    colours = dict(zip(dict.fromkeys(frame["table"]), cycle(_PALETTE), strict=False))

    def draw(size: Size) -> Figure:
        height = 8.8 if size.is_narrow else 6.6
        figure = Figure(figsize=(size.width, height), dpi=_DOTS_PER_INCH)
        figure.suptitle("Rows per day and table", x=0.01, ha="left", weight="bold", size=12)
        for axes, (layer, title) in zip(figure.subplots(len(_LAYERS)), _LAYERS.items(), strict=True):
            counts = dated[dated["layer"] == layer]
            undated = int(frame.loc[frame["day"].isna() & (frame["layer"] == layer), "records"].sum())
            by_table = counts.pivot(index="day", columns="table", values="records").fillna(0).astype(float)
            below = pd.Series(0.0, index=by_table.index)
            for table in by_table.columns:
                _bars(axes, days, by_table[table], below, str(table), colours[table])
                below += by_table[table]
            tables = set(by_table.columns)
            odd_here = {day for table, of_table in odd.items() if table in tables for day in of_table}
            _mark(axes, days, below, Marks(odd=odd_here))
            note = f"\nand {undated:,} without a sensible date" if undated else ""
            axes.set_title(title + note, weight="bold")
            axes.set_ylabel("rows per day")
            _thousands(axes, whole=True)
            _dates(axes, size, days)
            if by_table.empty:
                axes.text(0.5, 0.5, "no rows", transform=axes.transAxes, ha="center")
            elif size.is_narrow:
                axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.3), ncols=1)
            else:
                axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.05), reverse=True)
        return figure

    marked = [day for table in set(dated["table"]) for day in odd.get(table, ())]
    parts = [f"{layer} {int(dated.loc[dated['layer'] == layer, 'records'].sum()):,}" for layer in _LAYERS]
    alt = f"Bars of rows per day and table, {_span(days)}. In all: {', '.join(parts)} rows."
    return Picture(draw, alt + _marked_in_words(days, marked, "odd"))


def durations(frame: pd.DataFrame) -> Picture:
    """How long each run took, as bars stacked by step, oldest first.

    Args:
        frame: run, started_at, seconds and a column of seconds per step, as `data.run_durations` gives it.
    """
    steps = [name for name in frame.columns if re.fullmatch(r"\d\d_\w+", str(name))]
    timed = frame.dropna(subset=steps, how="all") if steps else frame.head(0)
    if timed.empty:
        return _sentence("No run has noted yet how long its steps took.")
    timed = timed.iloc[::-1]
    labels = [f"{at.day} {at:%b %H:%M}" for at in timed["started_at"]]

    def draw(size: Size) -> Figure:
        figure = Figure(figsize=(size.width, 1.1 + 0.26 * len(timed)), dpi=_DOTS_PER_INCH)
        axes = figure.subplots()
        left = [0.0] * len(timed)
        for step, colour in zip(steps, cycle(_PALETTE), strict=False):
            seconds = timed[step].fillna(0).astype(float).tolist()
            axes.barh(range(len(timed)), seconds, left=left, color=colour, label=step, height=0.7)
            left = [before + more for before, more in zip(left, seconds, strict=True)]
        axes.set_yticks(range(len(timed)), labels)
        axes.invert_yaxis()
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("seconds")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, min_n_ticks=2))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        figure.suptitle("Seconds per run and step", x=0.01, ha="left", weight="bold", size=12)
        _legend(figure, axes.containers)
        return figure

    newest = timed.iloc[-1]
    took = ", ".join(f"{step} {newest[step]:,.1f}" for step in steps if not pd.isna(newest[step]))
    return Picture(draw, f"Bars of seconds per step for {len(timed):,} run(s). The newest took: {took}.")


def _sentence(text: str) -> Picture:
    def draw(size: Size) -> Figure:
        figure = Figure(figsize=(size.width, 1.2), dpi=_DOTS_PER_INCH)
        figure.text(0.5, 0.5, text, ha="center", va="center", color="#444444", wrap=True)
        return figure

    return Picture(draw, text)


def _axis(filled: pd.Series, start_date: dt.date | None, end_date: dt.date | None) -> pd.DatetimeIndex:
    """The days of the window, but of a window such as one to 9999-12-31 no more than a year beyond what is filled."""
    oldest, newest = filled.min(), filled.max()
    first = max(pd.Timestamp(start_date), oldest - _A_YEAR) if start_date else oldest
    last = min(pd.Timestamp(end_date), newest + _A_YEAR) if end_date else newest
    return pd.date_range(first, last, freq="D")


def _by_subsidiary(frame: pd.DataFrame) -> list[tuple[str, pd.Series, str]]:
    """Each subsidiary's name, GMV by day and colour, by name; beyond six, the smaller ones as one."""
    totals = frame.groupby("subsidiary")["gmv"].sum().sort_values(ascending=False, kind="stable")
    apart = totals.index if len(totals) <= len(_PALETTE) else totals.index[: len(_PALETTE) - 1]
    colours = iter(_PALETTE)
    parts = [
        (
            name,
            frame[frame["subsidiary"] == name].set_index("transaction_date")["gmv"],
            _UNKNOWN_COLOUR if name == UNKNOWN_SUBSIDIARY else next(colours),
        )
        for name in sorted(apart)
    ]
    others = frame[~frame["subsidiary"].isin(apart)]
    if not others.empty:
        label = f"{others['subsidiary'].nunique():,} smaller ones"
        parts.append((label, others.groupby("transaction_date")["gmv"].sum(), _OTHERS_COLOUR))
    return parts


def _bars(
    axes: Axes, days: pd.DatetimeIndex, heights: pd.Series, below: pd.Series, label: str, colour: str
) -> None:
    if len(days) > _MOST_BARS:
        steps = pd.concat([below, below + heights], axis=1).reindex(days, fill_value=0.0)
        edges = mdates.date2num([*(days - _HALF_A_DAY), days[-1] + _HALF_A_DAY])
        shape = StepPatch(steps[1], edges, baseline=steps[0], fill=True, label=label, color=colour, lw=0)  # type: ignore[arg-type]
        # What `axes.stairs` does, but for its look at each step's outline, which takes seconds for some years.
        axes.add_artist(shape)
        shape.sticky_edges.y.append(steps[0].min())
        axes.update_datalim([(edges[0], steps[0].min()), (edges[-1], steps[1].max())])
        axes.autoscale_view()
        return
    axes.bar(
        heights.index,
        heights,
        bottom=below,
        width=0.5 if len(days) <= 7 else 0.8,
        label=label,
        color=colour,
        edgecolor="white",
        linewidth=0.5,
    )


def _shade(axes: Axes, gaps: list[pd.Timestamp], label: str) -> None:
    """Shade days, each run of days as one."""
    begin = None
    for number, day in enumerate(gaps):
        begin = begin or day
        is_last = number + 1 == len(gaps) or gaps[number + 1] - day > pd.Timedelta(days=1)
        if is_last:
            axes.axvspan(
                mdates.date2num(begin - _HALF_A_DAY),
                mdates.date2num(day + _HALF_A_DAY),
                color=_GAP_COLOUR,
                lw=0,
                zorder=0,
                label=label,
            )
            begin = None


def _shades(axes: Axes) -> list[Patch]:
    """One of the shaded spans, for the legend."""
    return [patch for patch in axes.patches if patch.get_label() == "no GMV"][:1]


def _mark(axes: Axes, days: pd.DatetimeIndex, tops: pd.Series, marks: Marks) -> int:
    """Put marks above the bars of marked days; returns how many points above its bar a label is free of them."""
    free = 3
    for marked, marker, colour, label in (
        (marks.restated, "D", "#222222", "restated"),
        (marks.pending, "o", "white", "pending"),
        (marks.odd, "v", "#D55E00", "check it"),
    ):
        inside = sorted(day for day in set(marked) if days[0] <= day <= days[-1])
        if inside:
            lift = offset_copy(axes.transData, axes.get_figure(root=True), y=free + 2, units="points")
            axes.plot(
                [mdates.date2num(day) for day in inside],
                [tops.get(day, 0.0) for day in inside],
                linestyle="none",
                marker=marker,
                markersize=5,
                markerfacecolor=colour,
                markeredgecolor="#222222",
                markeredgewidth=0.8,
                label=label,
                transform=lift,
                clip_on=False,
                zorder=4,
            )
            free += 7
    return free


def _marked_in_words(days: pd.DatetimeIndex, marked: Collection[pd.Timestamp], what: str) -> str:
    inside = sorted(day for day in set(marked) if days[0] <= day <= days[-1])
    if not inside:
        return ""
    more = f" and {len(inside) - 10:,} more" if len(inside) > 10 else ""
    return f" Marked as {what}: {', '.join(_day(day) for day in inside[:10])}{more}."


def _label_bars(
    axes: Axes, size: Size, days: pd.DatetimeIndex, totals: pd.Series, unit: int, lift: int
) -> None:
    """The exact total above each bar, where all of them have room."""
    closest = pd.Series(totals.index).diff().min() / pd.Timedelta(days=1) if len(totals) > 1 else len(days)
    room = closest / max(len(days), 2) * (size.width - 1) * 0.9  # inches
    longest = max(len(f"{total:,.2f}") for total in totals) * 0.085
    if longest > room or (size.is_narrow and len(days) > 7):
        return
    for day, total in totals.items():
        axes.annotate(
            f"{total:,.2f}",
            (mdates.date2num(day), float(total) / unit),
            xytext=(0, lift),
            textcoords="offset points",
            ha="center",
            size=9,
        )


def _unit(largest: Decimal) -> tuple[int, str]:
    return (1_000_000, ", in millions") if largest >= _IN_MILLIONS_FROM else (1, "")


def _thousands(axes: Axes, whole: bool = False) -> None:
    """Ticks from 0 to a round number above the highest bar, with thousands separators."""
    locator = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=whole, min_n_ticks=2)
    highest = axes.dataLim.y1 if axes.has_data() else 0.0
    ticks = locator.tick_values(0, highest * 1.05 or 1.0)
    axes.set_yticks(ticks, [f"{tick:,.10g}" for tick in ticks])
    axes.set_ylim(0, ticks[-1])


def _legend(figure: Figure, handles: Sequence[Any]) -> None:
    """A legend below the figure, which grows by it, in as many columns as have room for its names."""
    for columns in (4, 3, 2, 1):
        legend = figure.legend(handles=handles, loc="outside lower left", ncols=columns)
        shown = legend.get_window_extent()
        if shown.x1 <= figure.bbox.width or columns == 1:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + shown.height / figure.dpi)


def _dates(axes: Axes, size: Size, days: pd.DatetimeIndex) -> None:
    """The whole span of days, with the year under the first date and wherever it changes."""
    margin = 0.6 if len(days) > 2 else 1.5
    axes.set_xlim(mdates.date2num(days[0]) - margin, mdates.date2num(days[-1]) + margin)
    ticks = _spaced_days(days, size.most_dates) or _spaced_months(days, size.most_dates)
    by_month = len(ticks) > 1 and all(day.day == 1 for day in ticks)
    labels = []
    for before, day in zip([None, *ticks], ticks, strict=False):
        date = f"{day:%b}" if by_month else f"{day.day} {day:%b}"
        changes_year = before is None or before.year != day.year
        labels.append(f"{date}\n{day.year}" if changes_year else date)
    axes.set_xticks([mdates.date2num(day) for day in ticks], labels)


def _spaced_days(days: pd.DatetimeIndex, most: int) -> list[pd.Timestamp]:
    for step in (1, 2, 7, 14):
        if len(days) <= most * step:
            return list(days[::step])
    return []


def _spaced_months(days: pd.DatetimeIndex, most: int) -> list[pd.Timestamp]:
    firsts = [day for day in days if day.day == 1]
    for step in (1, 2, 3, 6, 12, 24, 60):
        chosen = [day for day in firsts if (day.year * 12 + day.month - 1) % step == 0]
        if len(chosen) <= most:
            return chosen
    return firsts[:: len(firsts) // most]


def _shortened(name: str, length: int) -> str:
    """A name without its middle where it is too long: many differ at their end."""
    plain = " ".join(name.split())
    end = length // 3
    return plain if len(plain) <= length else f"{plain[: length - 1 - end]}…{plain[-end:]}"


def _span(days: pd.DatetimeIndex) -> str:
    return _day(days[0]) if len(days) == 1 else f"{_day(days[0])} to {_day(days[-1])}"


def _day(day: pd.Timestamp) -> str:
    return f"{day.day} {day:%b %Y}"


def _png(figure: Figure) -> str:
    drawn = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(drawn, format="png", metadata={"Software": None})
    return base64.b64encode(drawn.getvalue()).decode("ascii")
