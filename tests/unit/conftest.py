"""Property tests take their time on a busy machine, and the same examples every time in CI."""

import os

from hypothesis import settings

settings.register_profile("here", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("here")
