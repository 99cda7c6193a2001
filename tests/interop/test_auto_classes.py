"""Random specs in transformers' Auto classes: loaded, run, generated from, saved and loaded again."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import Phase, given, seed, settings

import pairform
import pairform.interop.transformers as bridge
from pairform.assemblies.checkpoints.writing.config_file import class_of
from tests.catalogue.any_spec import Document, documents
from tests.catalogue.places import answer, inputs

COUNT = int(os.environ.get("PAIRFORM_SPECS", "30"))
"""Specs drawn of each assembly, of which about a third are valid."""
AUTO = {
    "PairformModel": transformers.AutoModel,
    "PairformForConditionalGeneration": transformers.AutoModelForSeq2SeqLM,
    "PairformForCausalLM": transformers.AutoModelForCausalLM,
    "PairformForMaskedLM": transformers.AutoModelForMaskedLM,
    "PairformForSequenceClassification": transformers.AutoModelForSequenceClassification,
    "PairformForTokenClassification": transformers.AutoModelForTokenClassification,
    "PairformForQuestionAnswering": transformers.AutoModelForQuestionAnswering,
}


def loaded(folder: Path, spec: pairform.ModelSpec) -> Any:
    """The model in its Auto class, with every weight found and none left over."""
    model, info = AUTO[class_of(spec)].from_pretrained(folder, output_loading_info=True)
    assert type(model) is getattr(bridge, class_of(spec))
    assert not any(info.values()), info
    return model


def check(spec: pairform.ModelSpec, folder: Path) -> None:
    ours = pairform.build(spec, seed=0)
    pairform.save(ours, folder / "ours")
    theirs, batch = loaded(folder / "ours", spec), inputs(spec)
    theirs.save_pretrained(folder / "theirs", max_shard_size="3KB")
    for model in (theirs, loaded(folder / "theirs", spec), pairform.load(folder / "theirs")):
        weights, expected = model.state_dict(), ours.state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())
    # the same memory too: products of matrices that lie elsewhere may be summed in another order
    ours.load_state_dict(theirs.state_dict(), assign=True)
    with torch.no_grad():
        assert torch.equal(answer(theirs, batch), answer(ours, batch))
    if theirs.can_generate():
        batch.pop("decoder_input_ids", None)
        given: list[dict[str, Any]] = [{}, {"num_beams": 3}]
        for options in given:
            written = ours.generate(**batch, max_new_tokens=4, **options)
            assert torch.equal(theirs.generate(**batch, max_new_tokens=4, do_sample=False, **options), written)


@pytest.mark.parametrize("assembly", ["encoder_decoder", "decoder_only", "encoder_only"])
def test_random_specs_in_the_auto_classes(assembly: str) -> None:
    valid = 0

    @seed(7)
    @settings(max_examples=COUNT, phases=[Phase.generate])
    @given(documents(assembly))
    def run(document: Document) -> None:
        nonlocal valid
        try:
            spec = pairform.load_spec(document)
        except pairform.PairformError:
            return
        with tempfile.TemporaryDirectory() as folder:
            check(spec, Path(folder))
        valid += 1

    run()
    assert valid >= COUNT / 10
