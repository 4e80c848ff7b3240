"""nbval runs the notebooks in order on a lake of their own, never on the user's."""

import pytest
from gmv.run.committed import own_lake


@pytest.fixture(scope="session", autouse=True)
def _own_lake():
    with own_lake():
        yield
