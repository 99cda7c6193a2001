"""Pictures among a stack's tokens."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pairform.assemblies.modeling.inputs import StackInputs
from pairform.assemblies.specs.model import VisionSpec
from pairform.registry import InputError, Problem, build_block


class Vision(nn.Module):
    """A tower that reads pictures, and a projector that turns what it saw into embeddings of image tokens."""

    def __init__(self, spec: VisionSpec, tower: nn.Module, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.tower = tower.requires_grad_(not spec.frozen)
        self.projector = build_block(spec.projector, spec.sizes(width), "projector")

    def places(
        self, token_ids: Int[Tensor, "batch length"], pixel_values: Tensor | None, *, first: bool, prompt: int | None = None
    ) -> Bool[Tensor, "batch length"] | None:
        """Where pictures stand. There must be as many image tokens as the pictures have; without pictures, none.

        An image token that the model wrote itself holds no picture: one after the `first` call of a sequence, and one
        behind the first `prompt` tokens.
        """
        if pixel_values is not None:
            check_pixels(pixel_values)
        unseen = token_ids.is_meta or torch.compiler.is_compiling()  # code that is compiled takes no branch by what tokens are
        if pixel_values is None and (unseen or not first):
            return None
        places = token_ids == self.spec.image_token
        if prompt is not None:
            places[:, prompt:] = False
        if unseen:
            return places
        each: int = getattr(self.spec.projector, "tokens", 0)
        self.check_count(places.sum(), None if pixel_values is None else len(pixel_values), each)
        return None if pixel_values is None else places

    def check_count(self, count: Int[Tensor, ""], pictures: int | None, each: int) -> None:
        """Image tokens must be as many as pictures have. Not to wait for a GPU, this is left to an assertion there."""
        token, wanted = self.spec.image_token, (pictures or 0) * each
        if count.device.type != "cpu":
            torch._assert_async(count == wanted, f"image tokens ({token}) other than {wanted}, {each} for each picture")
            return
        if (found := int(count)) == wanted:
            return
        if pictures is None:
            raise InputError(Problem("input_ids", f"{found} image tokens ({token}) without pictures", "pixel_values for them"))
        remedy = f"Put {each} times the image token {token} where a picture stands."
        raise InputError(
            Problem("input_ids", f"{found} image tokens", f"{wanted}: {each} for each of {pictures} pictures", remedy)
        )

    def forward(
        self,
        embedded: Float[Tensor, "batch length width"],
        places: Bool[Tensor, "batch length"],
        pixel_values: Float[Tensor, "pictures channels height width"],
    ) -> tuple[Float[Tensor, "batch length width"], Float[Tensor, ""] | None]:
        """`embedded` with the pictures' embeddings at `places`, in order; and the tower's auxiliary loss, if it is trained."""
        seen = self.tower(StackInputs(pixel_values))
        filled = embedded.masked_scatter(places[..., None], self.projector(seen.hidden).to(embedded.dtype))
        trained = any(parameter.requires_grad for parameter in self.tower.parameters())
        return filled, seen.auxiliary_loss if trained else None

    def repeated(
        self, pixel_values: Float[Tensor, "pictures channels height width"], token_ids: Int[Tensor, "batch length"], times: int
    ) -> Float[Tensor, "repeated channels height width"]:
        """The pictures for rows of which each stands so many times, one after the other."""
        each: int = getattr(self.spec.projector, "tokens", 0)
        counts = (token_ids == self.spec.image_token).sum(1).div(each, rounding_mode="floor")
        number, device = len(pixel_values), token_ids.device
        row = torch.arange(len(token_ids), device=device).repeat_interleave(counts, output_size=number)
        time = torch.arange(times, device=device).repeat_interleave(number)
        order = (row.repeat(times) * times + time).argsort(stable=True)
        return pixel_values[torch.arange(number, device=device).repeat(times)[order]]

    def untouched(self, embedded: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """`embedded` as it is, with a gradient of zero to every parameter here that is trained.

        Data-parallel training waits for each parameter's gradient, also after a batch of text alone.
        """
        if not (self.training and torch.is_grad_enabled()):
            return embedded
        for parameter in self.parameters():
            if parameter.requires_grad:
                embedded = embedded + parameter.flatten()[:0].sum().to(embedded.dtype)
        return embedded


def check_pixels(pixel_values: Tensor) -> None:
    """Refuse what a tower could only misread; its embedding checks the sizes."""
    if pixel_values.ndim != 4:
        found = f"the shape {list(pixel_values.shape)}"
        raise InputError(Problem("pixel_values", found, "[pictures, channels, height, width], of the whole batch"))
    if not pixel_values.is_floating_point():
        expected = "floating-point numbers between -1 and 1, as read_pictures gives"
        raise InputError(Problem("pixel_values", f"{pixel_values.dtype}", expected))


def runs(places: Bool[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
    """The number of each run of neighbouring places, and -1 elsewhere."""
    begins = places & ~nn.functional.pad(places[:, :-1], (1, 0))
    return begins.long().cumsum(1).sub(1).masked_fill(~places, -1)
