"""What is deployed, for the proofs that need it."""

from tests.e2e.conftest import site

__all__ = ["site"]
