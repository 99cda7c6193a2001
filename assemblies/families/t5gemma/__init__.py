"""T5Gemma and T5Gemma 2 in transformers' format."""

from pairform.assemblies.families.t5gemma.t5gemma import T5GEMMA
from pairform.assemblies.families.t5gemma.t5gemma2 import T5GEMMA2
from pairform.assemblies.families.t5gemma.t5gemma2_encoder import T5GEMMA2_ENCODER

FAMILIES = (T5GEMMA2_ENCODER, T5GEMMA2, T5GEMMA)
