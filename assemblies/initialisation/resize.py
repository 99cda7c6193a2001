"""Changing the size of a vocabulary."""

import torch
from torch import nn

from pairform.assemblies.checkpoints.reading.load_spec import patch_spec
from pairform.assemblies.checkpoints.unwrapping import unwrapped
from pairform.assemblies.initialisation.rules.vocabulary import VOCABULARY_TABLE
from pairform.assemblies.modeling.build import check_seed, distributions
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.modeling.random_init import chunks
from pairform.registry import InputError, Problem, shorten


def resize_vocabulary(model: Model, size: int, *, seed: int = 0) -> Model:
    """Change the vocabulary of every stack and of the head, in place. The model's spec changes with it.

    Args:
        model: a model, also inside torch.compile or DataParallel.
        size: the number of tokens. Remaining rows keep their values; new ones are drawn like newly initialised weights.
        seed: of the new rows.

    Returns:
        The model without its wrapper.

    Raises:
        InputError: no model, or an invalid size or seed.
        SpecError: the spec does not allow the size.
    """
    model, seed = unwrapped(model), check_seed(seed)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(Problem("size", shorten(size), "a number of tokens, 1 or more"))
    own = {"vocabulary": None}
    stacks = {
        part: own if stack.layer_input is None else own | {"layer_input": own} for part, stack in model.spec.stacks.items()
    }
    spec = patch_spec(model.spec, {"vocabulary": size, **stacks})
    with torch.no_grad():
        for name, parameter, initial in list(distributions(model)):
            if VOCABULARY_TABLE.fullmatch(name):
                kept, row = min(size, len(parameter)), parameter.shape[1:]
                rows = torch.empty((size, *row), dtype=parameter.dtype, device=parameter.device)
                rows[:kept] = parameter[:kept]
                width = row.numel()
                drawn = [*chunks(initial, name, size * width, parameter.dtype, seed, begin=kept * width)]
                if drawn:
                    rows[kept:] = torch.cat(drawn).reshape(-1, *row).to(parameter.device)
                owner, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(owner), leaf, nn.Parameter(rows, requires_grad=parameter.requires_grad))
    model.spec = spec
    return model
