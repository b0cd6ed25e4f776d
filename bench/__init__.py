"""Measurements: the limiter beside its peers, a day of flood, and what deciding costs.

`make bench` runs all three; README.md says what each figure means.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ROOT / ".local" / "bench-packages"
"""What requirements.txt and package.json name: needed here only, so not in the development
environment. Last on the path, so that what is measured runs with its own pinned versions."""

if str(PACKAGES) not in sys.path:
    sys.path.append(str(PACKAGES))
