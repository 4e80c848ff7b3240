"""nbval runs the notebooks in order on a lake of their own, never on the user's."""

from contextlib import ExitStack

import pytest
from gmv.run.committed import own_lake

_open = ExitStack()


def pytest_configure(config) -> None:
    """Each cell needs those before it, and each notebook what those before it have written."""
    if config.getoption("dist", "no") != "no":
        raise pytest.UsageError("The notebooks are run one after another: leave out -n.")


def pytest_sessionstart() -> None:
    """nbval starts a notebook's kernel before any fixture: the environment must be there before that."""
    _open.enter_context(own_lake())


def pytest_sessionfinish() -> None:
    _open.close()
