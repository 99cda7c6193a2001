"""Gemma 4 in transformers' format: text models, and the language models of folders with pictures and sound."""

from pairform.assemblies.families.gemma4.gemma4 import FAMILIES as FAMILIES
