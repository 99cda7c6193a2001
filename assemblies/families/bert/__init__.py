"""BERT, RoBERTa and XLM-RoBERTa in transformers' format."""

from pairform.assemblies.families.bert.bert import FAMILIES as FAMILIES
