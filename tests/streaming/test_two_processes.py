"""Two processes of one launcher: what each does of a pass, and what they merge to."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmlens
from mmlens.streaming.distributed import Share
from tests.streaming.test_collect import equal
from tests.streaming.test_sweep import lengths

RANK = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import torch, mmlens
from mmlens.streaming.distributed import Share
from tests.streaming.test_sweep import lengths
from tests.tiny import llava_next as tiny
torch.set_num_threads(1)
model = mmlens.splice(tiny.model("mistral"), tiny.processor(), check=False)
folder, rank = Path(sys.argv[1]), os.environ["RANK"]
statistics = mmlens.collect(
    model, tiny.samples(), groups=("prompt", "image"), batching=mmlens.Batching(progress=False)
)
statistics.save(folder / f"rank{{rank}}.safetensors")
rows = lengths(model, tiny.samples(), folder / "rows.jsonl", Share.of_launcher())
(folder / f"merged-{{rank}}.json").write_text(json.dumps(rows))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """The folder in which two processes have left their statistics and rows."""
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "rank.py"
    script.write_text(RANK.format(root=str(Path(__file__).parents[2])))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_statistics_are_merged(mistral_model, samples, launched):
    parts = [mmlens.NeuronStatistics.load(launched / f"rank{r}.safetensors") for r in (0, 1)]
    equal(parts[0], parts[1], tolerance=0.0)
    whole = mmlens.collect(mistral_model, samples, groups=("prompt", "image"))
    equal(whole, parts[0], ("positive", "tokens"), 1e-5)


def test_rows_are_merged(mistral_model, samples, launched):
    alone = lengths(mistral_model, samples, None, Share())
    assert [json.loads((launched / f"merged-{r}.json").read_text()) for r in (0, 1)] == [alone] * 2
    files = [(launched / f"rows.{r}-of-2.jsonl").read_text().splitlines() for r in (0, 1)]
    assert all(files)
    assert len(files[0]) + len(files[1]) == len(samples)
