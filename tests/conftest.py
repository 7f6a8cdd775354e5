"""What holds for all tests, set before numpy is imported."""

import os

# As the supervisor has it for its roles: small matrices by one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
