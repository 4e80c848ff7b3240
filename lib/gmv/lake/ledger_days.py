"""The ledger added up by day, kept from run to run: however long it is, a run adds up only what is new in it.

Postings are only ever appended, in batches with a ledger_seq of their own. So the sums of older batches hold, as long
as Delta's log tells of nothing but appends since they were taken, and the ledger still has as many postings of these
batches. Otherwise the whole ledger is added up.
"""

from __future__ import annotations

from dataclasses import dataclass

from gmv.lake import merging, records
from gmv.lake.reader import Reader
from gmv.tables import GMV_LEDGER, LEDGER_DAYS

_ADDED_UP = """
    select transaction_date, subsidiary, known_on, cause, ledger_seq, run,
        cast(sum(amount) as decimal(38, 2)) as amount, cast(sum(purchases) as bigint) as purchases,
        count(*) as postings
    from gold.gmv_ledger {where} group by all"""


@dataclass(frozen=True)
class _Kept:
    """What is kept: the sums of all batches up to a ledger_seq, as a version of the ledger had them.

    Attributes:
        committed_at: when that version was committed, in milliseconds since 1970: a ledger that was brought back
            from a backup, or made anew, may have had another commit under the same version.
        postings: how many the sums are of.
    """

    version: int
    committed_at: int
    seq: int
    postings: int

    @property
    def newer(self) -> str:
        """SQL: the postings that are not among them."""
        return f"where ledger_seq > {self.seq}"


def by_day(reader: Reader) -> str:
    """A query for the ledger's postings, added up.

    Returns:
        SQL that gives transaction_date, subsidiary, known_on, cause, ledger_seq, run, amount decimal(38,2), purchases
        and postings (how many); one row or more of each of the first six.
    """
    kept = _kept(reader)
    if not kept:
        return _ADDED_UP.format(where="")
    sums = f"select * exclude (ledger_version, ledger_committed_at) from monitoring.{LEDGER_DAYS.name}"
    if kept.version == reader.version(GMV_LEDGER):
        return sums
    return f"{sums} union all {_ADDED_UP.format(where=kept.newer)}"


def newest_seq(reader: Reader) -> int:
    """The greatest ledger_seq of the ledger; 0 while it has no posting."""
    (row,) = reader.rows(f"select coalesce(max(ledger_seq), 0) as seq from ({by_day(reader)})")
    return int(row["seq"])


def keep(reader: Reader) -> None:
    """Keep the sums of what is new in the ledger, or of all of it where what is kept does not hold any more.

    Args:
        reader: the lake as it is now.
    """
    version = reader.version(GMV_LEDGER)
    kept = _kept(reader)
    if version is None or (kept and kept.version == version):
        return
    sums = reader.arrow(
        f"select *, $version as ledger_version, $committed_at as ledger_committed_at "
        f"from ({_ADDED_UP.format(where=kept.newer if kept else '')}) order by all",
        version=version,
        committed_at=records.commits(reader.lake, GMV_LEDGER, version)[version]["timestamp"],
    ).cast(records.arrow_schema(LEDGER_DAYS))
    if not kept:
        records.replace_columns(reader.lake, LEDGER_DAYS, sums)
    elif sums.num_rows:
        records.append_columns(reader.lake, LEDGER_DAYS, sums)


def _kept(reader: Reader) -> _Kept | None:
    """What is kept and holds for the ledger of a reader; None where nothing does."""
    (row,) = reader.rows(
        "select max(ledger_version) as version, max(ledger_seq) as seq, "
        "arg_max(ledger_committed_at, ledger_version) as committed_at, cast(sum(postings) as bigint) as postings "
        f"from monitoring.{LEDGER_DAYS.name}"
    )
    until = reader.version(GMV_LEDGER)
    if row["version"] is None or until is None or until < row["version"]:
        return None
    kept = _Kept(**row)
    commits = records.commits(reader.lake, GMV_LEDGER, kept.version)
    since = [commits.get(version) for version in range(kept.version + 1, until + 1)]
    is_same = commits.get(kept.version, {}).get("timestamp") == kept.committed_at
    if not is_same or not all(one and _adds_only(one) for one in since):
        return None
    return kept if not since or kept.postings == _older_postings(reader, kept) else None


def _older_postings(reader: Reader, kept: _Kept) -> int:
    """How many postings of the batches whose sums are kept the ledger has now: all of them without the newer ones."""
    (row,) = reader.rows(
        "select (select count(*) from gold.gmv_ledger) "
        f"- (select count(*) from gold.gmv_ledger {kept.newer}) as postings"
    )
    return int(row["postings"])


def _adds_only(commit: dict) -> bool:
    """Whether a commit of the ledger leaves all postings that were there."""
    operation, how = commit["operation"], commit.get("operationParameters", {})
    return operation in merging.KEEPS_ROWS or (operation == "WRITE" and how.get("mode") == "Append")
