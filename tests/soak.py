"""How many examples a test looks at: `make test` takes enough to see a mistake, `make soak` more.

Each statement is tested either way.
"""

import os

SOAK = "SOAK" in os.environ


def many(usual: int, soak: int) -> int:
    """As many examples, events or worlds as this run takes."""
    return soak if SOAK else usual
