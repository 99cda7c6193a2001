"""One PyTorch file for one architecture, which imports torch only: `eject`."""

from pairform.assemblies.checkpoints.reading.load_spec import Ref, load_spec
from pairform.assemblies.eject.models import write


def eject(spec: Ref) -> str:
    """The text of a Python file with a `Model` of exactly this architecture, that loads the same weights by the same names.

    In float32 its logits equal those of `pairform.build(spec, kernel="eager")` bit for bit. It has no dropout.

    Args:
        spec: as for `load_spec`.

    Raises:
        SpecError: the spec is invalid, or some of its blocks or values have no written form; they are named.
    """
    return write(load_spec(spec))
