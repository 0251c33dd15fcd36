"""The benchmark runs, and finds that all variants compute the same; no assertion on time."""

import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks import overhead
from benchmarks._families import FAMILIES as BY_NAME
from benchmarks._memory import Job, measured, on_cuda
from benchmarks._models import build
from benchmarks._sizes import Size
from benchmarks._variants import HOOKED, VARIANTS, HookedRuns, Setting, Variant, chosen
from mmlens.adapter import adapter_for

FAMILIES = ("llava-next", "instructblip", "qwen2-vl", "qwen2-audio")
BACKBONES = ("hooked_transformer", "bridge")
THREADS = torch.get_num_threads()
ALL = [(one.name, one.backbone) for one in chosen(tuple(VARIANTS), BACKBONES)]


def options(**settings):
    """Settings of a run that takes a second."""
    small = {"size": "tiny", "repeats": 1, "threads": THREADS, "memory": False}
    return overhead.Options(**{**small, **settings})


@pytest.fixture(autouse=True)
def no_collection(monkeypatch):
    """Each collection of the whole test session's garbage takes longer than a tiny model's run."""
    monkeypatch.setattr("gc.collect", lambda: 0)


@pytest.fixture(scope="module")
def tiny():
    return build("llava-next", "tiny", BACKBONES, "cpu", "float32")


def test_overhead_prints_and_writes_every_variant(tmp_path, capsys):
    path = tmp_path / "deep" / "overhead.json"
    rows = overhead.main(options(sizes=("1x150", "3x160"), repeats=2, json=path))
    assert [(r.size, r.variant, r.backbone) for r in rows] == [
        (size, *variant) for size in ("1x150", "3x160") for variant in ALL
    ]
    assert all(len(r.seconds) == len(r.ratios) == 2 for r in rows)
    assert all(r.ratios == (1.0, 1.0) for r in rows if r.variant == "bare")
    written = json.loads(path.read_text())
    assert len(written["rows"]) == len(rows)
    assert "2 layers" in written["environment"]["llava-next"]
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*VARIANTS, *BACKBONES, "3x160", "torch"))


def test_every_family_runs_through_both_backbones():
    rows = overhead.main(
        options(family=FAMILIES, sizes=("1x138",), variant=("collect", "mmneuron"))
    )
    expected = [v for v in ALL if v[0] in ("bare", "collect", "mmneuron")]
    assert [(r.family, r.variant, r.backbone) for r in rows] == [
        (name, *variant) for name in FAMILIES for variant in expected
    ]
    # The bridge computes with Hugging Face's own kernels.
    assert all(r.difference == 0 for r in rows if r.backbone == "bridge")
    assert all(r.difference < 1e-5 for r in rows)


@pytest.mark.parametrize("variant", [(), ("collect", "mmneuron")])
def test_variants_and_backbones_are_chosen(variant):
    rows = overhead.main(options(backbone=("bridge",), variant=variant, sizes=("1x150",)))
    expected = [("bare", None)]
    expected += [(name, "bridge" if name in HOOKED else None) for name in variant]
    assert [(r.variant, r.backbone) for r in rows] == expected


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("text", ["1x138", "2x200", "1x1000"])
def test_samples_have_the_wanted_length(name, text):
    size = Size.parse(text)
    batch = Setting(build(name, "tiny", ["bridge"], "cpu", "float32"), size, ()).batch
    assert batch.shape == (size.samples, size.tokens)
    assert bool(batch.groups.attention.all())
    media = sum(batch.groups.mask(kind) for kind in ("image", "audio")).float().mean()
    assert media > (0.03 if name == "instructblip" else 0.6)  # 32 queries, whatever the prompt


def test_too_short_prompts_are_refused(tiny):
    with pytest.raises(ValueError, match="llava-next needs at least 138 tokens"):
        Setting(tiny, Size(1, 20))


def test_order_rotates(tiny):
    class Recorder(Setting):
        def run(self, variant):
            order.append(variant)

    order = []
    setting = Recorder(tiny, Size(1, 150))
    overhead.rounds(setting, 2)
    variants = setting.variants
    assert order == variants + variants[1:] + variants[:1]


def test_check_notices_other_logits(tiny, monkeypatch):
    def wrong(runs):
        with torch.no_grad():
            hook = ("blocks.0.mlp.hook_post", lambda x, hook: x + 1)
            return runs.model.run_with_hooks(runs.batch, [hook], logits_to_keep=1)

    monkeypatch.setattr(HookedRuns, "spliced", wrong)
    with pytest.raises(AssertionError, match="spliced hooked_transformer at 1x150: logits"):
        Setting(tiny, Size(1, 150)).check()


def test_check_notices_other_counts(tiny):
    setting = Setting(tiny, Size(2, 150))
    setting._counters.positive["domain 1"][0, 0] += 100
    with pytest.raises(AssertionError, match="counts differ: hooked_transformer at 2x150"):
        setting.check()


@pytest.mark.parametrize("name", FAMILIES)
def test_7b_has_the_published_size(name):
    one = BY_NAME[name]
    config = one.config(one.sizes["7b"])
    with torch.device("meta"):
        model = adapter_for(config).auto_class().from_config(config, dtype=torch.bfloat16)
    published = {"llava-next": 7.57, "instructblip": 7.91, "qwen2-vl": 8.29, "qwen2-audio": 8.4}
    billions = sum(parameter.numel() for parameter in model.parameters()) / 1e9
    assert billions == pytest.approx(published[name], abs=0.02)


def test_7b_caches_nothing_unless_asked():
    assert "cache" not in overhead.Options(size="7b").names
    assert overhead.Options(size="7b", variant=("cache",)).names == ("cache",)


@pytest.fixture
def pretended_cuda(monkeypatch):
    """What a CUDA device is asked, answered; the model stays on the CPU."""
    cuda = SimpleNamespace(
        get_device_name=lambda: "pretended",
        empty_cache=lambda: None,
        reset_peak_memory_stats=lambda: None,
        memory_allocated=lambda: 3 * 2**20,
        max_memory_allocated=lambda: 5 * 2**20,
    )
    for name, answer in vars(cuda).items():
        monkeypatch.setattr(torch.cuda, name, answer)
    monkeypatch.setattr(
        overhead, "build", lambda name, size, backbones, device, dtype: on_cpu(name, size, dtype)
    )

    def on_cpu(name, size, dtype):
        return build(name, size, BACKBONES, "cpu", dtype)


def test_path_of_the_device_in_half_precision(pretended_cuda, capsys):
    variants = ("spliced", "collect", "mmneuron")
    asked = {"device": "cuda", "dtype": "bfloat16", "memory": True, "variant": variants}
    rows = overhead.main(options(family=("llava-next", "qwen2-vl"), sizes=("1x138",), **asked))
    assert len(rows) == 2 * (2 + 2 * 2)
    assert all(r.difference < 0.1 and math.isfinite(r.rate) for r in rows)
    assert all((r.memory.peak, r.memory.increment) == (5, 2) for r in rows)
    assert "cuda (pretended), bfloat16" in capsys.readouterr().out


def test_a_size_that_does_not_fit_is_told_and_left_out(pretended_cuda, monkeypatch, capsys):
    def measure(setting, variant):
        if setting.size.samples > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.\nMore.")
        return on_cuda(setting, variant)

    monkeypatch.setattr(overhead, "on_cuda", measure)
    asked = {"device": "cuda", "memory": True, "sizes": ("2x150", "1x150"), "variant": ()}
    assert [r.size for r in overhead.main(options(**asked))] == ["1x150"]
    assert "2x150 out of memory: CUDA out of memory." in capsys.readouterr().out


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda():
    rows = overhead.main(options(device="cuda", dtype="bfloat16", memory=True, family=FAMILIES))
    assert all(r.memory.peak > r.memory.baseline > 0 for r in rows)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resets the high-water mark through /proc")
def test_memory_of_a_fresh_process():
    variant = Variant("cache", "bridge")
    job = Job("llava-next", "tiny", "float32", 1, variant, Size(1, 150), "bridge")
    (one,) = measured([job])
    assert one is not None
    assert one.peak >= one.baseline > 0
