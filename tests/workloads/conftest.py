"""Public traces, each read once."""

import pytest

from workloads import read


@pytest.fixture(scope="session")
def public_trace(shared_file):
    """A function from a name among the public data to its requests; they are not to be changed."""
    tables = {}

    def requests(name):
        path = shared_file(name)
        if name not in tables:
            tables[name] = read(path)
        return tables[name]

    return requests
