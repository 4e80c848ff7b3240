"""The scripts that start an orchestrator on this machine, before there is one: what they hand to it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gmv.settings import PROJECT


@pytest.mark.parametrize("name", ["airflow", "dagster", "prefect"])
def test_gmv_is_found_where_the_folder_of_the_project_has_spaces_in_its_name(
    tmp_path: Path, name: str
) -> None:
    project = tmp_path / "my daily GMV"
    folder = project / "orchestration" / name
    shutil.copytree(PROJECT / "orchestration" / name, folder, ignore=shutil.ignore_patterns(".venv", "home"))
    stub = folder / ".venv" / "bin" / name
    stub.parent.mkdir(parents=True)
    stub.write_text('#!/bin/sh\necho "$GMV_COMMAND" > "$TOLD"\nexit 1\n')
    stub.chmod(0o755)
    (stub.parent / "python").symlink_to(sys.executable)
    told = tmp_path / "told"
    environment = {key: value for key, value in os.environ.items() if key != "GMV_COMMAND"}
    subprocess.run([folder / "start"], env={**environment, "PORT": "0", "TOLD": str(told)}, timeout=60)
    (command,) = shlex.split(told.read_text())
    assert Path(command).resolve() == project / ".venv" / "bin" / "gmv"
