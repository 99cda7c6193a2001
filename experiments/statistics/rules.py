"""How a study decides whether a variant differs."""

from typing import Annotated, Literal

from pydantic import Field

from pairform.experiments.statistics.corrections import Correction
from pairform.experiments.statistics.power import POWER
from pairform.registry import PositiveFloat, Spec

Quality = Literal["loss", "accuracy", "exact_match"]
QUALITY: tuple[Quality, ...] = ("loss", "accuracy", "exact_match")
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
    margins: dict[Quality, PositiveFloat] = Field(
        default_factory=dict,
        description="Differences too small to matter, by measure. A variant whose interval lies inside is called equivalent.",
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
