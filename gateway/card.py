"""A version's card: what its inputs and outputs mean, in words a reviewer can check.

`card.yaml` lies beside `model.onnx`. It is the only place that says which outcome is adverse, where
the threshold lies and how a feature is told to the person it concerned. The gateway refuses an
artifact whose digest is not the card's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """Unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ReasonText(Strict):
    code: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_-]{1,16}$")]
    text: str = Field(min_length=8, description="What is said to the person, as a sentence.")


class Feature(Strict):
    """One input column. `number` and `integer` travel as numbers, `category` as strings."""

    name: Name
    type: Literal["number", "integer", "category"]
    meaning: str
    unit: str = ""
    range: tuple[float, float] | None = None
    categories: tuple[str, ...] | None = None
    tensor: str | None = Field(
        None, description="Input tensor that carries it; its name if absent."
    )
    column: int | None = Field(None, ge=0, description="Column in that tensor, if it has several.")
    used: bool = Field(True, description="False: received with the request, not read by the model.")
    actionable: bool = Field(False, description="Whether a person can change it.")
    reason: ReasonText | None = None

    @model_validator(mode="after")
    def kind_fits(self) -> Feature:
        if self.type == "category" and not self.categories:
            raise ValueError(f"feature {self.name}: a category needs its `categories`")
        if self.type != "category" and self.range is None:
            raise ValueError(f"feature {self.name}: a {self.type} needs its `range`")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"feature {self.name}: range {list(self.range)} is empty")
        return self

    @property
    def carrier(self) -> str:
        return self.tensor or self.name


class Score(Strict):
    """Which output is the score, and whether it is a probability or a quantity."""

    tensor: str
    column: int = Field(0, ge=0)
    kind: Literal["probability", "quantity"] = "probability"
    meaning: str


class OutcomeWords(Strict):
    """The words for a score below the threshold and for one at or above it."""

    below: Name
    at_or_above: Name
    adverse: Name
    threshold: float

    @model_validator(mode="after")
    def adverse_is_one_of_both(self) -> OutcomeWords:
        if self.adverse not in (self.below, self.at_or_above):
            raise ValueError(f"adverse: {self.adverse!r} is neither below nor at_or_above")
        return self

    def of(self, score: float) -> str:
        return self.at_or_above if score >= self.threshold else self.below


class Outputs(Strict):
    score: Score
    outcome: OutcomeWords | None = None


class ArtifactFile(Strict):
    file: str = "model.onnx"
    sha256: Digest


class Training(Strict):
    data: dict[str, Any]
    code_commit: str
    configuration: dict[str, Any]
    seed: int


class Card(Strict):
    format: Literal[1]
    model: Name
    version: Name
    summary: str
    artifact: ArtifactFile
    features: tuple[Feature, ...] = Field(min_length=1, max_length=1024)
    outputs: Outputs
    training: Training
    metrics: dict[str, Any]

    @model_validator(mode="after")
    def names_are_unique(self) -> Card:
        names = [feature.name for feature in self.features]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"features named twice: {', '.join(twice)}")
        return self

    @property
    def used(self) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.features if feature.used)

    def feature(self, name: str) -> Feature:
        return next(feature for feature in self.features if feature.name == name)
