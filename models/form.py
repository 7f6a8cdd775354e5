"""The application form: its eleven columns, what they mean, and the people who filled it in.

Race is read beside the form and never as a part of it: no column of `FORM` is it, and models see
nothing but `FORM`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

YES_NO = ("no", "yes")


@dataclass(frozen=True)
class Column:
    """One column; `reason` is the code and the sentence told to a person who was denied.

    `bounds` are the values a form may hold, a little wider than the observed ones: FP32 of 1.8 is
    below 1.8. A column without bounds holds `yes` or `no`. `least` is how far a person can bring it
    down by borrowing less (what a twentieth of the people is below); without it a column is no
    matter of choice.
    """

    name: str
    type: str
    meaning: str
    reason: tuple[str, str]
    unit: str = ""
    bounds: tuple[float, float] | None = None
    least: float | None = None


FORM = (
    Column(
        name="dir",
        type="number",
        meaning="All monthly debt payments in relation to monthly income",
        reason=("DEBT-TO-INCOME", "Debt payments are high in relation to income."),
        unit="ratio",
        bounds=(0.0, 3.0),
        least=0.19,
    ),
    Column(
        name="hir",
        type="number",
        meaning="Monthly housing expense in relation to monthly income",
        reason=("HOUSING-EXPENSE", "Housing expense is high in relation to income."),
        unit="ratio",
        bounds=(0.0, 3.0),
        least=0.12,
    ),
    Column(
        name="lvr",
        type="number",
        meaning="Loan in relation to the assessed value of the property",
        reason=("LOAN-TO-VALUE", "The loan is large in relation to the value of the property."),
        unit="ratio",
        bounds=(0.0, 2.0),
        least=0.38,
    ),
    Column(
        name="ccs",
        type="integer",
        meaning="Consumer credit history: 1 no slow payments, 2 one or two, 3 more than two, "
        "4 too little history, 5 payments 60 days late, 6 payments 90 days late",
        reason=(
            "CONSUMER-CREDIT",
            "Consumer credit history shows late payments or is too short.",
        ),
        unit="score",
        bounds=(1.0, 6.0),
    ),
    Column(
        name="mcs",
        type="integer",
        meaning="Mortgage credit history: 1 no late payments, 2 no history, 3 one or two late "
        "payments, 4 more than two",
        reason=("MORTGAGE-CREDIT", "Mortgage credit history shows late payments or is missing."),
        unit="score",
        bounds=(1.0, 4.0),
    ),
    Column(
        name="uria",
        type="number",
        meaning="Unemployment rate of the applicant's industry in Massachusetts in 1989",
        reason=("INDUSTRY-JOBS", "Unemployment is high in the industry the applicant works in."),
        unit="%",
        bounds=(1.5, 11.0),
    ),
    Column(
        name="condominium",
        type="integer",
        meaning="1 if the property is a unit of a condominium, 0 if it is a house",
        reason=("PROPERTY-TYPE", "Type of the property that secures the loan: condominium."),
        bounds=(0.0, 1.0),
    ),
    Column(
        name="pbcr",
        type="category",
        meaning="Public record of bad credit: bankruptcy, charge-off or collection",
        reason=("PUBLIC-RECORD", "Public record of bankruptcy, charge-off or collection."),
    ),
    Column(
        name="dmi",
        type="category",
        meaning="Mortgage insurance was denied; known only late, live requests carry `no`",
        reason=("INSURANCE-DENIED", "Mortgage insurance for this loan was denied."),
    ),
    Column(
        name="self",
        type="category",
        meaning="The applicant is self-employed",
        reason=("SELF-EMPLOYED", "Income from self-employment could not be relied on enough."),
    ),
    Column(
        name="single",
        type="category",
        meaning="The applicant is not married; asked for the record, read by no version, because "
        "marital status is a prohibited basis (12 CFR 1002.6(b)(8))",
        reason=("", ""),
    ),
)
NAMES = tuple(column.name for column in FORM)
NUMERIC = tuple(column.name for column in FORM if column.type != "category")
WHOLE = tuple(column.name for column in FORM if column.type == "integer")

Columns = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class People:
    """Applicants: forms, and beside them race (`black`, `other`), the decision, the CSV's row."""

    forms: Columns
    race: npt.NDArray[np.str_]
    denied: npt.NDArray[np.bool_]
    row: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: npt.NDArray[np.int64]) -> People:
        forms = {name: values[index] for name, values in self.forms.items()}
        return People(forms, self.race[index], self.denied[index], self.row[index])


def read(file: Path) -> People:
    """The people of hmda.csv; row 1 is the first person.

    Numbers are rounded to six decimals, which takes away only what float32 added at the source
    (3.90000009536743 was 3.9).
    """
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return People(
        forms={name: _values(name, [row[name] for row in rows]) for name in NAMES},
        race=np.array(["black" if row["black"] == "yes" else "other" for row in rows]),
        denied=np.array([row["deny"] == "yes" for row in rows]),
        row=np.arange(1, len(rows) + 1),
    )


def _values(name: str, texts: list[str]) -> npt.NDArray[np.generic]:
    if name not in NUMERIC:
        return np.array(texts)
    numbers = np.array(texts, dtype=np.float64).round(6)
    return numbers.astype(np.int64) if name in WHOLE else numbers


def matrix(forms: Columns) -> npt.NDArray[np.object_]:
    """Shape (rows, 11), in the order of `FORM`, as scikit-learn reads it."""
    return np.column_stack([forms[name].astype(object) for name in NAMES])


def with_dmi_no(forms: Columns) -> Columns:
    """The forms as a live request sends them: before any insurer has answered."""
    return {**forms, "dmi": np.full_like(forms["dmi"], "no")}
