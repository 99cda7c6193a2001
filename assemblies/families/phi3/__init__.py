"""Phi-3 in transformers' format."""

from pairform.assemblies.families.phi3.phi3 import FAMILIES as FAMILIES
