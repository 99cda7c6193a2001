"""T5, T5 v1.1, mT5 and UMT5 in transformers' format."""

from pairform.assemblies.families.t5.t5 import FAMILIES as FAMILIES
