"""BART and its relatives mBART, Marian, Pegasus and M2M-100 (NLLB) in transformers' format."""

from pairform.assemblies.families.bart.bart import FAMILIES as FAMILIES
