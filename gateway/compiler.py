"""Compiles the modules named here with mypyc, the compiler of mypy and black.

    scripts/compile             makes gateway/__compiled__/ from the sources as they are
    scripts/compile --remove    takes it away

What may be named: a module that is busy, that no test reaches into (compiled functions call each
other directly, whatever somebody put in their place, and compiled classes take no attribute that
their source does not have), and whose tests hold in its compiled form. Annotations are checked as
the program runs then: one that lies raises TypeError.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from gateway.compiled import FOLDER, MANIFEST, PACKAGE, digest

MODULES = (
    "gateway.clock",
    "gateway.comparison.answer",
    "gateway.comparison.number",
    "gateway.comparison.outcome",
    "gateway.condition",
    "gateway.dataplane.account",
    "gateway.dataplane.backend",
    "gateway.dataplane.balance",
    "gateway.dataplane.connection",
    "gateway.dataplane.departure",
    "gateway.dataplane.fallback",
    "gateway.dataplane.handler",
    "gateway.dataplane.headers",
    "gateway.dataplane.heads",
    "gateway.dataplane.inline",
    "gateway.dataplane.inprocess",
    "gateway.dataplane.lane",
    "gateway.dataplane.limits",
    "gateway.dataplane.live",
    "gateway.dataplane.local",
    "gateway.dataplane.probes",
    "gateway.dataplane.remote",
    "gateway.dataplane.request",
    "gateway.dataplane.response",
    "gateway.dataplane.restraint",
    "gateway.dataplane.retry",
    "gateway.dataplane.sequence",
    "gateway.dataplane.server",
    "gateway.dataplane.shadow",
    "gateway.dataplane.single",
    "gateway.dataplane.stream",
    "gateway.dataplane.strictness",
    "gateway.dataplane.turn",
    "gateway.dataplane.upload",
    "gateway.dataplane.upstream",
    "gateway.errors",
    "gateway.exchange",
    "gateway.journal.receipt",
    "gateway.journal.record",
    "gateway.journal.segment",
    "gateway.journal.statistics",
    "gateway.journal.syncer",
    "gateway.journal.waiter",
    "gateway.journal.writer",
    "gateway.ledger.bodies",
    "gateway.ledger.merkle",
    "gateway.ledger.names",
    "gateway.ledger.order",
    "gateway.ledger.subjects",
    "gateway.ledger.tiles",
    "gateway.protocol.message",
    "gateway.protocol.openai",
    "gateway.protocol.reader",
    "gateway.protocol.row",
    "gateway.protocol.sse",
    "gateway.protocol.tensor",
    "gateway.protocol.v2",
    "gateway.routing.access",
    "gateway.routing.choice",
    "gateway.routing.identity",
    "gateway.routing.place",
    "gateway.seal.joining",
    "gateway.seal.leaf",
    "gateway.seal.notary",
    "gateway.seal.sealer",
    "gateway.split",
    "gateway.table",
    "gateway.telemetry.metrics",
)


def compile_modules(into: Path) -> None:
    """Extension modules below `into`, where the finder looks for them."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    paths = [f"{name.replace('.', '/')}.py" for name in MODULES]
    with tempfile.TemporaryDirectory(prefix="headworks-compile-") as folder:
        extensions = mypycify(
            paths, target_dir=f"{folder}/c", group_name=PACKAGE.name, multi_file=True,
            opt_level="2", debug_level="0",
        )  # fmt: skip
        command = build_ext(Distribution({"name": PACKAGE.name, "ext_modules": extensions}))
        command.build_lib, command.build_temp = str(into), f"{folder}/objects"
        command.parallel = os.cpu_count()
        command.ensure_finalized()
        command.run()


def build() -> None:
    """All or nothing: what was there stays in force until the new form is whole."""
    compiler = os.environ.get("CC", "cc").split()[0]
    if shutil.which(compiler) is None:
        sys.exit(f"scripts/compile: no C compiler: {compiler} is not on the PATH (Debian: gcc)")
    os.chdir(PACKAGE.parent)  # mypy reads pyproject.toml here
    made = FOLDER.with_name("__compiling__")
    shutil.rmtree(made, ignore_errors=True)
    sources = digest(PACKAGE)
    compile_modules(made)
    manifest = {"sources": sources, "suffix": EXTENSION_SUFFIXES[0], "modules": MODULES}
    (made / MANIFEST).write_text(json.dumps(manifest, indent=1))
    shutil.rmtree(FOLDER, ignore_errors=True)
    made.rename(FOLDER)


def main() -> None:
    if sys.argv[1:] == ["--remove"]:
        shutil.rmtree(FOLDER, ignore_errors=True)
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        build()
        size = sum(path.stat().st_size for path in FOLDER.rglob("*.so"))
        for name in MODULES:
            sys.stderr.write(f"{name}\n")
        sys.stderr.write(f"{len(MODULES)} modules, {size / 2**20:.1f} MiB, in {FOLDER}\n")


if __name__ == "__main__":
    main()
