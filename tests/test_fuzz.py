"""The sample with its bytes changed at random: no crash, no lost record, no wrong cent.

What the pipeline makes of a file is compared with `reference`, which reads it by the same rules but by other
code, and the published numbers with the model over the records that the reference accepts.

`make fuzz` tries 10,000 files in each way that needs no lake of its own, and some dozens of whole lakes.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import model
import pyarrow.parquet as pq
import pytest
import reference
from gmv import landing, silver
from gmv.settings import PROJECT
from gmv.tables import EVENT_TABLES, EventTable
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from model import EVENT_CLASSES, Event
from pipeline import TestLake
from pyspark.sql import DataFrame, SparkSession

FILES = int(os.environ.get("FUZZ_FILES", "300"))
LAKES = int(os.environ.get("FUZZ_LAKES", "1"))
FILES_OF_A_LAKE = 45
FILES_OF_A_BATCH = 1000

SAMPLE = {
    event: (PROJECT / "data_lake" / "landing" / f"{event.name}.csv").read_bytes() for event in EVENT_TABLES
}
INGESTED_AT = datetime(2024, 1, 1)
TOKENS = (
    *(
        b'"',
        b'""',
        b",",
        b",,",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\0",
        b"\xff",
        b"\xc3",
        b"\xef\xbb\xbf",
        b"\xef\xbf\xbd",
    ),
    *(
        b";",
        b"\t",
        b"\\",
        b"\\N",
        b"NULL",
        b"NaN",
        b"1e3",
        b"-",
        b"-0",
        b"+5",
        b".",
        b"0",
        b"00",
        b"9" * 20,
        b"19.999",
    ),
    *(
        b"2023-02-30",
        b"9999-12-31",
        b"0001-01-01",
        b"2023-02-08",
        b" ",
        b"\xc2\xa0",
        b"\xe3\x80\x80",
        b"\xd9\xa1",
    ),
    *(
        b"'",
        b"T",
        b"Z",
        b"+01:00",
        b".1234567",
        b"=1+1",
        b"<b>",
        b"\x1a",
        b"\x0b",
        b"\xe2\x80\xa8",
        b"55",
        b"56",
    ),
)


def mutated(content: bytes, dice: random.Random) -> bytes:
    """The bytes with one to four changes."""
    changed = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(changed) + 1)
        match dice.randrange(9):
            case 0 | 1 | 2:
                changed[at:at] = dice.choice(TOKENS)
            case 3:
                token = dice.choice(TOKENS)
                changed[at : at + len(token)] = token
            case 4 if at < len(changed):
                changed[at] ^= 1 << dice.randrange(8)
            case 5:
                del changed[at : at + dice.choice((1, 1, 1, 2, 5, 20))]
            case 6:  # a line again, or at another place
                lines = bytes(changed).splitlines(keepends=True)
                lines.insert(dice.randrange(len(lines) + 1), dice.choice(lines)) if lines else None
                changed = bytearray(b"".join(lines))
            case 7:  # a digit becomes another
                digits = [index for index, byte in enumerate(changed) if chr(byte).isdigit() and byte < 128]
                if digits:
                    changed[dice.choice(digits)] = ord(dice.choice("0123456789"))
            case 8 if dice.randrange(4) == 0:
                del changed[at:]
    return bytes(changed)


@dataclass(frozen=True)
class Mutant:
    """A changed file of the sample, and what the reference makes of it: None where it is refused."""

    seed: int
    event: EventTable
    content: bytes
    expected: dict[int, Event | None] | None

    @classmethod
    def of(cls, seed: int, ingested_at: datetime) -> Mutant:
        dice = random.Random(seed)
        event = dice.choice(EVENT_TABLES)
        content = mutated(SAMPLE[event], dice)
        return cls(seed, event, content, read(content, event, ingested_at))

    @property
    def name(self) -> str:
        return f"{self.event.name}-{self.seed}.csv"


def read(content: bytes, event: EventTable, ingested_at: datetime) -> dict[int, Event | None] | None:
    try:
        return reference.read(content, event.name, ingested_at)
    except reference.Unreadable:
        return None


def staged(folder: Path, name: str, content: bytes, event: EventTable) -> Path | None:
    """The parquet file of a landed file's records; None when it is refused."""
    (folder / "landing").mkdir(exist_ok=True)
    (folder / "landing" / name).write_bytes(content)
    (file,) = (one for one in landing.find(folder / "landing") if one.path == name)
    try:
        return landing.stage(file, event, "r1", INGESTED_AT, folder / "staged" / event.name).parquet
    except landing.Refused:
        return None
    finally:
        file.location.unlink()


# --- Records: any bytes, split as the reference splits them --------------------------------------------------


@hypothesis_settings(
    max_examples=FILES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.sampled_from(EVENT_TABLES), st.randoms(use_true_random=False), st.binary(max_size=12), st.booleans()
)
@example(EVENT_TABLES[1], random.Random(0), b"", True)
def test_any_bytes_are_split_into_the_records_of_the_reference(tmp_path, event, dice, inserted, is_long):
    content = mutated(SAMPLE[event], dice)
    at = dice.randrange(len(content) + 1)
    content = content[:at] + inserted + content[at:]
    if is_long:  # so that sound chunks, which Arrow splits, and others follow each other
        content += SAMPLE[event].partition(b"\n")[2] * 3
    parquet = staged(tmp_path, f"{event.name}.csv", content, event)
    expected = read_records(content, event)
    assert (parquet is None) == (expected is None)
    if parquet is not None:
        found = pq.read_table(parquet).to_pylist()
        assert [
            (row["line"], row["defect"], *(row[name] for name in event.column_names)) for row in found
        ] == expected


def read_records(content: bytes, event: EventTable) -> list[tuple] | None:
    """Line, defect and the table's raw values of each record, by the reference."""
    if read(content, event, INGESTED_AT) is None:
        return None
    header: list[str] | None = None
    found: list[tuple] = []
    for record in reference.records(content):
        names = [name.strip(reference.AROUND_NAMES).lower() for name in record.fields]
        if header is None:
            header = names if any(names) or len(names) > 1 else None
        elif record.is_damaged or len(record.fields) != len(header):
            defect = "encoding" if record.is_damaged else "field_count"
            found.append((record.line, defect, *[None] * len(event.columns)))
        else:
            texts = dict(zip(header, record.fields, strict=True))
            found.append((record.line, None, *(texts[name] for name in event.column_names)))
    return found


# --- Values: typed by Spark as the reference types them ------------------------------------------------------


@pytest.mark.parametrize("begin", range(0, FILES, FILES_OF_A_BATCH))
def test_silver_reads_the_values_of_the_reference(tmp_path, spark, begin):
    """Many files at once, so that Spark's price is paid once."""
    mutants = [Mutant.of(seed, INGESTED_AT) for seed in range(begin, min(FILES, begin + FILES_OF_A_BATCH))]
    parquets = [staged(tmp_path, mutant.name, mutant.content, mutant.event) for mutant in mutants]
    of_mutants = list(zip(mutants, parquets, strict=True))
    refused = {mutant.seed for mutant, parquet in of_mutants if parquet is None}
    assert refused == {mutant.seed for mutant in mutants if mutant.expected is None}
    found: dict[str, dict[int, Event | None]] = {}
    for event in EVENT_TABLES:
        files = [str(parquet) for mutant, parquet in of_mutants if parquet and mutant.event == event]
        for file, line, event_read in values(spark, event, files):
            assert line not in found.setdefault(file, {}), f"{file} line {line} is there twice"
            found[file][line] = event_read
    for mutant in mutants:
        if mutant.expected is not None:
            assert found.get(mutant.name, {}) == mutant.expected, f"{mutant.name}: {mutant.content!r}"
    assert sum(one is None for of_file in found.values() for one in of_file.values()) > len(mutants) // 10
    assert refused and len(refused) < len(mutants)


def values(spark: SparkSession, event: EventTable, files: list[str]) -> list[tuple]:
    """File, line, and the event as silver reads it; None where it rejects the record."""
    if not files:
        return []
    records: DataFrame = spark.read.parquet(*files)
    rows = (
        silver.read_values(records, event).select("file", "line", "reasons", "typed.*").toArrow().to_pylist()
    )
    return [
        (
            row["file"],
            row["line"],
            None
            if row["reasons"]
            else EVENT_CLASSES[event.name](**{name: row[name] for name in event.column_names}),
        )
        for row in rows
    ]


# --- Whole lakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(LAKES))
def test_the_published_numbers_are_the_models_over_the_accepted_records(tmp_path, spark, number):
    """Files of changed samples, all about the same few purchases: ties, copies and corrections of each other."""
    lake = TestLake(tmp_path)
    begin = 1_000_000 + number * FILES_OF_A_LAKE
    mutants = [Mutant.of(seed, datetime.now()) for seed in range(begin, begin + FILES_OF_A_LAKE)]
    half = FILES_OF_A_LAKE // 2
    for some in (mutants[:half], mutants[half:]):
        for mutant in some:
            (lake.landing / mutant.name).write_bytes(mutant.content)
        lake.run(notebooks=("01_bronze", "02_silver"))
    lake.run(notebooks=("03_gold",), accept="all", because="the files are changed at random")

    read_files = [mutant for mutant in mutants if mutant.expected is not None]
    outcomes = {row["path"]: row for row in lake.reader.rows("select * from bronze.files")}
    assert {mutant.name for mutant in mutants if outcomes[mutant.name]["outcome"] == "refused"} == {
        mutant.name for mutant in mutants if mutant.expected is None
    }
    rejected = Counter(row["file"] for row in lake.reader.rows("select file from silver.quarantine"))
    ingested = [one for one in read_files if outcomes[one.name]["outcome"] == "ingested"]
    for mutant in ingested:
        assert mutant.expected is not None
        assert outcomes[mutant.name]["records"] == len(mutant.expected)
        assert rejected[mutant.name] == sum(one is None for one in mutant.expected.values())
    events = [one for mutant in read_files for one in (mutant.expected or {}).values() if one is not None]
    versions = sum(
        row["n"]
        for event in EVENT_TABLES
        for row in lake.reader.rows(f"select count(*) as n from silver.{event.versions.name}")
    )
    assert versions == len(set(events))
    assert lake.daily_gmv() == model.daily_gmv(events)
    assert model.daily_gmv(events)
