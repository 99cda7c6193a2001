from pairform.assemblies.families.olmo.olmo2 import OLMO2
from pairform.assemblies.families.olmo.olmo3 import OLMO3

FAMILIES = (OLMO2, OLMO3)

__all__ = ["FAMILIES"]
