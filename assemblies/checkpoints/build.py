"""Build a model with newly initialised weights from any reference to a spec: a preset, a path, a document."""

import torch

from pairform.assemblies.checkpoints.reading.load_spec import Ref, load_spec
from pairform.assemblies.modeling.build import check_place, check_seed, distributions, skeleton
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.modeling.random_init import draw


def build(
    spec: Ref,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int | None = None,
    kernel: str = "auto",
) -> Model:
    """Build a model with newly initialised weights, in eval mode.

    Args:
        spec: a preset's name, the path of a JSON file or a folder, a document, or a `ModelSpec`.
        device: on "meta", nothing is allocated.
        dtype: the floating-point dtype of the weights.
        seed: each weight depends on the seed and its own name alone, so that equal parts of two models get equal weights.
            None draws from torch's global random state.
        kernel: the attention kernel of every block; "auto" leaves the choice to the spec.

    Returns:
        The model.

    Raises:
        SpecError: the spec is invalid.
        InputError: the device, dtype, seed or kernel is invalid, or the kernel cannot do some block's work.
    """
    check_place(device, dtype, kernel)
    seed = None if seed is None else check_seed(seed)
    model = skeleton(load_spec(spec), dtype)
    if kernel != "auto":
        model.use_kernel(kernel)
    if torch.device(device).type == "meta":
        return model
    if seed is None:
        seed = int(torch.randint(2**62, ()).item())
    model.to_empty(device=device)
    with torch.no_grad():
        for name, parameter, initial in distributions(model):
            parameter.copy_(draw(initial, name, tuple(parameter.shape), parameter.dtype, seed))
    return model
