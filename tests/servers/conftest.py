"""A scripted server that answers several requests at a time, as real ones do."""

import pytest
from pytest_httpserver import HTTPServer


@pytest.fixture(scope="session")
def make_httpserver():
    with HTTPServer(threaded=True) as server:
        yield server
