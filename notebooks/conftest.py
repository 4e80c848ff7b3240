"""nbval runs the notebooks in order on a lake of their own, never on the user's."""

from contextlib import ExitStack

from gmv.run.committed import own_lake

_open = ExitStack()


def pytest_sessionstart() -> None:
    """nbval starts a notebook's kernel before any fixture: the environment must be there before that."""
    _open.enter_context(own_lake())


def pytest_sessionfinish() -> None:
    _open.close()
