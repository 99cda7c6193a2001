from pairform.assemblies.families.smollm3.smollm3 import FAMILIES

__all__ = ["FAMILIES"]
