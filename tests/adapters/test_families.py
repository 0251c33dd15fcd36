"""Every family, variant and backbone against plain Hugging Face, and against itself in other batches."""

import pytest
import torch

import mmlens
from benchmarks.parity import measure
from mmlens.adapter import KINDS
from mmlens.backbone.build import has_hooked_transformer
from mmlens.errors import UnsupportedModelError
from mmlens.streaming.batching import Batching
from mmlens.tokens.groups import BASE_GROUPS
from tests.helpers.models import spliced
from tests.tiny import NAMES, family

#: Inputs of the prompt, not of media.
TEXT = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
VARIANTS = [(name, variant) for name in NAMES for variant in family(name).variants]


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_hooked_transformer_equals_hugging_face(name, variant):
    if not has_hooked_transformer():
        pytest.skip("transformer-lens 4 has no HookedTransformer")
    try:
        found = measure(family(name), variant, "hooked_transformer")
    except UnsupportedModelError as error:
        assert "bridge" in str(error)
        assert spliced(name, variant).cfg.backbone == "bridge"
        pytest.skip(f"the bridge alone serves it: {error}")
    assert spliced(name, variant).cfg.backbone == "hooked_transformer"
    assert max(found.logits, found.hooks, found.zeroed, found.alone) <= 1e-5
    # Two right implementations may disagree on the sign of what rounding alone decides.
    assert found.flips <= 1e-4 * found.activations
    assert found.tokens == "-"
    assert found.bf16 <= 1.1


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_bridge_equals_hugging_face_exactly(name, variant):
    found = measure(family(name), variant, "bridge")
    assert (found.logits, found.hooks, found.zeroed, found.flips) == (0, 0, 0, 0)
    assert found.alone <= 1e-5
    assert found.tokens == "-"
    assert found.bf16 == 1


@pytest.mark.parametrize("name", NAMES)
def test_statistics_do_not_depend_on_batching(name):
    model, samples = spliced(name), family(name).samples()
    if any(not (s.images or s.videos or s.audios) for s in samples):
        samples = [s for s in samples if s.images or s.videos or s.audios]
    modules = tuple(model.modules)
    together, alone = (
        mmlens.collect(
            model, samples, modules=modules, batching=Batching(max_batch=size, progress=False)
        )
        for size in (len(samples), 1)
    )
    for module in modules:
        (counts, tokens), (others, other_tokens) = (x.counts(module) for x in (together, alone))
        assert tokens.tolist() == other_tokens.tolist(), module
        assert int((counts - others).abs().sum()) <= 1e-4 * int(counts.sum()), module
        assert int(counts.sum()) > 0, module


@pytest.mark.parametrize("name", NAMES)
def test_prompt_lengths_are_known_before_anything_is_decoded(name):
    model, samples = spliced(name), family(name).samples()
    expected = [model.prepare(one).shape[1] for one in samples]
    assert model.preparer.lengths(samples, "auto") == expected


@pytest.mark.parametrize("name", NAMES)
def test_token_groups_partition_the_prompt(name):
    model = spliced(name)
    batch = model.prepare(family(name).samples())
    masks = torch.stack([batch.groups.mask(group) for group in BASE_GROUPS])
    assert torch.equal(masks.sum(0), batch.groups.attention.long())
    features = model.adapter.feature_counts(batch.inputs)
    # Some families put the frames of a video at the placeholder of pictures.
    assert set(features) == set(model.adapter.placeholders())
    for kind, counts in features.items():
        assert int(batch.groups.mask(kind).sum()) == int(counts.sum()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_template_is_told_from_the_question(name):
    model, samples = spliced(name), family(name).samples()
    if not getattr(model.processor, "chat_template", None):
        pytest.skip("the family has no chat template")
    batch = model.prepare(samples)
    own = batch.groups.mask("text") & ~batch.groups.mask("template")
    for row, sample in enumerate(samples):
        words = model.tokenizer.convert_ids_to_tokens(batch.input_ids[row][own[row]].tolist())
        assert words == sample.text.split()


@pytest.mark.parametrize("name", NAMES)
def test_more_media_than_placeholders_are_refused(name):
    model, samples = spliced(name), family(name).samples()
    for kind in model.adapter.modalities:
        others = [one for one in KINDS if one != kind]
        sample = next(
            s
            for s in samples
            if getattr(s, f"{kind}s") and not any(getattr(s, f"{o}s") for o in others)
        )
        one, two = model.prepare(sample), model.prepare([sample, sample])
        group = model.adapter.group_of(kind)
        placed, given = (len(model.adapter.feature_counts(b.inputs)[group]) for b in (one, two))
        assert given == 2 * placed > 0
        inputs = {n: one.inputs[n] if n in TEXT else value for n, value in two.inputs.items()}
        message = f"{given} {group} media were given, but .*placeholders for {placed}"
        with pytest.raises(UnsupportedModelError, match=message):
            model(inputs)
