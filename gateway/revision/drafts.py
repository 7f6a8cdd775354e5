"""A table that is not in force: compiled from a file, with nothing copied and nothing published."""

from __future__ import annotations

from pathlib import Path

import orjson

from gateway.artifacts import Artifacts, file_digest, folder_digest
from gateway.check import Checked
from gateway.table import Table, compile_table, make_document


class Unheld(Artifacts):
    """Says digests; keeps nothing."""

    def add_folder(self, folder: Path) -> str:
        return folder_digest(folder)

    def add_file(self, path: Path) -> str:
        return file_digest(path)


def compile_draft(checked: Checked) -> Table:
    document = make_document(checked, Unheld(Path()), author="", reason="draft", now_ns=0)
    return compile_table(orjson.dumps(document))
