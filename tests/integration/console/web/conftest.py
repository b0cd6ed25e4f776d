import pytest

from tests.integration.console.builders import Stack
from tests.unit.web.builders import Browser


@pytest.fixture
def browser(stack: Stack) -> Browser:
    """One that was let in, to the page of a stack that is there."""
    return Browser()
