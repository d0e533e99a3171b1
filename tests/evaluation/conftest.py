"""Private copies of the sample vaults."""

import pytest

from toolset_nb import tasks


@pytest.fixture
def vaults():
    with tasks.Fixtures() as fixtures:
        yield fixtures
