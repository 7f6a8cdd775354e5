"""The page of verdicts: a block a part, put anew by its command; the prose between them stays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

Table = tuple[str, str, list[str], list[list[str]]]
"""Title, note, columns, rows."""


def rendered(table: Table) -> str:
    title, note, columns, rows = table
    lines = [f"## {title}", note, "", "| " + " | ".join(columns) + " |"]
    lines += ["|" + "---|" * len(columns), *("| " + " | ".join(row) + " |" for row in rows)]
    return "\n".join(lines) + "\n"


def replaced(page: str, part: str, tables: Sequence[Table], made: str) -> str:
    """The page with a part's block put anew; ValueError where it has none."""
    begin, end = f"<!-- {part} -->\n", f"<!-- end of {part} -->"
    block = begin + "\n".join(rendered(table) for table in tables) + f"\n{made}\n" + end
    found = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not found.search(page):
        raise ValueError(f"the page has no block {part!r}")
    return found.sub(lambda _: block, page, count=1)


def write(path: Path, part: str, tables: Sequence[Table], made: str) -> None:
    path.write_text(replaced(path.read_text(), part, tables, made))
