from pairform.assemblies.families.granite.granite import FAMILIES

__all__ = ["FAMILIES"]
