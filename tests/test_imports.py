"""Imports point one way: what reads and writes tables knows nothing of what is built on it."""

from __future__ import annotations

import re

from gmv.settings import PROJECT

BELOW = {"errors", "lake", "settings", "tables"}


def test_the_lake_imports_nothing_from_above():
    for file in (PROJECT / "lib/gmv/lake").glob("*.py"):
        imported = re.findall(
            r"^\s*(?:from gmv import |from gmv\.|import gmv\.)(\w+)", file.read_text(), re.MULTILINE
        )
        assert set(imported) <= BELOW, file.name
