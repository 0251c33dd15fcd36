"""MINER's benchmarks from their official layouts and as Hugging Face copies: what is in a sample."""

import csv
import json

import numpy as np
import pandas as pd
import pytest

import mmlens
from mmlens import datasets
from mmlens.data.media.pictures import open_picture
from mmlens.data.media.sounds import audio_length, open_audio
from mmlens.data.media.videos import open_video, video_size
from mmlens.datasets.mmlu import LONGEST, estimated_tokens
from mmlens.errors import MediaError, SampleError
from tests.helpers import benchmarks_on_disk
from tests.helpers import miner_benchmarks_on_disk as disk

#: Writes it, the split, its number of questions, the medium.
FIXTURES = {
    "textvqa": (disk.textvqa, "val", 6, "images"),
    "coco": (disk.coco, "test", 4, "images"),
    "mmlu": (disk.mmlu, "test", 6, None),
    "msvd_qa": (disk.msvd_qa, "test", 6, "videos"),
    "librispeech": (disk.librispeech, "test-clean", 6, "audios"),
    "vocalsound": (disk.vocalsound, "test", 12, "audios"),
}
KINDS = ("images", "videos", "audios")
WITH_MEDIA = [name for name, (_, _, _, medium) in FIXTURES.items() if medium]


@pytest.fixture(params=FIXTURES)
def on_disk(request, tmp_path):
    """A name, its folder and its split."""
    return request.param, FIXTURES[request.param][0](tmp_path), FIXTURES[request.param][1]


@pytest.fixture(scope="module")
def vision_model():
    return mmlens.load("demo/qwen2-vl", check=False)


@pytest.fixture(scope="module")
def sound_model():
    return mmlens.load("demo/qwen2-audio", check=False)


def same_picture(image, number):
    got = np.asarray(open_picture(image)).astype(int)
    return np.abs(got - np.asarray(benchmarks_on_disk.picture(number))).mean() < 3  # of 255: JPEG


def same_sound(audio, number):
    return np.allclose(open_audio(audio, disk.RATE), disk.sound(number), atol=1e-3)


# Every benchmark


def test_the_registry():
    ours = {name: one for name, one in datasets.DATASETS.items() if one.paper == "MINER"}
    assert list(ours) == list(FIXTURES)
    for name, one in ours.items():
        assert one.name == one.domain == name
        mined, asked = one.paper_splits
        assert mined != asked and {mined, asked} <= set(one.splits) - set(one.unlabelled)
        assert set(one.sizes) <= set(one.splits)
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
    _, _, count, medium = FIXTURES[name]
    samples = datasets.read(name, folder, split, scored=True)
    assert len(samples) == len({s.id for s in samples}) == count
    assert datasets.size(name, folder, split) == (count, datasets.DATASETS[name].sizes.get(split))
    for sample in samples:
        assert sample.id == f"{name}/{sample.get('question_id')}"
        assert (sample.domain, sample.get("dataset"), sample.get("split")) == (name, name, split)
        assert sample.answers and all(sample.answers)
        assert sample.get("source") and sample.get("question") in sample.text
        assert [len(getattr(sample, kind)) for kind in KINDS] == [kind == medium for kind in KINDS]
    bare = datasets.read(name, str(folder), split, prompt="bare")
    assert [s.text for s in bare] == [s.get("question") for s in samples]
    assert [s.images + s.videos + s.audios for s in bare] == [
        s.images + s.videos + s.audios for s in samples
    ]


def test_the_papers_order_is_that_of_the_files_and_has_no_limit_of_its_own(on_disk):
    name, folder, split = on_disk
    whole = datasets.read(name, folder, split)
    assert datasets.read(name, folder, split, subset="paper") == whole
    assert datasets.read(name, folder, split, subset="paper", limit=3) == whole[:3]


def test_more_than_mmneurons_limit_of_the_papers_order(tmp_path):
    folder = disk.textvqa(tmp_path)
    one = disk.textvqa_records()[0]
    records = [{**one, "question_id": i} for i in range(datasets.PAPER_LIMIT + 2)]
    benchmarks_on_disk.write_json(folder / "TextVQA_0.5.1_val.json", {"data": records})
    samples = datasets.read("textvqa", folder, "val", subset="paper")
    assert [s.get("question_id") for s in samples] == [str(one["question_id"]) for one in records]


def test_a_draw_does_not_depend_on_the_limit(on_disk):
    name, folder, split = on_disk
    whole = [s.id for s in datasets.read(name, folder, split)]

    def drawn(limit, seed=0):
        return [s.id for s in datasets.read(name, folder, split, limit=limit, seed=seed)]

    assert set(drawn(1)) < set(drawn(2)) < set(drawn(3)) < set(whole)
    assert drawn(3) == [one for one in whole if one in drawn(3)]
    assert len({tuple(drawn(2, seed)) for seed in range(8)}) > 1


def test_one_question_of_each_medium(on_disk):
    name, folder, split = on_disk
    alone = datasets.read(name, folder, split, one_per_picture=True)
    assert len(alone) == {"textvqa": 3, "msvd_qa": 3}.get(name, FIXTURES[name][2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "dev-test"}, "no split 'dev-test'; it has"),
        ({"prompt": "short"}, "no prompt 'short'; there are paper, instructblip, bare"),
        ({"limit": 0}, "limit 0 was given; give a positive"),
        ({"colour": "red"}, "has no option 'colour'; it has"),
        ({"source": "/nowhere"}, "/nowhere, given for .*, does not exist; see docs"),
        ({"source": 7}, "Data of type int were given|One split of MMLU was given"),
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


@pytest.mark.parametrize("name", WITH_MEDIA)
def test_a_missing_medium_is_told_for_its_sample(name, tmp_path, request):
    write, split, _, medium = FIXTURES[name]
    model = request.getfixturevalue("sound_model" if medium == "audios" else "vision_model")
    folder = write(tmp_path)
    samples = datasets.read(name, folder, split)
    type(folder)(getattr(samples[0], medium)[0]).unlink()
    again = datasets.read(name, folder, split)  # reading does not mind
    assert [s.id for s in again] == [s.id for s in samples]
    with pytest.raises(
        MediaError, match=f"'{again[0].id}': The (picture|video|sound) .* not exist"
    ):
        model.prepare(again[:1])
    model.prepare(again[-1:])


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
        stats = mmlens.collect(model, samples, by="domain", progress=False)
        assert set(stats.keys) == set(names)


# TextVQA


@pytest.mark.parametrize("place", ["train_images", "train_val_images"])
def test_textvqa(tmp_path, place):
    samples = datasets.read("textvqa", disk.textvqa(tmp_path, place=place), "val")
    three = samples[3]
    assert three.text == "what does sign 3 say?"  # nothing appended, as methods 3.6 says
    assert three.answers == ("stop 3",) * 7 + ("halt", "go", "Stop")
    assert (three.id, three.get("source")) == ("textvqa/34605", "pic1")
    assert three.get("image_classes") == ("Sign", "Street")
    assert same_picture(three.images[0], 1)
    assert not same_picture(three.images[0], 2)
    one, *_ = datasets.read("textvqa", tmp_path, "val", prompt="instructblip")
    assert one.text == "Question: what does sign 0 say? Short Answer:"


def test_textvqa_answers_that_are_not_published(tmp_path):
    folder = disk.textvqa(tmp_path, "test", "test_images")
    assert [s.answers for s in datasets.read("textvqa", folder, "test")] == [()] * 6
    with pytest.raises(SampleError, match="TextVQA's split 'test' are not published.*train or val"):
        datasets.read("textvqa", folder, "test", scored=True)
    pd.DataFrame(disk.textvqa_columns("test")).to_parquet(tmp_path / "test.parquet")
    (tmp_path / "TextVQA_0.5.1_test.json").unlink()
    assert [s.answers for s in datasets.read("textvqa", tmp_path, "test")] == [()] * 6
    records = disk.textvqa_records("test")
    benchmarks_on_disk.write_json(tmp_path / "TextVQA_0.5.1_val.json", {"data": records})
    with pytest.raises(SampleError, match=r"Question 34602 of .*val\.json has no answers"):
        datasets.read("textvqa", tmp_path, "val")


# COCO captions


def test_coco(tmp_path):
    samples = datasets.read("coco", disk.coco(tmp_path), "test")
    assert [s.get("image_id") for s in samples] == ["1003", "1004", "1005", "1006"]
    one = samples[0]
    assert one.answers == ("A cat number 3 sits.", *(f"Cat 3, caption {k}." for k in range(1, 5)))
    assert one.images[0].endswith("val2014/COCO_val2014_000000000003.jpg")
    assert same_picture(one.images[0], 3)
    lines = one.text.split("\n")
    assert lines[0] == one.get("question") and "one short" in lines[0]
    examples = lines[2:-1]
    assert len(set(examples)) == 4 and not set(examples) & set(one.answers)
    (train,) = datasets.read("coco", tmp_path, "train")
    assert "train2014" in train.images[0]
    (restval,) = datasets.read("coco", tmp_path, "restval")
    assert "val2014" in restval.images[0]


def test_coco_of_another_file(tmp_path):
    disk.coco(tmp_path, "val")
    with pytest.raises(SampleError, match="has no picture of the split 'test'; give Karpathy's"):
        datasets.read("coco", tmp_path, "test")
    images = [{"cocoid": 1, "split": "test", "filepath": "val2014", "filename": "a.jpg"}]
    benchmarks_on_disk.write_json(tmp_path / "dataset_coco.json", {"images": images})
    with pytest.raises(
        SampleError, match=r"Picture 1 of .*\.json has no 'sentences'; it has cocoid"
    ):
        datasets.read("coco", tmp_path, "test")
    images[0]["sentences"] = []
    benchmarks_on_disk.write_json(tmp_path / "dataset_coco.json", {"images": images})
    with pytest.raises(SampleError, match="Picture 1 of .* has no captions"):
        datasets.read("coco", tmp_path, "test")


# MMLU


def answered(subject):
    """The five questions of dev, as they stand in a prompt."""
    return [
        f"{q}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer: {right}"
        for q, a, b, c, d, right in disk.mmlu_rows(subject, "dev", 5)
    ]


def test_mmlu(tmp_path):
    samples = datasets.read("mmlu", disk.mmlu(tmp_path), "test")
    four = samples[4]
    assert four.id == "mmlu/world_religions/1"
    assert four.choices == ("w1x", "w1y", "w1z", "N/A")
    assert four.answers == ("B", "w1y") and four.get("letter") == "B"
    assert (four.get("subject"), four.get("source")) == ("world_religions",) * 2
    assert (four.images, four.videos, four.audios) == ((), (), ())
    head, *parts = four.text.split("\n\n")
    assert "world religions" in head
    assert parts[:5] == answered("world_religions") and four.get("shots") == 5
    assert parts[5:] == ["Which world_religions,\ntest 1?\nA. w1x\nB. w1y\nC. w1z\nD. N/A\nAnswer:"]
    none = datasets.read("mmlu", tmp_path, "test", shots="0")[4]
    assert none.text.split("\n\n") == [head, parts[5]] and none.get("shots") == 0
    two = datasets.read("mmlu", tmp_path, "test", shots="2")[4]
    assert two.text.split("\n\n") == [head, *parts[:2], parts[5]]
    (tmp_path / "data").rename(tmp_path / "d")
    assert datasets.read("mmlu", tmp_path / "d", "test")[4] == four


def test_mmlu_shows_as_many_as_fit(tmp_path):
    folder = disk.mmlu(tmp_path)
    whole = datasets.read("mmlu", folder, "test")[0].text
    parts = whole.split("\n\n")
    for kept in range(6):
        expected = "\n\n".join([parts[0], *parts[1 : kept + 1], parts[-1]])
        # As many tokens as there may be, for just so many characters.
        longest = len(expected)
        sample = datasets.read(
            "mmlu", folder, "test", count_tokens=lambda t, n=longest: LONGEST + len(t) - n
        )[0]
        assert sample.text == expected and sample.get("shots") == kept
    # A question that is too long alone is asked alone.
    sample = datasets.read("mmlu", folder, "test", count_tokens=lambda _: LONGEST + 1)[0]
    assert sample.get("shots") == 0
    with pytest.raises(
        SampleError, match="count_tokens='gpt2' was given for MMLU; give a function"
    ):
        datasets.read("mmlu", folder, "test", count_tokens="gpt2")
    with pytest.raises(SampleError, match="shots='6' was given for MMLU; give '5' or '4'"):
        datasets.read("mmlu", folder, "test", shots="6")


def test_the_estimate_of_tokens():
    # By hand: Which(2) of(1) these(2) ?(1) \n(1) A(1) .(1) 4(1) 2(1) √(3 bytes)
    assert estimated_tokens("Which of these?\nA. 42 √") == 14
    assert estimated_tokens("") == 0
    # GPT-2's own vocabulary gives 79 of this one (counted once, with it).
    text = (
        "A 32-year-old woman comes to the physician because of dysmenorrhea; physical examination "
        "shows endometriosis and hyperprolactinemia. Which of the following is the most appropriate "
        "pharmacotherapy?\nA. Bromocriptine\nB. Spironolactone\nC. Acetaminophen\nD. Ceftriaxone\n"
        "Answer: A\n"
    )
    assert 79 <= estimated_tokens(text) <= 1.2 * 79


def test_mmlu_without_what_is_shown(tmp_path):
    folder = disk.mmlu(tmp_path, ("val", "test"))
    with pytest.raises(SampleError, match=r"has no data/dev/\*_dev\.csv or dev-\*\.parquet"):
        datasets.read("mmlu", folder, "test")
    assert len(datasets.read("mmlu", folder, "test", shots="0")) == 6
    disk.mmlu(tmp_path, ("dev",))
    (folder / "data/dev/world_religions_dev.csv").unlink()
    with pytest.raises(SampleError, match="'dev' has no questions of world_religions to show"):
        datasets.read("mmlu", folder, "test")
    with pytest.raises(SampleError, match="'dev' is what is shown with answers.*shots='0'"):
        datasets.read("mmlu", folder, "dev")
    assert len(datasets.read("mmlu", folder, "dev", shots="0")) == 5


def test_mmlu_files_that_are_not_as_described(tmp_path):
    folder = disk.mmlu(tmp_path)
    file = folder / "data/test/abstract_algebra_test.csv"
    row = disk.mmlu_rows("abstract_algebra", "test")[0]
    for content, message in (
        (row[:5], r"abstract_algebra_test\.csv has 5 columns; MMLU's have 6 and no header"),
        ([*row[:5], "E"], r"Row 0 of .*_test\.csv has the answer 'E'; give a letter from A to D"),
    ):
        with file.open("w", newline="") as opened:
            csv.writer(opened).writerow(content)
        with pytest.raises(SampleError, match=message):
            datasets.read("mmlu", folder, "test")


# MSVD-QA


def test_msvd_qa(tmp_path):
    samples = datasets.read("msvd_qa", disk.msvd_qa(tmp_path), "test")
    three = samples[3]
    assert three.text == (
        "what is thing 3 doing?\nAnswer the question using a single word or phrase."
    )
    assert (three.id, three.answers) == ("msvd_qa/36925", ("cat",))
    assert (three.get("source"), three.get("video_id")) == ("vid1302",) * 2
    assert three.videos[0].endswith("YouTubeClips/clip1_5_15.avi")
    assert video_size(three.videos[0]) == (4, 32, 48)
    assert samples[2].videos[0] is three.videos[0]
    shown = open_video(three.videos[0])
    assert shown.fps == 2
    for i, frame in enumerate(shown.frames):
        drawn = np.asarray(benchmarks_on_disk.picture(100 + i, (48, 32))).astype(int)
        other = np.asarray(benchmarks_on_disk.picture(200 + i, (48, 32))).astype(int)
        assert np.abs(frame - drawn).mean() < 0.9 * np.abs(frame - other).mean()


def test_msvd_qa_clips_called_by_their_number(tmp_path):
    folder = disk.msvd_qa(tmp_path)
    (folder / "youtube_mapping.txt").unlink()
    with pytest.raises(SampleError, match=r"no youtube_mapping\.txt or .*, nor videos called vid1"):
        datasets.read("msvd_qa", folder, "test")
    for i in range(3):
        clip = folder / f"YouTubeClips/clip{i}_5_15.avi"
        clip.rename(clip.with_name(f"vid{1301 + i}.avi"))
    samples = datasets.read("msvd_qa", folder, "test")
    assert [s.videos[0].rsplit("/", 1)[1] for s in samples[::2]] == [
        "vid1301.avi",
        "vid1302.avi",
        "vid1303.avi",
    ]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("test_qa.json", "{}", r"test_qa\.json is no list of records, but dict"),
        ("test_qa.json", "[1]", r"test_qa\.json is no list of records, but list"),
        ("test_qa.json", "[", r"test_qa\.json is not JSON"),
        ("test_qa.json", '[{"question": "x"}]', r"Entry 0 of .* has no 'id'; it has question"),
        ("test_qa.json", '[{"id": 1, "question": "x"}]', "Question 1 of .* has no 'video_id'"),
        ("youtube_mapping.txt", "a vid1\n", "Question 36922 .* is on vid1301, which youtube_mapp"),
        ("youtube_mapping.txt", "a\n", "Line 1 of .* is 'a'; give the clip's name and vid"),
    ],
)
def test_msvd_qa_files_that_are_not_as_described(tmp_path, file, content, message):
    folder = disk.msvd_qa(tmp_path)
    (folder / file).write_text(content)
    with pytest.raises(SampleError, match=message):
        datasets.read("msvd_qa", folder, "test")


# LibriSpeech


def test_librispeech(tmp_path):
    samples = datasets.read("librispeech", disk.librispeech(tmp_path), "test-clean")
    assert [s.get("question_id") for s in samples] == [one[2] for one in disk.LIBRISPEECH]
    four = samples[4]
    assert four.answers == ("HE SAID 121 1",)
    assert (four.get("source"), four.get("chapter")) == ("121", "123852")
    assert "nothing else" in four.text
    assert same_sound(four.audios[0], 4) and not same_sound(four.audios[0], 3)
    assert audio_length(four.audios[0], disk.RATE) == len(disk.sound(4))
    (tmp_path / "LibriSpeech/test-clean").rename(tmp_path / "test-clean")
    assert [s.id for s in datasets.read("librispeech", tmp_path, "test-clean")] == [
        s.id for s in samples
    ]


def test_librispeech_lines_without_what_is_said(tmp_path):
    folder = disk.librispeech(tmp_path)
    file = folder / "LibriSpeech/test-clean/121/123852/121-123852.trans.txt"
    said = file.read_text()
    file.write_text(said + "121-123852-0009\n")
    with pytest.raises(SampleError, match="Line 4 of .* is '121-123852-0009'; give an utterance's"):
        datasets.read("librispeech", folder, "test-clean")
    file.write_text(said * 2)
    with pytest.raises(SampleError, match="the question id 121-123852-0000 more than once"):
        datasets.read("librispeech", folder, "test-clean")
    with pytest.raises(SampleError, match="no LibriSpeech/dev-other/<speaker>"):
        datasets.read("librispeech", folder, "dev-other")


# VocalSound


def test_vocalsound(tmp_path):
    samples = datasets.read("vocalsound", disk.vocalsound(tmp_path), "test")
    assert [s.answers for s in samples] == [(name,) for name in disk.MIDS] * 2
    nine = samples[9]
    assert (nine.id, nine.get("source")) == ("vocalsound/m0012_0_throatclearing", "m0012")
    assert nine.choices == tuple(disk.MIDS) and nine.answers == ("Throat clearing",)
    assert nine.text.endswith(
        "Answer with one of these: Laughter, Sigh, Cough, Throat clearing, Sneeze, Sniff."
    )
    assert same_sound(nine.audios[0], 9) and not same_sound(nine.audios[0], 8)
    disk.vocalsound(tmp_path / "all", "all")
    assert len(datasets.read("vocalsound", tmp_path / "all", "all")) == 12
    (tmp_path / "audio_16k").rename(tmp_path / "audio_44k")
    assert same_sound(datasets.read("vocalsound", tmp_path, "test")[3].audios[0], 3)


def test_vocalsound_labels(tmp_path):
    folder = disk.vocalsound(tmp_path)
    file = folder / "datafiles/te.json"
    data = json.loads(file.read_text())
    data["data"][1]["labels"] = "/m/0"
    benchmarks_on_disk.write_json(file, data)
    with pytest.raises(
        SampleError, match="Recording f0003_0_sigh of .* the label '/m/0'; there are"
    ):
        datasets.read("vocalsound", folder, "test")
    table = pd.read_csv(folder / "class_labels_indices_vs.csv")
    table.drop(columns="mid").to_csv(folder / "class_labels_indices_vs.csv", index=False)
    with pytest.raises(SampleError, match=r"indices_vs\.csv has no column 'mid'; it has index"):
        datasets.read("vocalsound", folder, "test")
    (folder / "class_labels_indices_vs.csv").unlink()
    with pytest.raises(SampleError, match=r"no class_labels_indices_vs\.csv or .*its classes"):
        datasets.read("vocalsound", folder, "test")
