"""`gmv` as a user starts it: a program, in an environment that no test has prepared."""

from __future__ import annotations

import os
import sys
from pathlib import Path

GMV = Path(sys.executable).with_name("gmv")


def own_environment(**more: str) -> dict[str, str]:
    """This process's variables but those that name the suite's Spark server, which is for tests in this process."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")} | more
