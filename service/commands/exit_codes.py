"""What `dragoman` exits with."""

from typing import Final

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
CONFIGURATION: Final = 78
"""EX_CONFIG of sysexits.h: the configuration or a bundle is wrong, or packages are missing: starting again does not
help."""
INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""
