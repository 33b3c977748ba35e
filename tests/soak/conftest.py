"""The soak holds answers against the same translations as the faults do."""

from tests.faults.conftest import golden

__all__ = ["golden"]
