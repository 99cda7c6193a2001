from pairform.assemblies.families.eurobert.eurobert import FAMILIES

__all__ = ["FAMILIES"]
