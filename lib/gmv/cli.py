"""The command line: arguments in, exit code out; no logic."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import sys
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from gmv.terminal import Format, Rows, print_tables, say, showing, write_json, write_rows

if TYPE_CHECKING:
    from gmv.quality.acceptance import Acceptance
    from gmv.run.record import Record
    from gmv.run.runner import Request


class _Commands(TyperGroup):
    """Commands that tell of an interrupt as of any other failure; typer's own end silently, with 130."""

    def invoke(self, ctx: Any) -> Any:
        from gmv.errors import GmvError

        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise GmvError("Interrupted.") from interrupt  # a run that is on record says more


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Daily GMV by subsidiary, in double entry.\n\nSettings come from GMV_… variables; see docs/settings.md.",
)


def _place(text: str) -> Path:
    """The folder or address of an option; a script's variable that is empty must not mean the current folder."""
    if not text:
        raise typer.BadParameter("it is empty; name a place, or leave the option out.")
    return Path(text)


LakeOption = Annotated[
    Path | None,
    typer.Option(
        "--lake",
        parser=_place,
        metavar="PLACE",
        help="Folder of the Delta tables, or s3://bucket/prefix. \\[GMV_LAKE]",
    ),
]
LandingOption = Annotated[
    Path | None,
    typer.Option("--landing", parser=_place, metavar="PLACE", help="Where CSV files arrive. \\[GMV_LANDING]"),
]
RunsOption = Annotated[
    Path | None,
    typer.Option(
        "--runs-dir", parser=_place, metavar="PLACE", help="Where runs leave records. \\[GMV_RUNS_DIR]"
    ),
]
StartOption = Annotated[str, typer.Option("--start-date", metavar="YYYY-MM-DD", help="First day, inclusive.")]
EndOption = Annotated[str, typer.Option("--end-date", metavar="YYYY-MM-DD", help="Last day, inclusive.")]
AsOfOption = Annotated[
    str,
    typer.Option(
        "--as-of-date", metavar="YYYY-MM-DD", help="The day to take for today; days before it are closed."
    ),
]

RereadOption = Annotated[bool, typer.Option("--reread", help="Read every file again, known or not.")]
ResumeOption = Annotated[
    str, typer.Option("--resume", metavar="RUN", help="Take window and today from an older run.")
]
AcceptOption = Annotated[
    str, typer.Option("--accept", metavar="CHECK|all", help="Publish although this check fails.")
]
BecauseOption = Annotated[str, typer.Option("--because", metavar="TEXT", help="Why; kept on record.")]


FormatOption = Annotated[
    Format, typer.Option("--format", metavar="FORMAT", help="table, csv, spreadsheet or json.")
]


class ExportFormat(StrEnum):
    """How numbers are exported."""

    parquet = "parquet"
    csv = "csv"


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the stack trace of an error.")] = False,
) -> None:
    _State.debug = debug


class _State:
    debug = False


@app.command(
    epilog="Examples:\n\n  gmv run\n\n  gmv run --start-date 2023-02-01 --end-date 2023-02-28\n\n"
    "  gmv run --landing ~/inbox --lake ~/lake --as-of-date 2023-03-01\n\n"
    "  gmv run --resume 20230301T060000-1a2b\n\n"
    '  gmv run --accept refused_file --because "sent by mistake; the day is in the other file"'
)
def run(
    start_date: StartOption = "",
    end_date: EndOption = "",
    as_of_date: AsOfOption = "",
    reread: RereadOption = False,
    resume: ResumeOption = "",
    accept: AcceptOption = "",
    because: BecauseOption = "",
    lake: LakeOption = None,
    landing: LandingOption = None,
    runs_dir: RunsOption = None,
    record_to: Annotated[
        Path | None,
        typer.Option(
            "--record-to", metavar="FILE", help="Write run.json to this file, too, whatever the outcome."
        ),
    ] = None,
) -> None:
    """Take in what has arrived, publish the window's days (without one: all pending days), make the report."""
    from gmv.quality import acceptance
    from gmv.run import runner

    request = _request(
        start_date=start_date,
        end_date=end_date,
        as_of_date=as_of_date,
        lake=lake,
        landing=landing,
        runs_dir=runs_dir,
        reread=reread,
        resume=resume,
        record_to=record_to,
        accepting=acceptance.asked_for(accept, because),
    )
    record = runner.run(request, showing)
    _say_how_it_ended(record, request)


@app.command(
    epilog="Examples:\n\n  gmv plan\n\n  gmv plan --start-date 2023-02-01 --end-date 2023-02-28 --format csv\n\n"
    "It runs the pipeline on a copy of the lake's tables in TMPDIR and throws that away."
)
def plan(
    start_date: StartOption = "",
    end_date: EndOption = "",
    as_of_date: AsOfOption = "",
    reread: RereadOption = False,
    resume: ResumeOption = "",
    accept: AcceptOption = "",
    because: BecauseOption = "",
    output: FormatOption = Format.table,
    lake: LakeOption = None,
    landing: LandingOption = None,
    runs_dir: RunsOption = None,
) -> None:
    """What a run would do and change, and why, without writing anything; ends with 3 when checks would refuse."""
    from gmv import tell
    from gmv.errors import PublicationRefused
    from gmv.quality import acceptance
    from gmv.run import plan as planning

    request = _request(
        start_date=start_date,
        end_date=end_date,
        as_of_date=as_of_date,
        lake=lake,
        landing=landing,
        runs_dir=runs_dir,
        reread=reread,
        resume=resume,
        accepting=acceptance.asked_for(accept, because),
    )
    planned = planning.plan(request, showing)
    if output is Format.table:
        print_tables(tell.plan_tables(planned))
    elif output is Format.json:
        write_json(tell.plan_as_object(planned))
    else:
        write_rows(tell.PLAN_COLUMNS, tell.plan_rows(planned.changes), output)
    if planned.refused:
        raise PublicationRefused(f"This is only a plan; a run would say: {planned.refused}")


@app.command(epilog="Examples:\n\n  gmv report\n\n  gmv report --start-date 2023-02-01 --end-date 2023-02-28")
def report(
    start_date: StartOption = "",
    end_date: EndOption = "",
    as_of_date: AsOfOption = "",
    lake: LakeOption = None,
    runs_dir: RunsOption = None,
) -> None:
    """Make the report for any window, without running the pipeline."""
    from gmv.run import runner

    request = _request(
        start_date=start_date, end_date=end_date, as_of_date=as_of_date, lake=lake, runs_dir=runs_dir
    )
    print(f"Report: {runner.make_report(request, showing)}")


@app.command(
    epilog="Examples:\n\n  gmv show daily_gmv\n\n  gmv show daily_gmv --known-on 2023-02-15 --format csv\n\n"
    "  gmv show quarantine\n\n  gmv show problems\n\n  gmv show awaiting_item --format csv"
)
def show(
    table: Annotated[
        str, typer.Argument(help="Such as daily_gmv, gmv_ledger, silver/purchase, bronze/files, problems.")
    ],
    known_on: Annotated[
        str,
        typer.Option(
            "--known-on",
            metavar="YYYY-MM-DD",
            help="daily_gmv as the sources knew it at the end of that day.",
        ),
    ] = "",
    recorded_by: Annotated[
        str,
        typer.Option(
            "--recorded-by",
            metavar="YYYY-MM-DDTHH:MM",
            help="daily_gmv as this lake had published it by then (UTC).",
        ),
    ] = "",
    start_date: StartOption = "",
    end_date: EndOption = "",
    output: FormatOption = Format.table,
    lake: LakeOption = None,
) -> None:
    """Print a table, sorted, or a list of what is odd (gmv show problems names those that are not empty).

    On a terminal that is the last 1,000 rows. --format csv has all of them, exactly; spreadsheet is csv in which
    no text runs as a formula.
    """
    from gmv import show as shown
    from gmv.parameters import parse_date
    from gmv.publication import Window, state
    from gmv.quality import files, lists
    from gmv.tables import QUARANTINE

    if table in lists.LISTS and not (known_on or recorded_by or start_date or end_date):
        listed = lists.LISTS[table]
        found = listed.rows(state(_lake(lake)))
        if output is Format.table:
            drawn = found[: shown.MOST_DRAWN]
            note = shown.which_rows(listed.one_row_is, "first", len(drawn), len(found))
            say([Rows(listed.columns, drawn, table, note)])
        else:
            write_rows(listed.columns, found, output)
        return
    of = shown.table_named(table)
    # Either end alone is fine here: nothing is published.
    first, last = parse_date("--start-date", start_date), parse_date("--end-date", end_date)
    if first and last:
        Window(first, last)
    selected = shown.selection(
        of, first, last, parse_date("--known-on", known_on), _moment("--recorded-by", recorded_by)
    )
    reader = state(_lake(lake))
    if output is Format.table:
        drawn = selected.last(reader, shown.MOST_DRAWN)
        note = shown.which_rows(selected.one_row_is, "last", len(drawn), selected.count(reader))
        say([Rows(of.column_names, drawn, selected.title, note)])
        if of == QUARANTINE and drawn:
            say([Rows(files.BY_RULE, files.by_rule(reader), "by rule, with the first record of each")])
    else:
        write_rows(of.column_names, itertools.chain.from_iterable(selected.batches(reader)), output)


@app.command(
    epilog="Examples:\n\n  gmv explain 2023-02-18\n\n"
    "  gmv explain --start-date 2023-01-01 --end-date 2023-01-31 --format csv\n\n"
    "  gmv explain --run 20230401T060000-1a2b"
)
def explain(
    date: Annotated[str, typer.Argument(metavar="[DATE]", help="A day, YYYY-MM-DD.")] = "",
    start_date: StartOption = "",
    end_date: EndOption = "",
    run: Annotated[str, typer.Option("--run", help="What this run published and posted.")] = "",
    as_of_date: AsOfOption = "",
    output: FormatOption = Format.table,
    lake: LakeOption = None,
) -> None:
    """Why a day's number is what it is, and why it changed: to the cent, down to files and their values."""
    from gmv import explain as explaining
    from gmv import tell
    from gmv.errors import UsageError
    from gmv.parameters import parse_date
    from gmv.publication import Window, state
    from gmv.settings import settings

    if [bool(date), bool(start_date or end_date), bool(run)].count(True) != 1:
        raise UsageError("Name one of: a DATE; --start-date and --end-date; --run.")
    today = parse_date("--as-of-date", as_of_date) or settings().today()
    reader = state(_lake(lake))
    if run:
        changes = explaining.run(reader, run, today)
    else:
        first, last = parse_date("DATE", date), parse_date("DATE", date)
        if not date:
            first, last = parse_date("--start-date", start_date), parse_date("--end-date", end_date)
        changes = explaining.days(reader, Window(first, last), today)
    if output is Format.table:
        print_tables(tell.explanation(changes, run))
    else:
        write_rows(tell.EXPLAIN_COLUMNS, tell.explanation_rows(changes), output)


class StatusFormat(StrEnum):
    """How the status is printed."""

    text = "text"
    json = "json"
    openmetrics = "openmetrics"


@app.command(
    epilog="Examples:\n\n  gmv status\n\n  gmv status --lake ~/lake --as-of-date 2023-03-01\n\n"
    "  gmv status --format openmetrics > /var/lib/node_exporter/gmv.prom"
)
def status(
    as_of_date: AsOfOption = "",
    output: Annotated[StatusFormat, typer.Option("--format", help="How to print.")] = StatusFormat.text,
    lake: LakeOption = None,
    runs_dir: RunsOption = None,
) -> None:
    """The last run, pending days, freshness and open problems; ends with 1 when something is late or broken."""
    from gmv import show as shown
    from gmv import status as looking
    from gmv import tell
    from gmv.parameters import parse_date
    from gmv.publication import state
    from gmv.settings import settings

    today = parse_date("--as-of-date", as_of_date) or settings().today()
    found = looking.status(state(_lake(lake)), today)
    if output is StatusFormat.openmetrics:
        sys.stdout.write(found.as_openmetrics())
    elif output is StatusFormat.json:
        sys.stdout.write(shown.as_json(found.as_dict()))
    else:
        say(tell.status(found, _folder("runs_dir", runs_dir)))
    if not found.is_well:
        raise typer.Exit(1)


@app.command(epilog="Examples:\n\n  gmv verify\n\n  gmv verify --format json --lake ~/lake")
def verify(
    as_of_date: AsOfOption = "",
    output: FormatOption = Format.table,
    lake: LakeOption = None,
    runs_dir: RunsOption = None,
) -> None:
    """Recompute every number from bronze by a second engine and SQL of its own, and compare to the cent."""
    from gmv import tell
    from gmv.errors import GmvError
    from gmv.run import runner

    certificate, path = runner.verify_all(
        _request(as_of_date=as_of_date, lake=lake, runs_dir=runs_dir), showing
    )
    if output is Format.json:
        print(json.dumps(certificate.as_dict(), indent=2, ensure_ascii=False))
    elif output is Format.csv:
        write_rows(tell.CERTIFICATE_COLUMNS, tell.certificate_rows(certificate), output)
    else:
        print_tables(tell.certificate(certificate))
        print(f"Kept in         {path}")
    if not certificate.agrees:
        raise GmvError(
            f"Tables differ from what bronze gives. {'. '.join(certificate.faults())}. {certificate.advice()}"
        )


@app.command(
    epilog="Examples:\n\n  gmv retract purchase-2023-02.csv --because 'prices in the wrong currency'\n\n"
    "  gmv retract purchase-2023-02.csv --undo --because 'they were right'\n\n"
    "  gmv retract 5f0c2a91 --because 'sent by mistake'"
)
def retract(
    file: Annotated[
        str, typer.Argument(help="The file's path below landing, or its sha256 (eight digits or more).")
    ],
    because: Annotated[str, typer.Option("--because", help="Why, in a sentence: kept for ever.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Put a retracted file back.")] = False,
    no_run: Annotated[
        bool, typer.Option("--no-run", help="Only note it; the next gmv run takes it in.")
    ] = False,
    as_of_date: AsOfOption = "",
    lake: LakeOption = None,
    landing: LandingOption = None,
    runs_dir: RunsOption = None,
) -> None:
    """Take a file's events out of every number, as if it had not arrived; then run, and publish all pending days."""
    from gmv.errors import UsageError
    from gmv.run import runner

    if not because.strip() and not undo:
        raise UsageError("--because is missing: say in a sentence why this file must not count.")
    request = _request(as_of_date=as_of_date, lake=lake, landing=landing, runs_dir=runs_dir)
    record = runner.retract(request, file, because.strip(), showing, print, undo=undo, run=not no_run)
    if record:
        _say_how_it_ended(record, request)
    else:
        print("Published numbers are as before; the next gmv run takes this in.")


@app.command(epilog="Examples:\n\n  gmv rebuild\n\n  gmv rebuild --lake ~/lake")
def rebuild(
    as_of_date: AsOfOption = "",
    lake: LakeOption = None,
    runs_dir: RunsOption = None,
) -> None:
    """Make silver anew from bronze, post what the ledger lacks, repair what is damaged. Publishes nothing."""
    from gmv import tell
    from gmv.run import runner

    record, certificate = runner.rebuild(
        _request(as_of_date=as_of_date, lake=lake, runs_dir=runs_dir), showing
    )
    print_tables(tell.rebuilt(record.steps["rebuild"], certificate))
    print(f"Kept in         {record.place}")


@app.command(epilog="Examples:\n\n  gmv maintain\n\n  gmv maintain --lake ~/lake")
def maintain(lake: LakeOption = None, runs_dir: RunsOption = None) -> None:
    """Make tables quick to read again: fewer files, purchases side by side, unused files removed."""
    from gmv.run import runner

    done = runner.maintain(_request(lake=lake, runs_dir=runs_dir), showing)
    columns = ("table", "rows", "files_before", "files", "bytes_before", "bytes")
    say([Rows(columns, done, "maintained: no row has changed")])


@app.command(
    epilog="Examples:\n\n  gmv export --to s3://acme-gmv-analytics/export/daily_gmv\n\n"
    "  gmv export --to ~/finance --format csv --start-date 2023-02-01 --end-date 2023-02-28"
)
def export(
    to: Annotated[Path, typer.Option("--to", help="Folder for the files, or s3://bucket/prefix.")],
    start_date: StartOption = "",
    end_date: EndOption = "",
    output: Annotated[
        ExportFormat, typer.Option("--format", help="A parquet file per day, or one csv.")
    ] = ExportFormat.parquet,
    lake: LakeOption = None,
) -> None:
    """Write the published numbers as plain files, each whole or not at all, with a manifest."""
    from gmv import export as exporting
    from gmv.lake.location import location
    from gmv.lake.reader import Reader
    from gmv.parameters import parse_date
    from gmv.publication import Window

    window = Window(parse_date("--start-date", start_date), parse_date("--end-date", end_date))
    done = exporting.FORMATS[output](Reader(_lake(lake)), location(to), window)
    what = "day(s)" if output is ExportFormat.parquet else "file(s)"
    print(
        f"{len(done.written)} {what} written, {len(done.unchanged)} unchanged, {len(done.removed)} removed: "
        f"{location(to) / exporting.MANIFEST}"
    )


@app.command(
    name="alert-test",
    epilog="Example:\n\n  GMV_ALERT_URLS=mailto://user:password@example.com gmv alert-test",
)
def alert_test() -> None:
    """Send a test message to each address of GMV_ALERT_URLS; ends with 1 when one is not delivered."""
    from gmv.errors import UsageError
    from gmv.run import alerts

    results = alerts.test_message()
    if not results:
        raise UsageError(
            "GMV_ALERT_URLS is empty, so alerts go nowhere. Set it; docs/alerts.md has examples."
        )
    for address, failure in results:
        print(f"{address.name:<16} {f'NOT delivered: {failure}' if failure else 'delivered'}")
    if any(failure for _, failure in results):
        raise typer.Exit(1)


@app.command(epilog="Example:\n\n  gmv doctor")
def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Fetch Delta's jars and prepare fast starts, where missing.")
    ] = False,
    fix_s3: Annotated[bool, typer.Option("--fix-s3", help="Fetch Spark's jars for S3 too.")] = False,
    lake: LakeOption = None,
    landing: LandingOption = None,
    runs_dir: RunsOption = None,
) -> None:
    """Check Java, Spark, Delta's jars, folders, disk, lock and tables, and say what to do where something is wrong."""
    from gmv import doctor as doctoring
    from gmv.lake import spark

    if fix or fix_s3:
        from gmv.run import warmup

        spark.fetch_jars()
        if fix_s3:
            spark.fetch_s3_jars()
        warmup.keep_classes_ready()
    findings = doctoring.examine(
        _folder("lake", lake), _folder("landing", landing), _folder("runs_dir", runs_dir)
    )
    for finding in findings:
        print(f"{'ok ' if finding.fit else 'NOT'} {finding.what:<36} {finding.found}")
    if not all(finding.fit for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; errors that a user can act on end without a stack trace."""
    from gmv.errors import GmvError, PublicationRefused, is_disk_full

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without … ends no run
    try:
        app()
    except GmvError as error:
        if _State.debug:
            raise
        print(f"gmv: {error}", file=sys.stderr)
        if isinstance(error, PublicationRefused) and error.report:
            print(f"Report: {error.report}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stdout = None  # type: ignore[assignment]
        sys.exit(1)
    except Exception as error:
        if _State.debug:
            raise
        said = str(error).strip().splitlines()
        if told := _explained_by_store(error):
            print(f"gmv: {told}", file=sys.stderr)
            sys.exit(1)
        if is_disk_full(error):
            print(
                "gmv: No space left on the disk of the lake, of what is written beside it, or of TMPDIR. What was "
                "committed stays; make room and run again.",
                file=sys.stderr,
            )
            sys.exit(1)
        print(
            f"gmv: {type(error).__name__}: {said[0] if said else ''} (gmv --debug … shows where)",
            file=sys.stderr,
        )
        sys.exit(1)


def _explained_by_store(error: Exception) -> str:
    """What an error of an object store means, where lake, landing or runs are in one; else nothing."""
    from gmv.errors import UsageError
    from gmv.lake import location
    from gmv.settings import settings

    try:
        chosen = [*sys.argv, settings().lake, settings().landing, settings().runs_dir]
    except UsageError:
        return ""
    texts = [str(one).rpartition("=")[2] for one in chosen]
    places = [location.location(text) for text in texts if location.is_remote(text)]
    said = location.chained(error)
    told = location.explanation(said) if places else None
    if not told:
        return ""
    buckets = [one for place in places for one in location.over_buckets(place)]
    named = (one for one in buckets if f"{one.split('/')[2]}/" in said or f"{one.split('/')[2]}?" in said)
    return f"{next(named, places[0])}: {told}"


def _request(
    *,
    start_date: str = "",
    end_date: str = "",
    as_of_date: str = "",
    lake: Path | None = None,
    landing: Path | None = None,
    runs_dir: Path | None = None,
    reread: bool = False,
    resume: str = "",
    record_to: Path | None = None,
    accepting: Acceptance | None = None,
) -> Request:
    from gmv.errors import UsageError
    from gmv.parameters import parse_date
    from gmv.publication import Window
    from gmv.run.runner import Request

    if record_to and not record_to.absolute().parent.is_dir():
        raise UsageError(f"--record-to: there is no folder {record_to.absolute().parent}.")
    return Request(
        lake=_folder("lake", lake),
        landing=_folder("landing", landing),
        runs_dir=_folder("runs_dir", runs_dir),
        window=Window(parse_date("--start-date", start_date), parse_date("--end-date", end_date)),
        as_of_date=parse_date("--as-of-date", as_of_date),
        reread=reread,
        resume=resume,
        record_to=record_to.absolute() if record_to else None,
        accepting=accepting,
    )


def _folder(setting: str, given: Path | None) -> Path:
    from gmv.lake.location import location
    from gmv.settings import settings

    return location(given or getattr(settings(), setting))


def _lake(given: Path | None) -> Path:
    """The lake, for a command that makes none: a mistyped one must not look like one without problems."""
    from gmv.lake.location import require_lake

    lake = _folder("lake", given)
    require_lake(lake)
    return lake


def _moment(name: str, text: str) -> dt.datetime | None:
    from gmv.errors import UsageError

    try:
        moment = dt.datetime.fromisoformat(text) if text else None
    except ValueError:
        moment = None
    is_day_alone = "T" not in text and " " not in text
    if text and (moment is None or moment.tzinfo or is_day_alone):
        raise UsageError(f"{name}: {text!r} is no UTC time; write it as YYYY-MM-DDTHH:MM.")
    return moment


def _say_how_it_ended(record: Record, request: Request) -> None:
    from gmv import tell

    accepting = request.accepting.check if request.accepting else ""
    say(tell.run_ended(record, request.runs_dir, accepting))
