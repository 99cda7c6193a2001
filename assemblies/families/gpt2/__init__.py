"""GPT-2 in transformers' format."""

from pairform.assemblies.families.gpt2.gpt2 import FAMILIES as FAMILIES
