from pairform.assemblies.families.gemma1.gemma1 import FAMILIES

__all__ = ["FAMILIES"]
