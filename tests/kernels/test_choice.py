"""Which kernel does the work: by the spec, by an argument, by layer; and what is said of one that cannot."""

import inspect
from typing import Any

import pytest
import torch

import pairform
from pairform.blocks.attention.kernels import dispatch, flex
from pairform.blocks.attention.kernels.arguments import AttentionCall
from pairform.blocks.attention.kernels.dispatch import KERNELS, Demand, able, choose, preferred
from pairform.blocks.attention.masks import JoinedMask, Mask, MaskPattern
from pairform.blocks.attention.projections import AttentionHeads
from pairform.blocks.functional.constants import constant
from pairform.registry import InputError, SpecError
from tests.kernels.cases import WIDE

IDS = torch.arange(3, 9)[None]


def branches(**fields: Any) -> dict[str, Any]:
    """A patch on every attention of the decoder."""
    return {"decoder": {"layer": {"branches": dict.fromkeys(("self_attention", "cross_attention"), fields)}}}


def test_a_spec_that_no_kernel_of_that_name_can_do_is_refused_when_read() -> None:
    merged = {"self_attention": {"name": "merged_attention", "kernel": "flash"}, "cross_attention": None}
    layer = {"order": ["self_attention", "feed_forward"], "branches": merged}
    separate = {"bridge": {"name": "separate_keys"}, "decoder": {"layer": layer}}
    for patch, message in (
        (branches(kernel="xformers"), "auto or one of eager, chunked, flex, flash as kernel: xformers cannot do a softcap"),
        (branches(kernel="flash", head_dim=320), "flash cannot do heads of 320"),
        (separate, "flash cannot do merged attention"),
        (branches(kernel="fastest"), "kernel"),
    ):
        with pytest.raises(SpecError, match=message):
            pairform.load_spec(WIDE, patch)


def test_build_and_load_take_a_kernel_for_all_layers(tmp_path: Any) -> None:
    pairform.save(pairform.build(WIDE, seed=0), tmp_path / "model")
    for model in (pairform.build(WIDE, seed=0, kernel="chunked"), pairform.load(tmp_path / "model", kernel="chunked")):
        assert {getattr(module, "kernel", "chunked") for module in model.modules()} == {"chunked"}
    message = r"self_attention\.block.*'sdpa', which cannot do a softcap"
    with pytest.raises(InputError, match=message):
        pairform.build(WIDE, kernel="sdpa")
    with pytest.raises(InputError, match=message):
        pairform.load(tmp_path / "model", kernel="sdpa")


def test_a_kernel_is_taken_by_all_layers_or_by_none() -> None:
    encoder = {"layer": {"branches": {"self_attention": {"softcap": None}}}}
    model = pairform.build(pairform.patch(WIDE, {"encoder": encoder}), seed=0)
    with pytest.raises(InputError, match=r"decoder\.layers\.0\.self_attention\.block.*'sdpa', which cannot do a softcap"):
        model.use_kernel("sdpa")
    assert {module.kernel for module in model.modules() if isinstance(module, AttentionHeads)} == {"auto"}


def test_layers_may_use_different_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def watched(name: str) -> Any:
        plain = KERNELS[name].run

        def run(*arguments: Any) -> Any:
            used.append(name)
            return plain(*arguments)

        return run

    spec = pairform.load_spec(
        WIDE, {"decoder": {"overrides": [{"layers": [-1], "patch": branches(kernel="chunked")["decoder"]["layer"]}]}}
    )
    plain = pairform.build(WIDE, seed=0)(IDS, decoder_input_ids=IDS).logits
    for name in ("eager", "chunked"):
        monkeypatch.setitem(dispatch.FUNCTIONS, name, watched(name))
    mixed = pairform.build(spec, seed=0)(IDS, decoder_input_ids=IDS).logits
    assert used == ["eager"] * 4 + ["chunked"] * 2
    torch.testing.assert_close(mixed, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flash", "'flash', which cannot run on cpu"),
        ("flex", "'flex', which cannot run on cpu: torch's flex_attention returns wrong numbers on a CPU"),
    ],
)
def test_a_call_that_a_kernel_cannot_do_is_refused_with_those_that_can(name: str, message: str) -> None:
    model = pairform.build(WIDE, seed=0, kernel=name)
    with pytest.raises(InputError, match=f"{message}, expected auto or one of eager, chunked"):
        model(IDS, decoder_input_ids=IDS)


def test_a_kernel_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "find_spec", lambda name: None)
    asked_anew: Any = constant(inspect.unwrap(flex.lacks))
    dispatch.load("flex")
    monkeypatch.setitem(dispatch.LACKS, "flex", asked_anew)
    with pytest.raises(InputError, match="'flex', which needs triton, which is not installed"):
        choose("flex", Demand(device="cuda"))
    assert "flex" not in able(Demand(device="cuda", dtype=torch.float32))


def test_no_device_but_a_gpu_is_given_flex() -> None:
    """On a CPU it returns wrong numbers, also where nothing is trained."""
    assert "flex" not in able(Demand(device="cpu", dtype=torch.float32))
    model = pairform.build(WIDE, seed=0, kernel="flex")
    with torch.no_grad(), pytest.raises(InputError, match="expected auto or one of eager, chunked"):
        model(IDS, decoder_input_ids=IDS)


def test_what_is_measured_on_the_meta_device_needs_no_gpu() -> None:
    plain, flash = (pairform.inspect(pairform.load_spec(WIDE, patch)) for patch in ({}, branches(kernel="flash")))
    assert plain.flops == flash.flops


def test_an_untested_kernel_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatch.load("flash")
    monkeypatch.setitem(dispatch.LACKS, "flash", {}.get)
    with pytest.warns(UserWarning, match="flash has not been tested on a GPU"):
        choose("flash", Demand(device="cuda", dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("device", "installed", "softcap", "expected"),
    [
        ("cpu", {"flex", "flash"}, 50.0, ["eager", "chunked"]),
        ("cpu", {"flex", "flash"}, None, ["sdpa", "chunked"]),
        ("cuda", {"flex", "flash"}, 50.0, ["eager", "flex"]),
        ("cuda", set(), 50.0, ["eager", "chunked"]),
        ("cuda", {"flex", "flash"}, None, ["sdpa", "sdpa"]),
    ],
)
def test_auto_holds_no_scores_where_sequences_are_long(
    device: str, installed: set[str], softcap: float | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("flex", "flash"):
        answers = {} if name in installed else {device: "is not there"}
        dispatch.load(name)
        monkeypatch.setitem(dispatch.LACKS, name, answers.get)
    demand = Demand(softcap=softcap is not None, device=device, dtype=torch.bfloat16)
    found = []
    for length in (64, 4096):
        work = AttentionCall(JoinedMask((Mask(MaskPattern(), 0, length, 0, length),)), 1.0, softcap)
        names = preferred(demand, torch.empty(1, 1, length, 8), work)
        found.append(next(name for name in names if KERNELS[name].refuses(demand) is None))
    assert found == expected
