"""Images among the tokens of a stack."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pairform.assemblies.modeling.inputs import StackInputs
from pairform.assemblies.specs.model import VisionSpec
from pairform.registry import InputError, Problem, build_block


class Vision(nn.Module):
    """A vision tower, and a projector that maps its output to embeddings of image tokens."""

    def __init__(self, spec: VisionSpec, tower: nn.Module, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.per_image = spec.tokens
        self.tower = tower.requires_grad_(not spec.frozen)
        self.projector = build_block(spec.projector, spec.sizes(width), "projector")

    def places(
        self, token_ids: Int[Tensor, "batch length"], pixel_values: Tensor | None, *, first: bool, prompt: int | None = None
    ) -> Bool[Tensor, "batch length"] | None:
        """True at the image tokens whose embeddings images replace; None if there are no images.

        Image tokens that the model generated stand for no image: those after the `first` call of a sequence, and those after
        the first `prompt` tokens.

        Raises:
            InputError: the number of image tokens is not that of the images.
        """
        if pixel_values is not None:
            check_pixels(pixel_values)
        unknown = token_ids.is_meta or torch.compiler.is_compiling()  # compiled code cannot branch on token values
        if pixel_values is None and (unknown or not first):
            return None
        places = token_ids == self.spec.image_token
        if prompt is not None:
            places[:, prompt:] = False
        if unknown:
            return places
        self.check_count(places.sum(), None if pixel_values is None else len(pixel_values))
        return None if pixel_values is None else places

    def check_count(self, count: Int[Tensor, ""], pictures: int | None) -> None:
        """Check that there are as many image tokens as the images need. On a GPU a device-side assertion avoids waiting."""
        token, per_image = self.spec.image_token, self.per_image
        expected = (pictures or 0) * per_image
        if count.device.type != "cpu":
            torch._assert_async(
                count == expected, f"image tokens ({token}) other than {expected}, {per_image} for each picture"
            )
            return
        if (found := int(count)) == expected:
            return
        if pictures is None:
            raise InputError(Problem("input_ids", f"{found} image tokens ({token}) without pictures", "pixel_values for them"))
        remedy = f"Put {per_image} copies of the image token {token} in the place of each picture."
        raise InputError(
            Problem("input_ids", f"{found} image tokens", f"{expected}: {per_image} for each of {pictures} pictures", remedy)
        )

    def forward(
        self,
        embedded: Float[Tensor, "batch length width"],
        places: Bool[Tensor, "batch length"],
        pixel_values: Float[Tensor, "pictures channels height width"],
    ) -> tuple[Float[Tensor, "batch length width"], Float[Tensor, ""] | None]:
        """`embedded` with the image embeddings at `places`, in order; and the tower's auxiliary loss, if it is trained."""
        encoded = self.tower(StackInputs(pixel_values))
        # masked_scatter reads the image embeddings in memory order: image by image, and row by row of the batch
        filled = embedded.masked_scatter(places[..., None], self.projector(encoded.hidden).to(embedded.dtype))
        trained = any(parameter.requires_grad for parameter in self.tower.parameters())
        return filled, encoded.auxiliary_loss if trained else None

    def repeated(
        self, pixel_values: Float[Tensor, "pictures channels height width"], token_ids: Int[Tensor, "batch length"], times: int
    ) -> Float[Tensor, "repeated channels height width"]:
        """The images for a batch in which each row is repeated `times` times, consecutively."""
        counts = (token_ids == self.spec.image_token).sum(1).div(self.per_image, rounding_mode="floor")
        number, device = len(pixel_values), token_ids.device
        row = torch.arange(len(token_ids), device=device).repeat_interleave(counts, output_size=number)
        time = torch.arange(times, device=device).repeat_interleave(number)
        # by row of the new batch; the stable sort keeps the images of a row in their order
        order = (row.repeat(times) * times + time).argsort(stable=True)
        return pixel_values[torch.arange(number, device=device).repeat(times)[order]]

    def untouched(self, embedded: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """`embedded`, connected to every trainable parameter here with a gradient of zero.

        Data-parallel training waits for the gradient of each parameter, also after a batch without images.
        """
        if not (self.training and torch.is_grad_enabled()):
            return embedded
        for parameter in self.parameters():
            if parameter.requires_grad:
                # the sum of no elements: 0, with a gradient of zeros
                embedded = embedded + parameter.flatten()[:0].sum().to(embedded.dtype)
        return embedded


def check_pixels(pixel_values: Tensor) -> None:
    """Raise `InputError` for a wrong number of dimensions or dtype; the tower's embedding checks the sizes."""
    if pixel_values.ndim != 4:
        found = f"the shape {list(pixel_values.shape)}"
        raise InputError(Problem("pixel_values", found, "[pictures, channels, height, width], of the whole batch"))
    if not pixel_values.is_floating_point():
        expected = "floating-point numbers between -1 and 1, as read_pictures gives"
        raise InputError(Problem("pixel_values", f"{pixel_values.dtype}", expected))


def runs(places: Bool[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
    """A number for each run of consecutive True positions, and -1 elsewhere."""
    begins = places & ~nn.functional.pad(places[:, :-1], (1, 0))
    return begins.long().cumsum(1).sub(1).masked_fill(~places, -1)
