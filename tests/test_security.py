"""What arrives stays data, and what is secret stays out of sight."""

from __future__ import annotations

import subprocess
from decimal import Decimal
from pathlib import Path

import pytest
from command import GMV
from gmv import identity, landing, show
from gmv.errors import UsageError
from gmv.lake import records
from gmv.lake.reader import Reader
from gmv.quality import acceptance
from gmv.tables import DAILY_GMV, PURCHASE_EXTRA_INFO
from papermill.translators import PythonTranslator
from small_lake import day, rows_of, write

HOSTILE = "=cmd|' /C calc'!A0"
SQL = "'; drop table gold.daily_gmv; --"


@pytest.mark.parametrize(
    "run_id", ["../outside", "a/b", "/tmp/x", "..", ".hidden", "a b", "a\n", "x" * 65, "ä"]
)
def test_a_run_id_can_not_leave_the_runs_folder(run_id):
    with pytest.raises(UsageError, match="is no run id"):
        identity.check_run_id(run_id)
    assert identity.check_run_id("nightly-2023.02_28") == "nightly-2023.02_28"


@pytest.mark.parametrize("name", ["../../etc/passwd", "gold/../gold/daily_gmv", "daily_gmv; drop", "'", ""])
def test_show_takes_the_name_of_a_table_or_list_and_nothing_else(tmp_path, name):
    with pytest.raises(UsageError, match="There is no table or list"):
        show.table_named(name)


def test_a_file_outside_of_landing_is_not_read_through_a_link(tmp_path):
    (tmp_path / "landing").mkdir()
    (tmp_path / "secret.csv").write_text("transaction_datetime,transaction_date,purchase_id,subsidiary\n")
    (tmp_path / "landing" / "purchase_extra_info-1.csv").symlink_to(tmp_path / "secret.csv")
    (tmp_path / "landing" / "purchase_extra_info").symlink_to(tmp_path)
    (file,) = landing.find(tmp_path / "landing")
    with pytest.raises(landing.Refused, match="leads out of the landing folder"):
        landing.sha256(file)
    with pytest.raises(landing.Refused, match="leads out of the landing folder"):
        landing.stage(file, PURCHASE_EXTRA_INFO, "r1", records.now(), tmp_path / "staged")


def test_values_are_parameters_of_sql_and_never_its_text(tmp_path):
    rows = rows_of("transaction_date subsidiary gmv", (day("2023-02-08"), SQL, Decimal("1.00")))
    write(tmp_path, DAILY_GMV, rows)
    shown = show.rows(Reader(tmp_path), DAILY_GMV)
    assert shown == rows
    assert Reader(tmp_path).rows("select gmv from gold.daily_gmv where subsidiary = $it", it=SQL) == [
        {"gmv": Decimal("1.00")}
    ]


def test_a_lake_whose_path_holds_quotes_is_read(tmp_path):
    lake = tmp_path / 'it\'s a "lake"; --'
    rows = rows_of("transaction_date subsidiary gmv", (day("2023-02-08"), "nac", Decimal("1.00")))
    write(lake, DAILY_GMV, rows)
    assert show.rows(Reader(lake), DAILY_GMV) == rows


@pytest.mark.parametrize("text", [HOSTILE, "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "\r=1"])
def test_a_spreadsheet_gets_no_formula_and_csv_stays_exact(text):
    rows = [{"subsidiary": text, "gmv": Decimal("-5.00")}]
    exact = show.as_csv(["subsidiary", "gmv"], rows)
    guarded = show.as_csv(["subsidiary", "gmv"], rows, for_spreadsheet=True)
    assert text in exact and "'" + text not in exact.replace(HOSTILE, "")
    assert guarded.startswith("\ufeff") and f"'{text}" in guarded
    assert guarded.rstrip("\n").endswith(",-5.00"), "an amount is a number"
    assert show.as_csv(["a"], [{"a": "nacional"}], for_spreadsheet=True) == "\ufeffa\nnacional\n"


def test_show_prints_for_a_spreadsheet(tmp_path):
    write(
        tmp_path,
        DAILY_GMV,
        rows_of("transaction_date subsidiary gmv", (day("2023-02-08"), "=1+1", Decimal(1))),
    )
    command = [GMV, "show", "daily_gmv", "--lake", tmp_path, "--format"]
    printed = {
        form: subprocess.run([*command, form], capture_output=True, text=True, check=True).stdout
        for form in ("csv", "spreadsheet")
    }
    assert printed["csv"].splitlines()[1] == "2023-02-08,=1+1,1.00"
    assert printed["spreadsheet"].splitlines()[1] == "2023-02-08,'=1+1,1.00"


@pytest.mark.parametrize("because", ['he said "yes"', "it's fine\nimport os", "\\", "{{x}} $(id)", "\u2028ä"])
def test_a_reason_reaches_the_notebook_as_the_text_that_it_is(because):
    """papermill writes parameters into a cell as source."""
    asked = acceptance.asked_for("refused_file", because)
    namespace: dict = {}
    exec(PythonTranslator.codify({"because": asked.because}), namespace)
    assert namespace["because"] == because.strip()


def test_the_servers_token_is_in_no_process_list_and_no_log(server):
    commands = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(process.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    assert any("SparkConnectServer" in command for command in commands)
    assert not any(server.token in command for command in commands)
    assert server.token not in server.log.read_text()
