"""The benchmarks of MMNeuron from their official layouts: what is in a sample, what is chosen, what is refused."""

import json
import random
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import mmlens
from mmlens import datasets
from mmlens.ablation.evaluate import Setting, evaluate
from mmlens.data.media.pictures import SideBySide, open_picture, picture_size
from mmlens.errors import MediaError, SampleError
from mmlens.metrics import scorer
from tests.helpers import benchmarks_on_disk as disk

FIXTURES = {
    "lingoqa": (disk.lingoqa, "val"),
    "rsvqa": (disk.rsvqa, "val"),
    "pmcvqa": (disk.pmcvqa, "test"),
    "docvqa": (disk.docvqa, "val"),
    "vqav2": (disk.vqav2, "val"),
}


@pytest.fixture(params=FIXTURES)
def on_disk(request, tmp_path):
    """A name, its folder and its split."""
    write, split = FIXTURES[request.param]
    return request.param, write(tmp_path), split


def pixels(image):
    return np.asarray(open_picture(image))


def same_picture(image, number):
    return np.array_equal(pixels(image), np.asarray(disk.picture(number)))


# Every benchmark


def test_the_registry():
    ours = [one for one in datasets.DATASETS.values() if one.paper == "MMNeuron"]
    assert {one.name: one.domain for one in ours} == {
        "lingoqa": "ad",
        "pmcvqa": "med",
        "rsvqa": "rs",
        "vqav2": "com",
        "docvqa": "doc",
    }
    for one in ours:
        assert set(one.paper_splits) <= set(one.splits)
        assert not set(one.paper_splits) & set(one.unlabelled)
        if one.metric != "lingo_judge":
            scorer(one.metric), scorer(one.paper_metric)
    assert datasets.metrics_of(["vqav2", "docvqa"]) == {"com": "vqa_accuracy", "doc": "anls"}
    assert datasets.metrics_of(["vqav2", "docvqa"], as_paper=True) == {
        "com": "confident_member",
        "doc": "levenshtein_similarity",
    }


def test_what_every_sample_has(on_disk):
    name, folder, split = on_disk
    samples = datasets.read(name, folder, split)
    assert len(samples) == {"lingoqa": 4}.get(name, 6)
    assert len({s.id for s in samples}) == len(samples)
    for sample in samples:
        assert sample.id == f"{name}/{sample.fields['question_id']}"
        assert sample.domain == datasets.DATASETS[name].domain
        assert sample.answers and len(sample.images) == 1
        assert sample.get("dataset") == name and sample.get("split") == split
        assert sample.get("source") and sample.get("question") in sample.text
        assert sample.text != sample.get("question")
        image = open_picture(sample.images[0])
        assert picture_size(sample.images[0]) == (image.height, image.width)
    bare = datasets.read(name, str(folder), split, prompt="bare")
    assert [s.text for s in bare] == [s.get("question") for s in samples]


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


def test_one_question_of_each_picture(on_disk):
    name, folder, split = on_disk
    alone = datasets.read(name, folder, split, one_per_picture=True)
    whole = datasets.read(name, folder, split)
    shown = [s.images[0] for s in alone]
    assert len(set(shown)) == len(shown) == len({s.images[0] for s in whole})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "gqa"}, "no benchmark 'gqa'; there are lingoqa, pmcvqa"),
        ({"split": "dev"}, "no split 'dev'; it has"),
        ({"prompt": "short"}, "no prompt 'short'; there are paper, instructblip, bare"),
        ({"limit": 0}, "limit 0 was given; give a positive"),
        ({"subset": "first"}, "no subset 'first'; there are seed and paper"),
        ({"colour": "red"}, "has no option 'colour'; it has"),
        ({"source": "/nowhere"}, "/nowhere, given for .*, does not exist; see docs"),
        ({"source": 7}, r"int (was|were) given"),
    ],
)
def test_bad_questions_to_the_reader(on_disk, change, message):
    name, folder, split = on_disk
    given = {"name": name, "source": folder, "split": split, **change}
    with pytest.raises(SampleError, match=message):
        datasets.read(given.pop("name"), given.pop("source"), given.pop("split"), **given)


def test_a_folder_without_the_files(on_disk, tmp_path):
    name, _, split = on_disk
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("")
    with pytest.raises(SampleError, match=r"empty has no .*; it holds notes\.txt; see docs"):
        datasets.read(name, empty, split)


def test_a_missing_picture_is_told_for_its_sample(on_disk, mistral_model):
    name, folder, split = on_disk
    samples = datasets.read(name, folder, split)
    first = samples[0].images[0]
    file = first.pictures[1] if isinstance(first, SideBySide) else first
    type(folder)(file).unlink()
    again = datasets.read(name, folder, split)  # reading does not mind
    assert [s.id for s in again] == [s.id for s in samples]
    with pytest.raises(MediaError, match=f"'{again[0].id}': The picture .* does not exist"):
        mistral_model.prepare(again[:1])
    mistral_model.prepare(again[-1:])


def test_from_the_files_to_scores(tmp_path, mistral_model):
    names = ["rsvqa", "pmcvqa", "docvqa", "vqav2"]
    samples = [
        sample
        for name in names
        for sample in datasets.read(
            name, FIXTURES[name][0](tmp_path / name), FIXTURES[name][1], scored=True, limit=3
        )
    ]
    setting = Setting("none", (), frozenset(s.id for s in samples))
    metrics = datasets.metrics_of(names)
    out = evaluate(
        mistral_model, samples, [setting], metric_name=metrics, max_new_tokens=3, progress=False
    )
    assert len(out.frame) == 12 and not out.skipped
    by_id = {s.id: s for s in samples}
    for row in out.frame.itertuples():
        sample = by_id[row.id]
        assert row.score == scorer(metrics[sample.domain])(row.prediction, sample)
    stats = mmlens.collect(mistral_model, samples, by="domain")
    assert set(stats.keys) == {"rs", "med", "doc", "com"}


# LingoQA


def test_lingoqa(tmp_path):
    one, *_ = datasets.read("lingoqa", disk.lingoqa(tmp_path), "val")
    assert one.answers == ("answer 0.0", "answer 0.1")
    assert one.get("source") == "seg0"
    assert "ego vehicle" in one.text
    expected = np.concatenate([np.asarray(disk.picture(i)) for i in range(3)], axis=1)
    assert np.array_equal(pixels(one.images[0]), expected)


def test_lingoqa_frames_as_pictures_and_a_question_for_each_reference(tmp_path):
    folder = disk.lingoqa(tmp_path)
    apart = datasets.read("lingoqa", folder, "val", frames="separate", references="apart")
    assert [len(s.images) for s in apart] == [3] * 8
    assert all(same_picture(image, 10 + i) for i, image in enumerate(apart[-1].images))
    assert [s.id for s in apart[:3]] == ["lingoqa/val0-1", "lingoqa/val0-2", "lingoqa/val1-1"]
    assert [s.answers for s in apart[:2]] == [("answer 0.0",), ("answer 0.1",)]
    assert {s.get("question_id") for s in apart} == {f"val{i}" for i in range(4)}
    with pytest.raises(SampleError, match="frames='all' was given .* give 'joined' or 'separate'"):
        datasets.read("lingoqa", folder, "val", frames="all")


def test_lingoqa_training_sets_are_read_one_after_the_other(tmp_path):
    disk.lingoqa(tmp_path, "action", "train")
    scenery = pd.DataFrame(disk.lingoqa_rows("train"))[:2]
    scenery["question_id"] = "other"
    (tmp_path / "scenery").mkdir()
    scenery.to_parquet(tmp_path / "scenery/train.parquet")
    samples = datasets.read("lingoqa", tmp_path, "train")
    assert [s.get("question_id") for s in samples] == [*(f"train{i}" for i in range(4)), "other"]
    assert "action/images" in samples[0].images[0].pictures[0]
    assert "scenery/images" in samples[-1].images[0].pictures[0]


@pytest.mark.parametrize("place", ["", "val", "evaluation"])
def test_lingoqa_places(tmp_path, place):
    samples = datasets.read("lingoqa", disk.lingoqa(tmp_path, place), "validation")
    assert same_picture(samples[0].images[0].pictures[2], 2)


def test_a_question_id_used_in_two_segments_is_told_apart(tmp_path):
    rows = pd.DataFrame(disk.lingoqa_rows())
    rows["question_id"] = "same"
    rows["question"] = rows["question"].where(rows["segment_id"] == "seg0", "Other?")
    rows = rows[rows["question"].isin(["Other?", rows["question"][0]])]
    rows.to_parquet(tmp_path / "val.parquet")
    samples = datasets.read("lingoqa", tmp_path, "val")
    assert [s.id for s in samples] == ["lingoqa/same-seg0", "lingoqa/same-seg1"]
    assert [len(s.answers) for s in samples] == [2, 4]


def test_lingoqa_paper_order(tmp_path):
    folder = disk.lingoqa(tmp_path)
    shuffled = pd.read_parquet(folder / "evaluation/val.parquet").sample(frac=1, random_state=42)
    samples = datasets.read("lingoqa", folder, "val", references="apart", subset="paper")
    assert [s.answers[0] for s in samples] == list(shuffled["answer"])


def test_a_missing_column_is_named(tmp_path):
    pd.DataFrame(disk.lingoqa_rows()).drop(columns="segment_id").to_parquet(
        tmp_path / "val.parquet"
    )
    with pytest.raises(SampleError, match=r"val\.parquet has no column 'segment_id'; it has quest"):
        datasets.read("lingoqa", tmp_path, "val")
    (tmp_path / "val.parquet").write_bytes(b"no parquet")
    with pytest.raises(SampleError, match=r"val\.parquet is not readable parquet"):
        datasets.read("lingoqa", tmp_path, "val")


# RSVQA


def test_rsvqa_takes_active_entries_only(tmp_path):
    samples = datasets.read("rsvqa", disk.rsvqa(tmp_path), "val")
    assert [s.get("question_id") for s in samples] == ["0", "1", "2", "4", "5", "6"]
    two = samples[2]
    assert (two.answers, two.get("question_type")) == (("2",), "presence")
    assert (two.get("source"), two.get("tile")) == ("1", "tile0")
    assert two.text == (
        "Question: How many roads, 2?\nAnswer the question using a single word or phrase."
    )
    assert same_picture(two.images[0], 1)


def test_rsvqa_pictures_that_are_not_active_and_files_of_mmneuron(tmp_path):
    folder = disk.rsvqa(tmp_path)
    images = [{"id": i, "original_name": "t", "active": i != 1} for i in range(4)]
    disk.write_json(folder / "USGS_split_val_images.json", {"images": images})
    assert len(datasets.read("rsvqa", folder, "val")) == 5
    (folder / "USGS_split_val_images.json").unlink()  # its tree has none for some splits
    for file in (folder / "Data").iterdir():
        Image.open(file).save(file.with_suffix(".png"))
        file.unlink()
    samples = datasets.read("rsvqa", folder, "val")
    assert len(samples) == 6 and samples[0].images[0].endswith("Data/0.png")
    assert "tile" not in samples[0].fields


def test_rsvqa_paper_order(tmp_path):
    folder = disk.rsvqa(tmp_path)
    numbers = ["0", "1", "2", "4", "5", "6"]
    random.Random(4).shuffle(numbers)
    seen, expected = set(), []
    for number in numbers:  # the first question of each picture
        if int(number) // 2 not in seen:
            seen.add(int(number) // 2)
            expected.append(number)
    samples = datasets.read("rsvqa", folder, "val", subset="paper")
    assert [s.get("question_id") for s in samples] == expected
    assert datasets.read("rsvqa", folder, "val", subset="paper", limit=2) == samples[:2]


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("questions", {"question": []}, "no list of records 'questions'; it has 'question'"),
        ("questions", {"questions": []}, "no active question"),
        ("questions", {"questions": [{"id": 1, "active": True}]}, "Question 1 .* no 'answers_ids'"),
        ("answers", {"answers": []}, r"Question 0 .* has the answers \[0\], which .*lacks"),
        ("answers", {"answers": [{"id": 0}] * 9}, "Answer 0 of .* has no 'answer'"),
    ],
)
def test_rsvqa_files_that_are_not_as_described(tmp_path, kind, content, message):
    folder = disk.rsvqa(tmp_path)
    (folder / "USGS_split_val_images.json").unlink()
    disk.write_json(folder / f"USGS_split_val_{kind}.json", content)
    with pytest.raises(SampleError, match=message):
        datasets.read("rsvqa", folder, "val")
    (folder / f"USGS_split_val_{kind}.json").write_text("{")
    with pytest.raises(SampleError, match=f"{kind}.json is not JSON"):
        datasets.read("rsvqa", folder, "val")


# PMC-VQA


@pytest.mark.parametrize("version", [1, 2])
def test_pmcvqa(tmp_path, version):
    split = ("test", "test_2")[version - 1]
    samples = datasets.read("pmcvqa", disk.pmcvqa(tmp_path, split, version), split)
    two = samples[2]
    assert two.choices == ("Diffuse uptake", "Focal uptake", "None", "N/A")
    assert two.answers == ("C", "None")
    assert (two.id, two.get("letter"), two.get("source")) == ("pmcvqa/2", "C", "PMC1_F1.jpg")
    assert two.text == (
        "Question: What is the pattern, 2?\nContext: N/A\nOptions: A: Diffuse uptake, B: Focal "
        "uptake, C: None, D: N/A\nAnswer with the option's letter from the given choices directly."
    )
    score = scorer("option_letter")
    assert [score("C", one) for one in samples] == [0, 0, 1, 0, 0, 0]
    assert scorer("exact_match")("none", two) == 1.0


def test_prompts_for_instructblip(tmp_path):
    folder = disk.pmcvqa(tmp_path / "pmc")
    one, *_ = datasets.read("pmcvqa", folder, "test", prompt="instructblip")
    assert "Context" not in one.text and "Options: A: Diffuse" in one.text
    one, *_ = datasets.read("vqav2", disk.vqav2(tmp_path / "vqa"), "val", prompt="instructblip")
    assert one.text == "Question: Is it red, 0? Short Answer:"


def test_answers_that_are_none_of_the_options_are_left_out_and_said(tmp_path, caplog):
    rows = disk.pmcvqa_rows(2)
    rows[1]["Answer"], rows[4]["Answer"] = "E", "Focal uptake"  # not an option; one by its text
    pd.DataFrame(rows).to_csv(tmp_path / "test.csv", index=False)
    samples = datasets.read("pmcvqa", tmp_path, "test")
    assert [s.get("question_id") for s in samples] == ["0", "2", "3", "4", "5"]
    assert samples[3].get("letter") == "B"
    assert "1 of 6 questions of" in caplog.text and "row 1 has the answer 'E'" in caplog.text
    pd.DataFrame(rows[1:2]).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(SampleError, match="no question whose answer is one of its options: row 0"):
        datasets.read("pmcvqa", tmp_path, "test")


def test_pmcvqa_wrong_columns(tmp_path):
    frame = pd.DataFrame(disk.pmcvqa_rows())
    frame.drop(columns="Choice C").to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(SampleError, match=r"test\.csv has no column 'Choice C'; it has Figure_pa"):
        datasets.read("pmcvqa", tmp_path, "test")
    frame.drop(columns=["Answer", "Answer_label"]).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(SampleError, match=r"test\.csv has no column 'Answer'"):
        datasets.read("pmcvqa", tmp_path, "test")
    frame.rename(columns={"Answer": "Anwser"}).drop(columns="Answer_label").to_csv(
        tmp_path / "test.csv", index=False
    )
    assert datasets.read("pmcvqa", tmp_path, "test")[1].answers == ("B", "Focal uptake")


# DocVQA


@pytest.mark.parametrize(
    ("file", "pictures"),
    [
        ("val_v1.0.json", "documents"),
        ("spdocvqa_qas/val_v1.0_withQT.json", "spdocvqa_images"),
        ("val/val_v1.0.json", "val/documents"),
    ],
)
def test_docvqa_layouts(tmp_path, file, pictures):
    folder = disk.docvqa(tmp_path)
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / "val_v1.0.json").rename(folder / file)
    (folder / "documents").rename(folder / pictures)
    samples = datasets.read("docvqa", folder, "val")
    assert samples[3].answers == ("3 May", "May 3")
    assert samples[3].get("source") == "doc1" and samples[3].get("docId") == "1"
    assert same_picture(samples[3].images[0], 1)
    assert pictures in samples[3].images[0]


def test_answers_that_are_not_published(tmp_path):
    samples = datasets.read("docvqa", disk.docvqa(tmp_path, "test"), "test")
    assert [s.answers for s in samples] == [()] * 6
    with pytest.raises(SampleError, match="DocVQA's split 'test' are not published.*train or val"):
        datasets.read("docvqa", tmp_path, "test", scored=True)
    records = disk.docvqa_records("test")
    disk.write_json(tmp_path / "val_v1.0.json", {"data": records})
    with pytest.raises(SampleError, match=r"Question 100 of .*val_v1\.0\.json has no answers"):
        datasets.read("docvqa", tmp_path, "val")


def test_ids_that_occur_twice(tmp_path):
    disk.write_json(tmp_path / "val_v1.0.json", {"data": disk.docvqa_records() * 2})
    with pytest.raises(SampleError, match="the question id 100 more than once"):
        datasets.read("docvqa", tmp_path, "val")


# VQAv2


def test_vqav2(tmp_path):
    samples = datasets.read("vqav2", disk.vqav2(tmp_path), "val")
    two = samples[2]
    assert two.answers == ("yes",) * 3 + ("No",) * 7
    assert two.get("confidence") == disk.CONFIDENCE
    assert (two.get("question_type"), two.get("answer_type")) == ("is it", "yes/no")
    assert two.get("source") == "43"
    assert two.images[0].endswith("val2014/COCO_val2014_000000000043.jpg")
    accuracy = scorer("vqa_accuracy")
    assert [accuracy("yes", one) for one in samples] == pytest.approx([0.3, 0.6, 0.9, 1, 1, 0])
    member = scorer("confident_member")
    assert [member("No", one) for one in samples] == [1, 1, 1, 1, 1, 0]
    # Unanswerable questions stay questions, and the word is their answer.
    assert accuracy("unanswerable", samples[5]) == 1.0


def test_vqav2_of_the_official_helper_and_its_test_split(tmp_path):
    folder = disk.vqav2(tmp_path)
    for place, pattern in (
        ("Questions", "*_questions.json"),
        ("Annotations", "*_annotations.json"),
    ):
        (folder / place).mkdir()
        for file in folder.glob(pattern):
            file.rename(folder / place / file.name)
    (folder / "Images/mscoco").mkdir(parents=True)
    (folder / "val2014").rename(folder / "Images/mscoco/val2014")
    samples = datasets.read("vqav2", folder, "val")
    assert picture_size(samples[0].images[0]) == (16, 24)
    disk.vqav2(tmp_path / "t", "test", "test2015")
    assert [s.answers for s in datasets.read("vqav2", tmp_path / "t", "test")] == [()] * 6
    with pytest.raises(SampleError, match="VQAv2's split 'test' are not published"):
        datasets.read("vqav2", tmp_path / "t", "test", scored=True)


def test_vqav2_without_annotations(tmp_path):
    folder = disk.vqav2(tmp_path)
    file = folder / "v2_mscoco_val2014_annotations.json"
    disk.write_json(file, {"annotations": []})
    with pytest.raises(SampleError, match="Question 42000 .* has no annotation in .*annotations"):
        datasets.read("vqav2", folder, "val")
    file.unlink()
    with pytest.raises(
        SampleError, match=r"no v2_mscoco_val2014_annotations\.json or Annotations/"
    ):
        datasets.read("vqav2", folder, "val")


# Hugging Face forms


def hub(rows):
    hugging_face = pytest.importorskip("datasets")
    data = hugging_face.Dataset.from_list(rows)
    return data.cast_column("image", hugging_face.Image())


def test_loaded_saved_and_parquet_give_the_same(tmp_path):
    official = {
        "docvqa": datasets.read("docvqa", disk.docvqa(tmp_path / "d"), "val"),
        "vqav2": datasets.read("vqav2", disk.vqav2(tmp_path / "v"), "val"),
    }
    hugging_face = pytest.importorskip("datasets")
    for name, rows in (("docvqa", disk.docvqa_columns()), ("vqav2", disk.vqav2_columns())):
        data = hub(rows)
        splits = hugging_face.DatasetDict({"validation": data})
        data.save_to_disk(tmp_path / name / "one")
        splits.save_to_disk(tmp_path / name / "splits")
        shards = tmp_path / name / "shards/data"
        shards.mkdir(parents=True)
        for i, part in enumerate((rows[:4], rows[4:])):
            pd.DataFrame(part).to_parquet(
                shards / f"validation-0000{i}-of-00002.parquet", row_group_size=3
            )
        sources = (data, splits, *(tmp_path / name / form for form in ("one", "splits", "shards")))
        for source in sources:
            samples = datasets.read(name, source, "val")
            for got, expected in zip(samples, official[name], strict=True):
                assert got.id == expected.id and got.text == expected.text
                assert got.answers == expected.answers
                assert got.get("source") == expected.get("source")
                assert got.fields.get("confidence") == expected.fields.get("confidence")
                picture = expected.fields.get("image_id") or expected.get("docId")
                assert same_picture(got.images[0], int(picture))
            alone = datasets.read(name, source, "val", subset="paper")
            same = [s.id for s in datasets.read(name, data, "val", subset="paper")]
            assert [s.id for s in alone] == same and len(alone) == 3


def test_questions_on_one_page_share_its_bytes(tmp_path):
    pd.DataFrame(disk.docvqa_columns()).to_parquet(tmp_path / "val.parquet")
    samples = datasets.read("docvqa", tmp_path, "val")
    assert samples[0].images[0] is samples[1].images[0]
    assert samples[0].images[0] != samples[2].images[0]


def test_docvqa_paper_order_is_that_of_a_shuffled_data_set(tmp_path):
    data = hub(disk.docvqa_columns())
    shuffled = data.shuffle(seed=42)
    seen, expected = set(), []
    for row in shuffled:
        if row["other_metadata"]["image"] not in seen:
            seen.add(row["other_metadata"]["image"])
            expected.append(f"docvqa/{row['question_id']}")
    assert [s.id for s in datasets.read("docvqa", data, "val", subset="paper")] == expected


def test_lingoqa_and_pmcvqa_with_pictures_in_tables(tmp_path):
    rows = [
        {
            **{k: v for k, v in row.items() if k != "images"},
            **{
                f"image_{i + 1}": {"bytes": disk.encoded(i + 10 * (n // 4)), "path": None}
                for i in range(3)
            },
        }
        for n, row in enumerate(disk.lingoqa_rows())
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "test-00000-of-00001.parquet")
    samples = datasets.read("lingoqa", tmp_path, "val")
    assert len(samples) == 4 and picture_size(samples[0].images[0]) == (16, 72)
    assert all(same_picture(one, 10 + i) for i, one in enumerate(samples[3].images[0].pictures))
    image = {"bytes": disk.encoded(3), "path": None}
    data = hub([{**row, "image": image} for row in disk.pmcvqa_rows()])
    samples = datasets.read("pmcvqa", data, "test")
    assert samples[1].answers == ("B", "Focal uptake")
    assert same_picture(samples[5].images[0], 3)


def test_lists_of_pictures_in_a_data_set(tmp_path):
    hugging_face = pytest.importorskip("datasets")
    rows = [
        {**row, "images": [{"bytes": disk.encoded(i), "path": None} for i in range(3)]}
        for row in disk.lingoqa_rows()
    ]
    data = hugging_face.Dataset.from_list(rows)
    data = data.cast_column("images", hugging_face.List(hugging_face.Image()))
    samples = datasets.read("lingoqa", data, "val", frames="separate")
    assert all(same_picture(image, i) for i, image in enumerate(samples[2].images))
    assert callable(samples[0].images[0])  # its bytes stay on disk until they are asked for


@pytest.mark.parametrize(
    ("name", "drop", "message"),
    [
        ("docvqa", "answers", "The data set given has no column 'answers'; it has question_id"),
        ("docvqa", "question_id", "has no column 'question_id'"),
        ("vqav2", "image_id", "has no column 'image_id'"),
    ],
)
def test_data_sets_that_lack_a_column(name, drop, message):
    rows = {"docvqa": disk.docvqa_columns, "vqav2": disk.vqav2_columns}[name]()
    data = hub(rows).remove_columns(drop)
    with pytest.raises(SampleError, match=message):
        datasets.read(name, data, "val")


def test_data_sets_that_cannot_be_used(tmp_path, monkeypatch):
    hugging_face = pytest.importorskip("datasets")
    data = hub(disk.docvqa_columns())
    with pytest.raises(SampleError, match="no split val or validation; it has train"):
        datasets.read("docvqa", hugging_face.DatasetDict({"train": data}), "val")
    with pytest.raises(SampleError, match="IterableDataset were given; .*not a streaming one"):
        datasets.read("docvqa", data.to_iterable_dataset(), "val")
    with pytest.raises(SampleError, match="RSVQA-HR is read from its own JSON files"):
        datasets.read("rsvqa", data, "val")
    nothing = [{**row, "image": None} for row in disk.docvqa_columns()]
    with pytest.raises(SampleError, match="Question 100 of .* has no picture"):
        datasets.read("docvqa", hub(nothing), "val")
    data.save_to_disk(tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SampleError, match=r"not installed; install it with .*mmlens\[datasets\]"):
        datasets.read("docvqa", tmp_path / "saved", "val")


def test_shards_that_do_not_belong_together(tmp_path):
    pd.DataFrame(disk.docvqa_columns()).to_parquet(tmp_path / "val-0.parquet")
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "val-1.parquet")
    with pytest.raises(SampleError, match=r"val-1\.parquet has other columns than .*val-0"):
        datasets.read("docvqa", tmp_path, "val")
    (tmp_path / "val-1.parquet").write_bytes(b"no")
    with pytest.raises(SampleError, match="holds parquet that cannot be read"):
        datasets.read("docvqa", tmp_path, "val")
