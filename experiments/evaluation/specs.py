"""The measures of a study as JSON. Importing them needs no torch, so that a study's folder can be read without it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, Strict

from pairform.experiments.statistics.rules import QUALITY, Direction
from pairform.registry import PositiveFloat, PositiveInt, Problem, Spec

Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
FileName = Annotated[str, Field(min_length=1)]
Factor = Annotated[int, Field(gt=1, le=64)]
LATENCY: Mapping[str, Direction] = {"latency": "lower", "first_token_seconds": "lower"}


class Measure(Spec):
    """Base of the measures.

    Attributes:
        better: by what it measures, whether lower or higher values are better.
        trained: whether it is measured on each trained model, and not computed from the metrics of finished trials.
    """

    better: ClassVar[Mapping[str, Direction]] = {}
    trained: ClassVar[bool] = True

    name: str
    label: Label | None = Field(
        default=None, description="First part of the names of its results, as in `label.accuracy`. Default: the measure's name."
    )

    @property
    def prefix(self) -> str:
        """First part of the names of its results."""
        return self.label or self.name

    @property
    def qualities(self) -> dict[str, Direction]:
        """Whether lower or higher values are better, by the name of each result."""
        return {f"{self.prefix}.{name}": direction for name, direction in self.better.items()}


class Choices(Measure):
    """Questions with several answers, of which the model should give the right one the highest likelihood (cloze form)."""

    better: ClassVar[Mapping[str, Direction]] = {
        "accuracy": "higher",
        "normalized_accuracy": "higher",
        "log_likelihood": "higher",
        "token_log_likelihood": "higher",
    }

    name: Literal["choices"]
    file: FileName = Field(description="`.jsonl` file with a question on each line, relative to the study's folder.")
    source: str = Field(default="source", description="Field of each line with the source text.")
    choices: str = Field(default="choices", description="Field with the list of possible targets, as texts.")
    answer: str = Field(default="answer", description="Field with the place of the right one in that list, from 0.")
    end: bool = Field(default=False, description="Whether the end token after a choice counts.")


class LinearProbe(Measure):
    """The accuracy of a linear classifier of the encoder's last hidden states; of the decoder's in a decoder-only model."""

    better: ClassVar[Mapping[str, Direction]] = {"accuracy": "higher", "loss": "lower"}

    name: Literal["linear_probe"]
    train: FileName = Field(description="`.jsonl` file to fit the classifier on, relative to the study's folder.")
    test: FileName = Field(description="`.jsonl` file to measure it on.")
    source: str = Field(
        default="source", description="Field of each line with the source text. For words: a list of them, joined by spaces."
    )
    target: str = Field(
        default="label", description="Field of each line with the class, a text or a whole number. For words: a list of them."
    )
    pooling: Literal["mean", "words"] = Field(
        default="mean",
        description="What is classified. mean: a source, by the mean of the hidden states of its tokens; words: each word of a "
        "source, by the mean of those of its own tokens.",
    )
    l2: PositiveFloat = Field(
        default=1e-3,
        description="Strength of the penalty: half of it times the squared norm of the weights is added to the mean loss. "
        "Hidden states are standardised first.",
    )


class Generation(Measure):
    """The fraction of sources from which greedy decoding generates exactly the target, up to the end token."""

    better: ClassVar[Mapping[str, Direction]] = {"exact_match": "higher"}

    name: Literal["generation"]
    file: FileName | None = Field(
        default=None,
        description="`.jsonl` file with a source and a target on each line, relative to the study's folder. Default: the "
        "study's validation examples.",
    )
    source: str = Field(default="source", description="Field of each line with the source text.")
    target: str = Field(default="target", description="Field of each line with the target text.")


class LengthExtrapolation(Measure):
    """Loss and accuracy on sources that are longer than those of training."""

    name: Literal["length_extrapolation"]
    factors: Annotated[tuple[Factor, ...], Strict(False), Field(min_length=1)] = Field(
        default=(2, 4), description="Lengths of the sources, as multiples of the longest one in training."
    )
    examples: PositiveInt | None = Field(
        default=None, description="Number of examples of each length. Default: as many as in validation."
    )

    @property
    def qualities(self) -> dict[str, Direction]:
        kinds: tuple[tuple[str, Direction], ...] = (("loss", "lower"), ("accuracy", "higher"))
        return {f"{self.prefix}.{name}_{factor}x": better for factor in self.factors for name, better in kinds}


class TimeToLoss(Measure):
    """How long a trial takes to the loss that the first variant with the same seed has at its end."""

    better: ClassVar[Mapping[str, Direction]] = {"steps": "lower", "tokens": "lower", "flops": "lower", "seconds": "lower"}
    trained: ClassVar[bool] = False

    name: Literal["time_to_loss"]


AnyMeasure = Choices | LinearProbe | Generation | LengthExtrapolation | TimeToLoss
Measures = Annotated[tuple[Annotated[AnyMeasure, Field(discriminator="name")], ...], Strict(False)]


class Measured(Spec):
    """The fields of a study that say what it measures."""

    measures: Measures = ()
    latency: bool = False


def qualities(measures: Sequence[Measure], latency: bool) -> dict[str, Direction]:
    """Whether lower or higher values are better, by the name of each measure of a study that variants are compared in."""
    found = dict(QUALITY)
    for measure in measures:
        found |= measure.qualities
    return found | (dict(LATENCY) if latency else {})


def check_measures(measures: Sequence[Measure]) -> Iterator[Problem]:
    """Measures whose results would have the same names, and lengths that occur twice."""
    counts = Counter(measure.prefix for measure in measures)
    for index, measure in enumerate(measures):
        if counts[measure.prefix] > 1:
            found = f"{measure.prefix!r} for {counts[measure.prefix]} measures"
            yield Problem(f"measures[{index}].label", found, "a label that no other measure has")
        if isinstance(measure, LengthExtrapolation) and len(set(measure.factors)) < len(measure.factors):
            yield Problem(f"measures[{index}].factors", str(list(measure.factors)), "each factor once")
