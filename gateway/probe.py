"""Does each artifact load, and its graph fit its card? Only `check` asks: it takes onnxruntime."""

from __future__ import annotations

from typing import Any

from gateway.check import Checked


def misfits(checked: Checked) -> list[dict[str, Any]]:
    from gateway.dataplane.inprocess import Session

    assert checked.settings is not None
    found = []
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
