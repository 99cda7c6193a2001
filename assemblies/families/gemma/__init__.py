"""Gemma 2 and Gemma 3 in transformers' format."""

from pairform.assemblies.families.gemma.gemma2 import GEMMA2
from pairform.assemblies.families.gemma.gemma3 import GEMMA3
from pairform.assemblies.families.gemma.gemma3_text import GEMMA3_TEXT

FAMILIES = (GEMMA3, GEMMA3_TEXT, GEMMA2)
