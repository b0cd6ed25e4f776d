"""What a measurement ran on: without it, a figure says little."""

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench import ROOT

OUTPUT = Path(os.path.relpath(ROOT / ".local" / "bench"))
"""Where plots go unless told otherwise."""


def machine(*packages: str) -> str:
    """One line: processor, cores, system, Python, the packages that matter, and the date."""
    parts = [
        f"{_processor()}, {os.cpu_count()} cores",
        f"{platform.system()} {platform.release().split('-')[0]}",
        f"Python {platform.python_version()}",
        *(f"{package} {_version(package)}" for package in packages),
        f"{datetime.now(UTC):%Y-%m-%d}",
    ]
    return " · ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return _first(lines, "model name") or platform.processor() or platform.machine()


def _first(lines: Iterable[str], name: str) -> str:
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
