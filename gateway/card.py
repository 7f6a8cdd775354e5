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
    code: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_-]{1,16}$")] = Field(
        description="Its code: at most 16 capitals, digits, `-` and `_`."
    )
    text: str = Field(min_length=8, description="What is said to the person, as a sentence.")


class Change(Strict):
    """How a person can change an actionable feature; what is not actionable is never changed."""

    direction: Literal["decrease", "increase", "either"] = Field(
        "either", description="`decrease`, `increase` or `either`."
    )
    step: float | None = Field(
        None, gt=0, description="Changes are multiples of it; 1 of an integer, else a hundredth."
    )
    range: tuple[float, float] | None = Field(
        None, description="Values a person can come to; the feature's range if absent."
    )
    to: tuple[str, ...] | None = Field(None, description="Categories a person can come to.")


class Feature(Strict):
    """One input column. `number` and `integer` travel as numbers, `category` as strings."""

    name: Name = Field(description="Its name; `tensor` absent: that of the input tensor too.")
    type: Literal["number", "integer", "category"] = Field(
        description="`number`, `integer` or `category`."
    )
    meaning: str = Field(description="What it is, in words.")
    unit: str = Field("", description="Unit of a number, as EUR.")
    range: tuple[float, float] | None = Field(
        None, description="Least and greatest value; a number or integer needs it."
    )
    categories: tuple[str, ...] | None = Field(
        None, description="All values; a category needs them."
    )
    tensor: str | None = Field(
        None, description="Input tensor that carries it; its name if absent."
    )
    column: int | None = Field(None, ge=0, description="Column in that tensor, if it has several.")
    used: bool = Field(True, description="False: received with the request, not read by the model.")
    actionable: bool = Field(False, description="Whether a person can change it.")
    change: Change | None = Field(None, description="How; absent: either way, over its range.")
    reason: ReasonText | None = Field(
        None, description="What is told to a person whose outcome it made worse."
    )

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

    tensor: str = Field(description="Output tensor, or key of an answer, that carries it.")
    column: int = Field(0, ge=0, description="Column in that tensor.")
    kind: Literal["probability", "quantity"] = Field(
        "probability", description="`probability` or `quantity`."
    )
    meaning: str = Field(description="Of what it is the probability, or the quantity.")


class OutcomeWords(Strict):
    """The words for a score below the threshold and for one at or above it."""

    below: Name = Field(description="Word for a score below the threshold.")
    at_or_above: Name = Field(description="Word for a score at or above it.")
    adverse: Name = Field(description="Which of both words is the one that is explained.")
    threshold: float = Field(description="Where the score divides them.")

    @model_validator(mode="after")
    def adverse_is_one_of_both(self) -> OutcomeWords:
        if self.adverse not in (self.below, self.at_or_above):
            raise ValueError(f"adverse: {self.adverse!r} is neither below nor at_or_above")
        return self

    @property
    def favourable(self) -> str:
        return self.below if self.adverse == self.at_or_above else self.at_or_above

    def of(self, score: float) -> str:
        return self.at_or_above if score >= self.threshold else self.below


class Outputs(Strict):
    score: Score = Field(description="The score of a row.")
    outcome: OutcomeWords | None = Field(
        None, description="What a score decides; absent: no decision follows from it."
    )


class ArtifactFile(Strict):
    file: str = Field("model.onnx", description="File of the model, beside the card.")
    sha256: Digest = Field(description="Its SHA-256, in hex; another file is refused.")


class Training(Strict):
    data: dict[str, Any] = Field(description="On which data; keys of your own.")
    code_commit: str = Field(description="With which code.")
    configuration: dict[str, Any] = Field(description="With which settings; keys of your own.")
    seed: int = Field(description="With which seed.")


class Card(Strict):
    format: Literal[1] = Field(description="1.")
    model: Name = Field(description="The model's name in the configuration.")
    version: Name = Field(description="The version's name in it.")
    summary: str = Field(description="What the version is and does, for a reviewer.")
    artifact: ArtifactFile | None = Field(
        None, description="The model that is held; absent: an upstream's alone."
    )
    features: tuple[Feature, ...] = Field(
        min_length=1, max_length=1024, description="The input columns."
    )
    outputs: Outputs = Field(description="What the answer means.")
    training: Training = Field(description="How it was made.")
    metrics: dict[str, Any] = Field(description="How well it does; keys of your own.")

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
