"""Headworks: an inference gateway with inline governance.

A request is answered by `dataplane/`; what happened is judged by `seal/`, `explain/` and
`monitor/`. They meet at two points only: the journal, which the data path writes, and the table,
which it reads. Start with `dataplane/handler.py` for the one and `seal/sealer.py` for the other;
`docs/architecture.md` tells both stories.
"""

from gateway.compiled import FORM as FORM  # first: it decides how all others are loaded

__version__ = "0.1.0"
