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


class Change(Strict):
    """How a person can change an actionable feature; what is not actionable is never changed."""

    direction: Literal["decrease", "increase", "either"] = "either"
    step: float | None = Field(
        None, gt=0, description="Changes are multiples of it; 1 of an integer, else a hundredth."
    )
    range: tuple[float, float] | None = Field(
        None, description="Values a person can come to; the feature's range if absent."
    )
    to: tuple[str, ...] | None = Field(None, description="Categories a person can come to.")


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
    change: Change | None = Field(None, description="How; absent: either way, over its range.")
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

    @model_validator(mode="after")
    def change_fits(self) -> Feature:
        change = self.change
        if change is None:
            return self
        if not self.actionable:
            raise ValueError(f"feature {self.name}: a `change` of what is not actionable")
        if self.type == "category":
            if unknown := sorted(set(change.to or ()) - set(self.categories or ())):
                raise ValueError(f"feature {self.name}: change.to: {unknown[0]!r} is no category")
            return self
        if change.to is not None:
            raise ValueError(f"feature {self.name}: change.to is for categories")
        assert self.range is not None
        low, high = change.range or self.range
        if not self.range[0] <= low < high <= self.range[1]:
            raise ValueError(f"feature {self.name}: change.range leaves its range or is empty")
        if self.type == "integer" and change.step is not None and change.step % 1:
            raise ValueError(f"feature {self.name}: change.step of an integer is a whole number")
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
    artifact: ArtifactFile | None = None
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
