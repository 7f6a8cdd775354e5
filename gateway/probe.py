"""Do artifacts load, and graphs and data files fit their cards? Asked before serving, and by
`check`, in a process that may hold onnxruntime and pyarrow."""

from __future__ import annotations

from typing import Any

from gateway.check import Checked


def _data_misfits(checked: Checked) -> list[dict[str, Any]]:
    """Background and reference: Parquet, with a column for each feature of each card."""
    import pyarrow.parquet

    assert checked.settings is not None
    found = []
    for name, model in checked.settings.models.items():
        wanted = {
            feature.name
            for (of, _), card in checked.cards.items()
            if of == name
            for feature in card.features
        }
        for key, file in (
            ("explain.background", model.explain.background),
            ("monitor.reference", model.monitor.reference),
        ):
            if file is None:
                continue
            try:
                columns = set(pyarrow.parquet.read_schema(checked.resolve(file)).names)
                lacking = sorted(wanted - columns)
                words = f"columns are missing: {', '.join(lacking)}" if lacking else ""
            except (OSError, ValueError) as error:
                words = f"not Parquet: {error}"
            if words:
                found.append(
                    {"file": file, "line": 1, "key": f"models.{name}.{key}", "value": file,
                     "allowed": words}
                )  # fmt: skip
    return found


def misfits(checked: Checked) -> list[dict[str, Any]]:
    from gateway.dataplane.inprocess import Session

    assert checked.settings is not None
    found = _data_misfits(checked)
    for name, model in checked.settings.models.items():
        for version, settings in model.versions.items():
            card = checked.cards.get((name, version))
            if card is None or settings.artifact is None:
                continue
            try:
                Session(checked.resolve(settings.artifact), name, version, card)
            except Exception as error:
                found.append(
                    {"file": f"{settings.artifact}/model.onnx", "line": 1,
                     "key": f"models.{name}.versions.{version}.artifact", "value": "",
                     "allowed": str(error)}
                )  # fmt: skip
    return found
