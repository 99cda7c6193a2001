from pairform.assemblies.families.modernbert.modernbert import FAMILIES

__all__ = ["FAMILIES"]
