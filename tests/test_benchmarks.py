"""The benchmark runs, and finds that all variants compute the same; no assertion on time."""

import json
import sys

import pytest
import torch

from benchmarks import overhead
from benchmarks._models import ModelSize, Size, build
from benchmarks._variants import VARIANTS, Setting

TINY = ModelSize(
    layers=2,
    d_model=32,
    d_mlp=48,
    heads=4,
    kv_heads=2,
    vocab=600,
    vision_layers=2,
    vision_width=16,
    positions=512,
)


@pytest.fixture(scope="module")
def tiny():
    return build(TINY, "cpu", "float32")


def test_overhead_prints_and_writes_every_variant(tmp_path, capsys):
    path = tmp_path / "deep" / "overhead.json"
    rows = overhead.main(
        overhead.Options(
            sizes=("1x150", "3x220"),
            repeats=2,
            threads=torch.get_num_threads(),
            memory=False,
            json=path,
            model=TINY,
        )
    )
    assert [(r.size, r.variant) for r in rows] == [
        (size, variant) for size in ("1x150", "3x220") for variant in VARIANTS
    ]
    assert all(len(r.seconds) == len(r.ratios) == 2 for r in rows)
    assert all(r.ratios == (1.0, 1.0) for r in rows if r.variant == "bare")
    written = json.loads(path.read_text())
    assert len(written["rows"]) == len(rows)
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*VARIANTS, "3x220", "torch"))


@pytest.mark.parametrize("text", ["1x138", "2x200", "1x500"])
def test_samples_have_the_wanted_length(tiny, text):
    size = Size.parse(text)
    batch = Setting(tiny, size).batch
    assert batch.shape == (size.samples, size.tokens)
    assert bool(batch.groups.attention.all())
    assert batch.groups.mask("image").float().mean() > 0.6


def test_too_short_prompts_are_refused(tiny):
    with pytest.raises(ValueError, match="at least 138 tokens"):
        Setting(tiny, Size(1, 20))


def test_order_rotates(tiny):
    class Recorder(Setting):
        def run(self, variant):
            order.append(variant)

    order = []
    names = list(VARIANTS)
    overhead.rounds(Recorder(tiny, Size(1, 150)), 2)
    assert order == names + names[1:] + names[:1]


def test_check_notices_other_logits(tiny):
    class Wrong(Setting):
        def spliced(self):
            with torch.no_grad():
                hook = ("blocks.0.mlp.hook_post", lambda x, hook: x + 1)
                return self.model.run_with_hooks(self.batch, [hook], logits_to_keep=1)

    with pytest.raises(AssertionError, match="spliced at 1x150: logits"):
        Wrong(tiny, Size(1, 150)).check()


def test_check_notices_other_counts(tiny):
    setting = Setting(tiny, Size(2, 150))
    setting._counters.positive["domain 1"][0, 0] += 100
    with pytest.raises(AssertionError, match="counts differ"):
        setting.check()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resets the high-water mark through /proc")
def test_memory_of_a_fresh_process():
    from benchmarks._memory import measured

    (one,) = measured([("cache", Size(1, 150))], TINY, "cpu", "float32", 1)
    assert one is not None
    assert one.peak >= one.baseline > 0
