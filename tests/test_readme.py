"""README and docs: the commands work as written, and nothing is named that does not exist.

In README, a ```console block is a contract: each line that begins with `$ ` is run, in order, and the lines
below it are what it prints on stdout, where `…` is anything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
import yaml
from command import own_environment
from gmv.cli import app
from gmv.settings import PROJECT, Settings
from gmv.tables import TABLES, Table
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

README = PROJECT / "README.md"
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
PAGES = [README, *sorted((PROJECT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands
TARGETS = set(re.findall(r"^([a-z0-9-]+):.*## ", (PROJECT / "Makefile").read_text(), re.MULTILINE))
SECONDS = 400


@dataclass(frozen=True)
class Example:
    """A command in README, and what it prints."""

    command: str
    shown: str


def examples(text: str) -> list[Example]:
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            found.append(Example(command, shown))
    return found


def prints(shown: str, printed: str) -> bool:
    """Whether the output is as shown; `…` stands for any text, on a line of its own for any lines."""
    lines = [
        r"(?:.*\n)*" if line == "…\n" else re.escape(line).replace("…", ".*")
        for line in shown.splitlines(keepends=True)
    ]
    return re.fullmatch("".join(lines), printed) is not None


def named_in_code(text: str) -> list[str]:
    """The code of a page: its fenced blocks, line by line, and what stands between backticks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", prose)


def unknown_names(text: str) -> list[str]:
    """Settings, tables, commands, options and make targets that a page names but that do not exist."""
    tables = {table.path for table in TABLES}
    layers = "|".join(sorted({table.layer for table in TABLES}))
    settings = {f"GMV_{name.upper()}" for name in Settings.model_fields} | orchestrators_variables()
    unknown = [name for name in re.findall(r"\bGMV_[A-Z_]+[A-Z]\b", text) if name not in settings]
    for code in named_in_code(text):
        unknown += [
            f"{layer}/{name}"
            for layer, name in re.findall(rf"(?<![\w/.])({layers})[/.]([a-z]\w*)\b(?!\.)", code)
            if f"{layer}/{name}" not in tables
        ]
        unknown += [
            f"make {target}" for target in re.findall(r"\bmake ([a-z0-9-]+)", code) if target not in TARGETS
        ]
        for name, rest in re.findall(r"\bgmv (?:--debug )?([a-z]+(?:-[a-z]+)*)([^&|]*)", code):
            if name not in COMMANDS:
                unknown.append(f"gmv {name}")
                continue
            options = {"--help", *(option for one in COMMANDS[name].params for option in one.opts)}
            unknown += [
                f"gmv {name} {option}" for option in re.findall(r"--[a-z-]+", rest) if option not in options
            ]
    return unknown


def orchestrators_variables() -> set[str]:
    """The variables that the files for orchestrators read, beside gmv's own settings."""
    folder = PROJECT / "orchestration"
    files = [*folder.glob("*/gmv[_-]daily*"), *folder.glob("*/dags/*.py")]
    return {name for file in files for name in re.findall(r"GMV_[A-Z_]+[A-Z]\b", file.read_text())}


def broken_links(page: Path, text: str) -> list[str]:
    """Links of a page to files, and to headings in them, that are not there."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (heading and heading not in headings(target.read_text())):
            broken.append(link)
    return broken


def headings(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def documented_tables(text: str) -> dict[str, list[tuple[str, str]]]:
    """Of docs/tables.md: the name and type of each column, by table path."""
    sections = re.split(r"^### `(.*)`$", text, flags=re.MULTILINE)[1:]
    return {
        path: re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", body, re.MULTILINE)
        for path, body in zip(sections[::2], sections[1::2], strict=True)
    }


def unfit(project: dict, lock: str, extras: list[str]) -> list[str]:
    """What a pyproject.toml asks for that a lock file lacks, or has in a version that is not accepted."""
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    asked += [one for extra in extras for one in project["project"]["optional-dependencies"][extra]]
    locked: dict[str, list[str]] = {}  # several versions, where they differ by Python or system
    for name, version in re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==(\S+)", lock, re.MULTILINE):
        locked.setdefault(name, []).append(version)
    found = [(one, Requirement(one)) for one in asked]
    return [
        one
        for one, needed in found
        if not (versions := locked.get(needed.name.lower()))
        or not all(needed.specifier.contains(version) for version in versions)
    ]


def declared(table: Table) -> list[tuple[str, str]]:
    return [(column.name, column.type) for column in table.columns]


# --- What is named exists ---------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    assert broken_links(page, page.read_text()) == []


def test_a_link_that_leads_nowhere_is_found():
    text = "[a](docs/rules.md) [b](docs/absent.md) [c](docs/runs.md#one-writer) [d](docs/runs.md#no-writer)"
    assert broken_links(README, text) == ["docs/absent.md", "docs/runs.md#no-writer"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_table_command_option_and_target_exists(page):
    assert unknown_names(page.read_text()) == []


def test_a_name_that_does_not_exist_is_found():
    text = "GMV_LAKE GMV_LAKES `gold/daily_gmv` `gold.monthly` `gmv run --lake x` `gmv runs`"
    text += " `gmv show --json` `make all`"
    assert unknown_names(text) == ["GMV_LAKES", "gold/monthly", "gmv runs", "gmv show --json", "make all"]


def test_readme_lists_every_command_of_gmv():
    assert re.findall(r"^\| `gmv ([\w-]+)`", README.read_text(), re.MULTILINE) == list(COMMANDS)


def test_docs_list_every_table_and_column_with_its_type():
    text = (PROJECT / "docs" / "tables.md").read_text()
    assert documented_tables(text) == {table.path: declared(table) for table in TABLES}


def test_a_column_that_the_docs_lack_is_found():
    text = (PROJECT / "docs" / "tables.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| `known_on`"))
    assert documented_tables(text.replace(line, "")) != {table.path: declared(table) for table in TABLES}


def test_docs_list_every_setting_with_its_default():
    rows = re.findall(
        r"^\| `(GMV_\w+)` \| ([^|]*) \|", (PROJECT / "docs/settings.md").read_text(), re.MULTILINE
    )
    assert [name for name, _ in rows] == [f"GMV_{name.upper()}" for name in Settings.model_fields]
    for name, default in rows:
        declared_default = Settings.model_fields[name.removeprefix("GMV_").lower()].default
        if isinstance(declared_default, int | str):
            assert default == f"`{declared_default}`", name
        elif isinstance(declared_default, Path):
            assert default == f"`{declared_default.relative_to(PROJECT)}` of the checkout", name


def test_readme_names_every_file_that_its_tree_shows():
    section = README.read_text().partition("## How it is built")[2].partition("\n## ")[0]
    lines = re.findall(r"^ {4}(.*)$", section, re.MULTILINE)
    missing = []
    for line in lines:
        first, *others = re.findall(r"^\S+|(?<= )\w+\.py\b|(?<= )\w+/", line)
        paths = [first, *(name if name.endswith("/") else f"{Path(first).parent}/{name}" for name in others)]
        missing += [path for path in paths if not (PROJECT / path).exists()]
    assert "etl_gmv.py" in [line.split()[0] for line in lines]
    assert missing == []


@pytest.mark.parametrize(("lock", "extras"), [("requirements.lock", []), ("requirements-s3.lock", ["s3"])])
def test_locked_packages_are_of_versions_that_the_project_accepts(lock, extras):
    assert unfit(PYPROJECT, (PROJECT / lock).read_text(), extras) == []


def test_a_locked_version_that_the_project_does_not_accept_is_found():
    project = {
        "project": {"dependencies": ["a>=1,<2", "B[x]==3.0"], "optional-dependencies": {"s3": ["c"]}},
        "dependency-groups": {"dev": ["d>=1"]},
    }
    assert unfit(project, "a==1.5 \\\nb==3.0\nd==1\n", []) == []
    assert unfit(project, "a==2.0 \\\na==1.5\nd==1\n", ["s3"]) == ["a>=1,<2", "B[x]==3.0", "c"]


def test_conda_gives_the_locked_packages_and_a_python_that_the_project_accepts():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())
    (python,) = [one for one in environment["dependencies"] if str(one).startswith("python")]
    assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains(python.removeprefix("python="))
    assert {"pip": ["-r requirements.lock"]} in environment["dependencies"]


# --- Commands do what README says -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the project whose .venv is this environment, ready made: the folder and its variables."""
    folder = tmp_path_factory.mktemp("checkout") / "gmv"
    output = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "data", "results", "kernel-ipc-*")
    shutil.copytree(PROJECT, folder, ignore=output)
    for leftover in [*(folder / "data_lake").iterdir(), *(folder / "runs").iterdir()]:
        if leftover.is_dir() and leftover.name != "landing":
            shutil.rmtree(leftover)
        elif leftover.name == "_lock":
            leftover.unlink()
    environment = folder / ".venv"
    environment.mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != ".ready":
            (environment / part.name).symlink_to(part)
    (environment / ".ready").touch()
    variables = {
        **{name: value for name, value in own_environment().items() if not name.startswith("GMV_")},
        "PATH": os.pathsep.join([str(environment / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": str(folder / "lib"),
        "GMV_LAKE": str(folder.parent / "lake"),
        "GMV_RUNS_DIR": str(folder.parent / "runs"),
    }
    return folder, variables


def run(checkout: tuple[Path, dict[str, str]], command: str) -> subprocess.CompletedProcess[str]:
    folder, variables = checkout
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=variables, capture_output=True, text=True, timeout=SECONDS
    )


@pytest.fixture(scope="module")
def made_run(checkout):
    return run(checkout, "make run")


def test_make_run_gives_the_sample_and_a_report_and_leaves_the_checkout_alone(checkout, made_run):
    folder, _ = checkout
    assert made_run.returncode == 0, made_run.stderr
    report = re.search(r"^Report: (.*/report\.html)$", made_run.stdout, re.MULTILINE)
    assert report and "778.55" in Path(report[1]).read_text()
    assert [path.name for path in (folder / "data_lake").iterdir()] == ["landing"]


def test_make_test_runs_the_tests_and_the_notebooks(checkout):
    told = run(checkout, "make --dry-run test")
    assert told.returncode == 0, told.stderr
    assert "-m pytest tests" in told.stdout
    assert "-m pytest --nbval-lax notebooks" in told.stdout


def test_a_target_that_does_not_exist_fails(checkout):
    assert run(checkout, "make --dry-run everything").returncode != 0


@pytest.mark.parametrize("example", examples(README.read_text()), ids=lambda example: example.command)
def test_command_prints_what_readme_shows(checkout, made_run, example):
    assert made_run.returncode == 0, made_run.stderr
    done = run(checkout, example.command)
    assert done.returncode == 0, done.stderr
    assert prints(example.shown, done.stdout), done.stdout


@pytest.mark.parametrize(
    ("shown", "printed", "is_same"),
    [
        ("1\n2\n", "1\n2\n", True),
        ("1\n2\n", "1\n3\n", False),
        ("1\n", "1\n2\n", False),
        ("…\n2\n…\n", "0\n1\n2\n", True),
        ("…\n2\n…\n", "0\n1\n", False),
        ("Report: …/report.html\n", "Report: /runs/1/report.html\n", True),
        ("Report: …/report.html\n", "Report:\n/runs/1/report.html\n", False),
    ],
)
def test_output_is_compared_with_what_is_shown(shown, printed, is_same):
    assert prints(shown, printed) is is_same
