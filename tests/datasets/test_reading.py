"""Every benchmark from its official layout: what is in a sample, what is chosen, what is refused."""

import json

import numpy as np
import pytest

import mmlens
from mmlens import datasets
from mmlens.ablation.conditions import Condition
from mmlens.ablation.evaluate import evaluate
from mmlens.data.media.pictures import SideBySide, open_picture, picture_size
from mmlens.errors import MediaError, SampleError
from mmlens.metrics.scoring import scorer
from tests.helpers import benchmarks_on_disk as disk
from tests.helpers import miner_benchmarks_on_disk as miner_disk
from tests.helpers.benchmarks_read import FIXTURES, KINDS


@pytest.fixture(params=FIXTURES)
def on_disk(request, tmp_path):
    """A name, its folder and its split."""
    write, split, *_ = FIXTURES[request.param]
    return request.param, write(tmp_path), split


@pytest.fixture(scope="module")
def vision_model():
    return mmlens.load("demo/qwen2-vl", check=False)


@pytest.fixture(scope="module")
def sound_model():
    return mmlens.load("demo/qwen2-audio", check=False)


def test_the_registry():
    assert list(datasets.DATASETS) == list(FIXTURES)
    for name, one in datasets.DATASETS.items():
        assert one.name == name
        mined, asked = one.paper_splits
        assert mined != asked and {mined, asked} <= set(one.splits) - set(one.unlabelled)
        assert set(one.sizes) <= set(one.splits)
    ours = [one for one in datasets.DATASETS.values() if one.paper == "MMNeuron"]
    assert {one.name: one.domain for one in ours} == {
        "lingoqa": "ad",
        "pmcvqa": "med",
        "rsvqa": "rs",
        "vqav2": "com",
        "docvqa": "doc",
    }
    for one in ours:
        assert one.paper_limit == datasets.PAPER_LIMIT
        if one.metric != "lingo_judge":
            scorer(one.metric), scorer(one.paper_metric)
    assert datasets.metrics_of(["vqav2", "docvqa"]) == {"com": "vqa_accuracy", "doc": "anls"}
    assert datasets.metrics_of(["vqav2", "docvqa"], as_paper=True) == {
        "com": "confident_member",
        "doc": "levenshtein_similarity",
    }


def test_the_registry_of_miner():
    ours = {name: one for name, one in datasets.DATASETS.items() if one.paper == "MINER"}
    assert all(one.domain == name and one.paper_limit is None for name, one in ours.items())
    # methods 3.6: what MINER evaluates, and on how many.
    assert ours["vocalsound"].sizes["all"] == 20977
    asked = {n: one.sizes[one.paper_splits[1]] for n, one in ours.items() if n != "vocalsound"}
    assert asked == {
        "textvqa": 5000,
        "coco": 5000,
        "mmlu": 14042,
        "msvd_qa": 13157,
        "librispeech": 2620,
    }
    assert datasets.metrics_of(ours) == {
        "textvqa": "vqa_accuracy",
        "coco": "cider",
        "mmlu": "first_letter",
        "msvd_qa": "exact_match",
        "librispeech": "word_accuracy",
        "vocalsound": "contains_class",
    }
    assert datasets.metrics_of(ours, as_paper=True) == {
        "textvqa": "contains_answer",
        "coco": "tfidf_cosine",
        "mmlu": "first_letter",
        "msvd_qa": "contains_answer",
        "librispeech": "wrr",
        "vocalsound": "contains_class",
    }


def test_which_benchmarks_a_model_takes(vision_model, sound_model):
    def taken(model, **kwargs):
        return datasets.benchmarks_for(model.adapter.modalities, **kwargs)

    assert taken(vision_model, paper="MINER") == ("textvqa", "coco", "mmlu", "msvd_qa")
    assert taken(sound_model) == ("mmlu", "librispeech", "vocalsound")
    pictures = ("lingoqa", "pmcvqa", "rsvqa", "vqav2", "docvqa", "textvqa", "coco", "mmlu")
    assert datasets.benchmarks_for(["image"]) == pictures
    assert datasets.benchmarks_for(["image"], paper="MMNeuron") == pictures[:5]
    assert datasets.benchmarks_for([]) == ("mmlu",)
    with pytest.raises(SampleError, match="no paper 'CLIP'; there are MMNeuron and MINER"):
        datasets.benchmarks_for(["image"], paper="CLIP")


def test_what_every_sample_has(on_disk):
    name, folder, split = on_disk
    _, _, count, medium, _ = FIXTURES[name]
    samples = datasets.read(name, folder, split, scored=True)
    assert len(samples) == len({s.id for s in samples}) == count
    assert datasets.size(name, folder, split) == (count, datasets.DATASETS[name].sizes.get(split))
    for sample in samples:
        assert sample.id == f"{name}/{sample.get('question_id')}"
        assert sample.domain == datasets.DATASETS[name].domain
        assert (sample.get("dataset"), sample.get("split")) == (name, split)
        assert sample.answers and all(sample.answers)
        assert sample.get("source") and sample.get("question") in sample.text
        assert [len(getattr(sample, kind)) for kind in KINDS] == [kind == medium for kind in KINDS]
        if datasets.DATASETS[name].paper == "MMNeuron":
            assert sample.text != sample.get("question")
        for one in sample.images:
            image = open_picture(one)
            assert picture_size(one) == (image.height, image.width)
    bare = datasets.read(name, str(folder), split, prompt="bare")
    assert [s.text for s in bare] == [s.get("question") for s in samples]
    assert [s.images + s.videos + s.audios for s in bare] == [
        s.images + s.videos + s.audios for s in samples
    ]


def test_a_draw_does_not_depend_on_the_limit_or_on_the_file(on_disk):
    name, folder, split = on_disk
    whole = [s.id for s in datasets.read(name, folder, split)]

    def drawn(limit, seed=0):
        return [s.id for s in datasets.read(name, folder, split, limit=limit, seed=seed)]

    assert set(drawn(1)) < set(drawn(2)) < set(drawn(3))
    assert drawn(3) == [one for one in whole if one in drawn(3)]  # in the file's order
    assert drawn(99) == whole
    by_hand = np.array(sorted(whole))[np.random.default_rng(7).permutation(len(whole))[:2]]
    assert set(drawn(2, seed=7)) == set(by_hand)
    assert len({tuple(drawn(2, seed)) for seed in range(8)}) > 1


def test_the_same_questions_are_drawn_from_a_file_in_another_order(tmp_path):
    folder = disk.vqav2(tmp_path)
    drawn = {s.id for s in datasets.read("vqav2", folder, "val", limit=3)}
    file = folder / "v2_OpenEnded_mscoco_val2014_questions.json"
    disk.write_json(file, {"questions": json.loads(file.read_text())["questions"][::-1]})
    again = datasets.read("vqav2", folder, "val", limit=3)
    assert {s.id for s in again} == drawn
    assert [s.id for s in again] == sorted(drawn, reverse=True)


@pytest.mark.parametrize("name", [n for n in FIXTURES if datasets.DATASETS[n].paper == "MINER"])
def test_the_papers_order_is_that_of_the_files_and_has_no_limit_of_its_own(name, tmp_path):
    write, split, *_ = FIXTURES[name]
    folder = write(tmp_path)
    whole = datasets.read(name, folder, split)
    assert datasets.read(name, folder, split, subset="paper") == whole
    assert datasets.read(name, folder, split, subset="paper", limit=3) == whole[:3]


def test_more_than_mmneurons_limit_of_the_papers_order(tmp_path):
    folder = miner_disk.textvqa(tmp_path)
    one = miner_disk.textvqa_records()[0]
    records = [{**one, "question_id": i} for i in range(datasets.PAPER_LIMIT + 2)]
    disk.write_json(folder / "TextVQA_0.5.1_val.json", {"data": records})
    samples = datasets.read("textvqa", folder, "val", subset="paper")
    assert [s.get("question_id") for s in samples] == [str(one["question_id"]) for one in records]


def test_one_question_of_each_medium(on_disk):
    name, folder, split = on_disk
    alone = datasets.read(name, folder, split, one_per_picture=True)
    assert len(alone) == FIXTURES[name][4]
    shown = [s.images + s.videos or s.audios or s.id for s in alone]
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "gqa"}, "no benchmark 'gqa'; there are lingoqa, pmcvqa"),
        ({"split": "dev-test"}, "no split 'dev-test'; it has"),
        ({"prompt": "short"}, "no prompt 'short'; there are paper, instructblip, bare"),
        ({"limit": 0}, "limit 0 was given; give a positive"),
        ({"subset": "first"}, "no subset 'first'; there are seed and paper"),
        ({"colour": "red"}, "has no option 'colour'; it has"),
        ({"source": "/nowhere"}, "/nowhere, given for .*, does not exist; see docs"),
        ({"source": 7}, r"int (was|were) given|One split of MMLU was given"),
    ],
)
def test_bad_questions_to_the_reader(on_disk, change, message):
    name, folder, split = on_disk
    given = {"name": name, "source": folder, "split": split, **change}
    with pytest.raises(SampleError, match=message):
        datasets.read(given.pop("name"), given.pop("source"), given.pop("split"), **given)
    with pytest.raises(SampleError, match="no benchmark 'gqa'; there are lingoqa"):
        datasets.size("gqa", folder, split)


def test_a_folder_without_the_files(on_disk, tmp_path):
    name, _, split = on_disk
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("")
    with pytest.raises(SampleError, match=r"empty has no .*; it holds notes\.txt; see docs"):
        datasets.read(name, empty, split)


@pytest.mark.parametrize("name", [name for name, one in FIXTURES.items() if one[3]])
def test_a_missing_medium_is_reported_for_its_sample(name, tmp_path, request):
    write, split, _, medium, _ = FIXTURES[name]
    model = request.getfixturevalue("sound_model" if medium == "audios" else "vision_model")
    folder = write(tmp_path)
    samples = datasets.read(name, folder, split)
    first = getattr(samples[0], medium)[0]
    type(folder)(first.pictures[1] if isinstance(first, SideBySide) else first).unlink()
    again = datasets.read(name, folder, split)  # reading does not mind
    assert [s.id for s in again] == [s.id for s in samples]
    with pytest.raises(
        MediaError, match=f"'{again[0].id}': The (picture|video|sound) .* does not exist"
    ):
        model.prepare(again[:1])
    model.prepare(again[-1:])


def test_from_the_files_to_scores(tmp_path, mistral_model):
    names = ["rsvqa", "pmcvqa", "docvqa", "vqav2"]
    samples = [
        sample
        for name in names
        for sample in datasets.read(
            name, FIXTURES[name][0](tmp_path / name), FIXTURES[name][1], scored=True, limit=3
        )
    ]
    setting = Condition("none", (), frozenset(s.id for s in samples))
    metrics = datasets.metrics_of(names)
    out = evaluate(mistral_model, samples, [setting], metric_name=metrics, max_new_tokens=3)
    assert len(out.frame) == 12 and not out.skipped
    by_id = {s.id: s for s in samples}
    for row in out.frame.itertuples():
        sample = by_id[row.id]
        assert row.score == scorer(metrics[sample.domain])(row.prediction, sample)
    stats = mmlens.collect(mistral_model, samples, by="domain")
    assert set(stats.keys) == {"rs", "med", "doc", "com"}


def test_from_the_files_to_batches_and_statistics(tmp_path, vision_model, sound_model):
    for number, model in enumerate((vision_model, sound_model)):
        folder = tmp_path / str(number)
        names = datasets.benchmarks_for(model.adapter.modalities, paper="MINER")
        samples = [
            sample
            for name in names
            for sample in datasets.read(
                name, FIXTURES[name][0](folder / name), FIXTURES[name][1], limit=2
            )
        ]
        batch = model.prepare(samples)
        for row, sample in enumerate(samples):
            for kind in ("image", "video", "audio"):
                has = kind in batch.groups.names and bool(batch.groups.mask(kind)[row].any())
                assert has == bool(getattr(sample, f"{kind}s"))
        stats = mmlens.collect(
            model, samples, by="domain", batching=mmlens.Batching(progress=False)
        )
        assert set(stats.keys) == set(names)
