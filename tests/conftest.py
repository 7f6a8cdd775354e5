"""What holds for all tests, set before numpy is imported."""

import os

from hypothesis import settings

# As the supervisor has it for its roles: small matrices by one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# No example fails for being slow on a busy day: timings belong in load/.
settings.register_profile("timeless", deadline=None)
settings.load_profile("timeless")
