"""Objectives: how texts become training examples. JSON names them; nothing here needs torch."""

from typing import Annotated

from pydantic import Field

from pairform.training.data.objectives.base import IGNORED as IGNORED
from pairform.training.data.objectives.base import Example as Example
from pairform.training.data.objectives.base import Lengths as Lengths
from pairform.training.data.objectives.base import Marks as Marks
from pairform.training.data.objectives.base import Objective as Objective
from pairform.training.data.objectives.base import Piece as Piece
from pairform.training.data.objectives.base import Text as Text
from pairform.training.data.objectives.denoising import UL2 as UL2
from pairform.training.data.objectives.denoising import Denoiser as Denoiser
from pairform.training.data.objectives.denoising import SpanCorruption as SpanCorruption
from pairform.training.data.objectives.masking import Masked as Masked
from pairform.training.data.objectives.prefix_lm import CausalLM as CausalLM
from pairform.training.data.objectives.prefix_lm import PrefixLM as PrefixLM
from pairform.training.data.objectives.sequence_pairs import SequencePairs as SequencePairs

TextToText = Annotated[PrefixLM | SpanCorruption, Field(discriminator="name")]
"""Objectives that make a source and a target of running text."""
OnText = PrefixLM | SpanCorruption | Masked | CausalLM
"""Objectives on running text."""
AnyObjective = Annotated[PrefixLM | SpanCorruption | Masked | CausalLM | SequencePairs, Field(discriminator="name")]
"""Every objective."""
