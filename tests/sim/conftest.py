"""One virtual time for all tests of a process: to enter it reads every module of the product."""

from collections.abc import Iterator

import pytest

from sim.run import prepared


@pytest.fixture
def virtual_time() -> Iterator[None]:
    with prepared():
        yield
