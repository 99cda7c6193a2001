"""Products in half precision through float32, as on CPUs without instructions for them, against float64 and torch's own;
`make test-portable` runs whole models through them."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pairform.blocks.functional import linear as linear_layers
from pairform.blocks.functional import processor, wide_products
from pairform.blocks.functional.linear import Linear, linear
from pairform.blocks.functional.processor import wide_rows, widens
from pairform.blocks.functional.wide_products import wide_product
from tests.roundings import roundings

half = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
ROUNDINGS = 1.0
"""Of the dtype, relative to the norm of the answer: it is rounded once."""


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("ROWS", 16), ("COLUMNS", 8), ("INNER", 32)):
        monkeypatch.setattr(wide_products, name, size)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without products in half precision, on which no weight is small."""
    monkeypatch.setattr(linear_layers, "SMALL", 0)
    monkeypatch.setattr(linear_layers, "widens", lambda device: device == "cpu")
    monkeypatch.setattr(linear_layers, "wide_rows", lambda device, dtype: 5 if dtype.itemsize == 2 else None)


def drawn(dtype: torch.dtype, *sizes: int) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(sum(sizes))).to(dtype)


@half
@pytest.mark.parametrize("sizes", [(5, 7, 3), (16, 32, 8), (40, 70, 21), (33, 1, 9)])
@pytest.mark.parametrize("biased", [False, True])
def test_product_and_gradients_are_rounded_once(dtype: torch.dtype, sizes: tuple[int, int, int], biased: bool) -> None:
    rows, inner, columns = sizes
    given = [drawn(dtype, rows, inner), drawn(dtype, columns, inner)] + [drawn(dtype, columns)] * biased
    leaves = [each.clone().requires_grad_() for each in given]
    exact = [each.double().requires_grad_() for each in given]
    product, expected = wide_product(*leaves), functional.linear(*exact)
    slopes = drawn(dtype, rows, columns)
    found = [product, *torch.autograd.grad(product, leaves, slopes)]
    wanted = [expected, *torch.autograd.grad(expected, exact, slopes.double())]
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == dtype
        assert roundings(one, other, dtype) <= ROUNDINGS


@half
@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("biased", [False, True])
def test_a_small_weight_is_multiplied_in_float32(dtype: torch.dtype, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Product and gradients are rounded once, and hidden states of fewer rows or under autocast are multiplied as they are."""
    monkeypatch.setattr(linear_layers, "SMALL", 7 * 3)
    given = [drawn(dtype, 2, 6, 7), drawn(dtype, 3, 7)] + [drawn(dtype, 3)] * biased
    leaves = [each.clone().requires_grad_() for each in given]
    exact = [each.double().requires_grad_() for each in given]
    bias = leaves[2] if biased else None
    assert linear_layers.is_small(leaves[0], leaves[1], bias)
    assert not linear_layers.is_small(leaves[0][:, :2], leaves[1], bias)
    with torch.autocast("cpu", dtype):
        assert not linear_layers.is_small(leaves[0], leaves[1], bias)
    product, expected = linear_layers.linear(*leaves), functional.linear(*exact)
    slopes = drawn(dtype, 2, 6, 3)
    found = [product, *torch.autograd.grad(product, leaves, slopes)]
    wanted = [expected, *torch.autograd.grad(expected, exact, slopes.double())]
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == dtype
        assert roundings(one, other, dtype) <= ROUNDINGS


@half
def test_views_in_any_order_of_memory(dtype: torch.dtype) -> None:
    rows, columns = drawn(dtype, 70, 40).T, drawn(dtype, 70, 60).T[::2]
    assert roundings(wide_product(rows, columns), rows.double() @ columns.double().T, dtype) <= ROUNDINGS


@half
def test_operator_is_registered_as_torch_asks(dtype: torch.dtype) -> None:
    inputs = [drawn(dtype, *sizes).requires_grad_() for sizes in ((6, 4), (3, 4), (3,))]
    torch.library.opcheck(torch.ops.pairform.wide_product.default, tuple(inputs))


@half
@pytest.mark.usefixtures("slow")
def test_linear_layers_use_it_for_many_rows(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []

    def counted(rows: Tensor, *others: Tensor) -> Tensor:
        called.append(len(rows))
        return wide_product(rows, *others)

    monkeypatch.setattr(linear_layers, "wide_product", counted)
    layer = Linear(12, 9).to(dtype)
    for rows in (1, 4, 5, 30):
        hidden = drawn(dtype, 1, rows, 12)
        exact = functional.linear(hidden.double(), layer.weight.double(), layer.bias.double())
        assert roundings(layer(hidden), exact, dtype) <= ROUNDINGS
    assert called == [5, 30]
    with pytest.raises(RuntimeError, match="dtype"):
        layer(drawn(torch.float32, 6, 12))
    with pytest.raises(RuntimeError, match="shape"):
        layer(drawn(dtype, 12, 6))
    assert called == [5, 30]


@half
@pytest.mark.usefixtures("slow")
def test_under_autocast_the_result_is_that_of_half_precision(dtype: torch.dtype) -> None:
    layer, hidden = Linear(12, 9), drawn(torch.float32, 3, 6, 12).requires_grad_()
    with torch.autocast("cpu", dtype):
        product = layer(hidden)
    product.float().square().sum().backward()
    assert product.dtype == dtype
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.float32
    exact = functional.linear(hidden.to(dtype).double(), layer.weight.to(dtype).double(), layer.bias.to(dtype).double())
    assert roundings(product, exact, dtype) <= ROUNDINGS


@pytest.mark.usefixtures("slow")
def test_compiled_and_exported() -> None:
    """Compiled code calls the operator in one graph; an exported program runs without it."""
    layer, hidden = Linear(12, 9).bfloat16(), drawn(torch.bfloat16, 30, 12)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(hidden), layer(hidden), rtol=0, atol=0)
    program = torch.export.export(layer, (hidden,))
    assert "pairform" not in program.graph_module.code


def test_only_cpus_widen() -> None:
    assert not widens("cuda")
    assert wide_rows("cuda", torch.bfloat16) is None
    assert wide_rows("cpu", torch.float32) is None
    assert widens("cpu") == any(wide_rows("cpu", dtype) for dtype in (torch.float16, torch.bfloat16))


@pytest.mark.parametrize(
    ("vendor", "flags", "limit", "rows"),
    [
        ("AuthenticAMD", "avx512f avx512_bf16", "", None),
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16", "", None),
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16", "AVX512_CORE_BF16", processor.MANY),
        ("GenuineIntel", "avx512f avx512_bf16", "", processor.MANY),
        ("GenuineIntel", "avx512f", "", processor.FEW),
        ("AuthenticAMD", "avx512f avx512_bf16", "avx512_core", processor.FEW),
        (None, None, "", None),
    ],
)
def test_rows_by_instruction_sets(
    vendor: str | None, flags: str | None, limit: str, rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where oneDNN says that it multiplies: it also says so where it emulates."""
    told = {"vendor_id": vendor, "flags": flags}
    monkeypatch.setattr(processor, "onednn_multiplies", lambda dtype: True)
    monkeypatch.setattr(processor, "described", lambda field: [value] if (value := told[field]) else [])
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert processor.least_rows.__wrapped__().get("torch.bfloat16") == rows


def test_linear_is_torchs_elsewhere() -> None:
    hidden, weight = drawn(torch.float32, 6, 12), drawn(torch.float32, 9, 12)
    torch.testing.assert_close(linear(hidden, weight), functional.linear(hidden, weight), rtol=0, atol=0)
