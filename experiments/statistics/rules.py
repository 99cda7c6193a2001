"""How a study decides whether a variant differs."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, Strict, WithJsonSchema

from pairform.experiments.statistics.corrections import Correction
from pairform.experiments.statistics.power import POWER
from pairform.registry import PositiveFloat, Spec

Direction = Literal["lower", "higher"]
NAMED = r"^(loss|accuracy|exact_match|latency|first_token_seconds|[a-z][a-z0-9_]*\.[a-z0-9_]+)$"
Quality: TypeAlias = Annotated[str, WithJsonSchema({"type": "string", "pattern": NAMED})]
"""The name of a measure, such as `loss` or `choices.accuracy`. A study checks it against its measures."""
QUALITY: Mapping[Quality, Direction] = {"loss": "lower", "accuracy": "higher", "exact_match": "higher"}
"""What every trial measures, with the values that are better."""
Probability = Annotated[float, Field(gt=0, lt=1)]


class ComparisonSpec(Spec):
    """How variants are compared with the first one. It may change after the trials have run."""

    correction: Correction = Field(
        default="holm",
        description="Correction of p-values for many comparisons. holm: controls the probability of any false finding; "
        "benjamini_hochberg: the expected fraction of false ones among the findings.",
    )
    error_rate: Probability = Field(
        default=0.05, description="Probability, or for benjamini_hochberg fraction, of false findings that is allowed."
    )
    measures: Annotated[tuple[Quality, ...], Strict(False), Field(min_length=1)] = Field(
        default=("loss",),
        description="Measures of which `study status` and the first lines of the report say what was found. All others are in "
        "`study status --json` and in the rest of the report.",
    )
    margins: dict[Quality, PositiveFloat] = Field(
        default_factory=dict,
        description="Differences too small to matter, by measure. A variant whose interval lies inside is called equivalent.",
        json_schema_extra={"additionalProperties": False},
    )
    power: Probability = Field(
        default=POWER, description="Probability with which the smallest detectable difference, if it is true, is found."
    )

    @property
    def explanation(self) -> str:
        """How the findings were made, in sentences."""
        of = {
            "holm": f"Holm's correction keeps the probability of any false finding among them below {self.error_rate:.0%}.",
            "benjamini_hochberg": f"The Benjamini-Hochberg correction keeps the expected fraction of false ones among the "
            f"findings below {self.error_rate:.0%}.",
            "none": f"There is no correction for their number: each has a probability of {self.error_rate:.0%} to find a "
            "difference where there is none.",
        }
        return (
            "Differences from the first variant are paired by seed and tested with Student's t. The comparisons of one measure "
            f"are a family. {of[self.correction]} Intervals hold for one comparison each. A design could see a difference that "
            f"it would find with a probability of {self.power:.0%}."
        )


def spoken(measure: Quality) -> str:
    """The name of a measure in a sentence."""
    return measure.replace("_", " ").replace(".", " ")
