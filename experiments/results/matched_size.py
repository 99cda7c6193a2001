"""How the size of a variant that was scaled compares with that of the first one."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pairform.registry import Patch, Spec


class Match(Spec):
    """The size that a variant was scaled towards, and the size that it has."""

    by: Literal["parameters", "flops", "seconds"] = Field(description="Size compared.")
    wanted: Annotated[int | float, Field(gt=0)] = Field(description="Size of the first variant; seconds of a training step.")
    found: int | float = Field(description="Size of this variant.")
    tolerance: float | None = Field(default=None, description="Largest difference that the study allows, as a fraction.")
    changed: Patch = Field(default={}, description="What was scaled: paths in the model's spec, with values before and after.")

    @property
    def difference(self) -> float:
        """Relative difference from the wanted size."""
        return self.found / self.wanted - 1

    @property
    def matched(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.tolerance is None or abs(self.difference) <= self.tolerance

    @property
    def row(self) -> dict[str, Any]:
        """As a document, with the difference and whether it is within the tolerance."""
        return self.model_dump(mode="json") | {"difference": self.difference, "matched": self.matched}

    @property
    def caution(self) -> str:
        """A sentence for each comparison of a variant that is not matched, with a space before it; else empty."""
        if self.matched:
            return ""
        return f" Not matched: {self.by} {self.difference:+.2%}, which may explain a difference."


def amount(size: float) -> str:
    """A number of parameters or FLOPs, or four digits of a time."""
    return f"{size:,}" if isinstance(size, int) else f"{size:.4g}"
