"""What both experiments stand on: settings, data, start, analyses of any sets, last words."""

import sys
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

import mmlens
from experiments.miner.config import Config as MinerConfig
from experiments.mmneuron.config import Config as MMNeuronConfig
from experiments.shared import data, output, sections, start
from experiments.shared.collecting import STATISTICS, collect_statistics
from experiments.shared.config import (
    AnswerSettings,
    CommonConfig,
    LoadSettings,
    batching,
    changed,
    generation,
    settings,
    settled,
)
from experiments.shared.study import Study
from mmlens.ablation.tables import before_and_after
from mmlens.data.samples import Sample, take_per_value
from mmlens.errors import MMLensError, RunFolderError
from mmlens.neurons import NONE, NeuronSet
from mmlens.run.folder import Run
from mmlens.streaming.batching import Batching
from tests.helpers import benchmarks_on_disk as disk


@dataclass(frozen=True)
class Config(CommonConfig):
    """Settings of an experiment that is not MMNeuron's, with other defaults of shared ones."""

    load: LoadSettings = LoadSettings("demo/qwen2-vl")
    answers: AnswerSettings = AnswerSettings(max_new_tokens=4)
    ratio: float = 0.02
    needed: int = 3


def configured(**settings) -> Config:
    return changed(Config(), **settings)


@pytest.mark.parametrize("one", [MMNeuronConfig(), MinerConfig(), Config()])
def test_settings_are_flat_and_each_has_a_name_of_its_own(one):
    topics = [getattr(one, field.name) for field in fields(one)]
    names = [f.name for topic in topics if is_dataclass(topic) for f in fields(topic)]
    names += [field.name for field in fields(one)]
    assert len(names) == len(set(names))
    kept = settings(one)
    assert kept.keys() < set(names) and not any(map(is_dataclass, kept.values()))
    assert {"model", "domains", "temperature", "seed"} < kept.keys() and "out" not in kept


def test_a_setting_is_changed_by_its_own_name():
    made = configured(temperature=0.9, ratio=0.1, domains=("a",))
    assert made.answers == AnswerSettings(temperature=0.9, max_new_tokens=4)
    assert (made.ratio, made.samples.domains) == (0.1, ("a",))
    with pytest.raises(TypeError, match="'answer'"):
        configured(answer=1)


def test_nested_settings_are_plain_options(monkeypatch):
    typed = "--max-new-tokens 2 --ratio 0.1 --model demo/x --paper-metrics"
    monkeypatch.setattr(sys, "argv", ["experiment", *typed.split()])
    made = []
    start.command_line(made.append, Config)
    assert made == [configured(max_new_tokens=2, ratio=0.1, model="demo/x", paper_metrics=True)]


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        (
            "Fix the data, or raise max_failures; 0.1 given.",
            "Fix the data, or raise --max-failures; 0.1 given.",
        ),
        (
            "token_budget and max_batch must be at least 1.",
            "--token-budget and --max-batch must be at least 1.",
        ),
        ("no template; use template='plain'.", "no template; use --template plain."),
        (
            "set paper_metrics=True or paper_metrics=False",
            "set --paper-metrics or --no-paper-metrics",
        ),
        ("Give `seed`.", "Give --seed."),
        ("other settings: max_new_tokens (8 -> 4).", "other settings: --max-new-tokens (8 -> 4)."),
        # Words, values, paths, and what is no setting stay.
        ("The seed of the model, a domain.", "The seed of the model, a domain."),
        (
            "There is no file /data/max_batch/train_split.jsonl",
            "There is no file /data/max_batch/train_split.jsonl",
        ),
        ("'test_split' has no column 'max_batch'", "'test_split' has no column 'max_batch'"),
        ("pass trust_remote_code=True and `other`", "pass trust_remote_code=True and `other`"),
    ],
)
def test_errors_name_options_as_they_are_typed(monkeypatch, said, typed):
    def failing(config: Config) -> None:
        raise MMLensError(said)

    monkeypatch.setattr(sys, "argv", ["experiment"])
    with pytest.raises(SystemExit) as stopped:
        start.command_line(failing, Config)
    assert stopped.value.code == f"error: {typed}"


def test_quick_leaves_what_was_asked_for():
    quick = {"needed": 1, "ratio": 0.5}
    assert settled(configured(quick=True, ratio=0.1), quick) == configured(
        quick=True, ratio=0.1, needed=1
    )
    assert settled(Config(), quick) == Config()


def test_options_are_those_of_the_configuration():
    config = configured(template="plain", token_budget=9, temperature=0.5, seed=4)
    assert batching(config) == Batching("plain", 9, 64, 0.05)
    assert generation(config) == {"max_new_tokens": 4, "temperature": 0.5, "seed": 4}
    assert "out" not in settings(config)


def test_splits_of_a_demo():
    # No demo has more samples than can be run, so the limit is none of theirs.
    read = data.read_split(configured(train_split="validation"), "train", limit=3)
    assert read == mmlens.load_samples("demo/qwen2-vl", "validation")
    assert data.read_split(configured(test_split="validation"), "test", limit=None) == read
    assert data.read_split(Config(), "test", limit=None)[0].id.startswith("test")
    assert data.metrics(Config()) == "exact_match"
    assert data.metrics(configured(metric="anls")) == "anls"


def test_splits_of_benchmarks_are_limited_and_worded(tmp_path):
    config = configured(data=(f"vqav2={disk.vqav2(tmp_path)}",))
    read = data.read_split(config, "test", limit=4)
    assert len(read) == 4
    assert all(sample.text.startswith("Question: ") for sample in read)
    bare = data.read_split(config, "test", limit=4, prompt="bare")
    assert [s.id for s in bare] == [s.id for s in read]
    assert all(sample.text == sample.fields["question"] for sample in bare)
    assert len(data.read_split(config, "test", limit=None)) == 6
    assert data.metrics(config) == {"com": mmlens.datasets.DATASETS["vqav2"].metric}


def test_data_are_told_by_their_small_files_or_else_by_all(tmp_path):
    folder = disk.vqav2(tmp_path)
    config = configured(data=(f"vqav2={folder}",))
    first = data.data_hashes(config)
    next((folder / "val2014").iterdir()).unlink()
    assert data.data_hashes(config) == first
    next(folder.glob("*.json")).write_text("[]")
    assert data.data_hashes(config) != first
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    config = changed(config, data=(f"vqav2={sounds}",))
    seen = set()
    for name in ("1.flac", "1.trans.txt"):
        (sounds / name).write_text(name)
        seen.add(data.data_hashes(config)["vqav2"])
    assert len(seen) == 2


def test_values_are_checked_by_the_name_they_have_here():
    samples = [Sample(str(i), "?", domain=d) for i, d in enumerate("bca")]
    assert data.chosen_values((), samples) == ["a", "b", "c"]
    assert data.chosen_values(("c", "a"), samples) == ["c", "a"]
    with pytest.raises(MMLensError, match="no data set 'd' in the data; there are a, b, c"):
        data.chosen_values(("d",), samples, "data set")


def opened(config, helped=None):
    return start.open_run(config, lambda _: "hash", helped or (lambda _: pytest.fail("helped")))


def test_a_run_is_begun_gone_on_with_and_refused(tmp_path, capsys):
    config = configured(out=tmp_path / "run")
    run = opened(config)
    assert run is not None and run.manifest["settings"]["data_hash"] == "hash"
    assert run.manifest["settings"].keys() == {*settings(config), "data_hash"}
    with run.stage("report"):
        pass
    assert capsys.readouterr().out == ""
    again = opened(config)
    assert again is not None and again.finished("report")
    assert "nothing is left to do" in capsys.readouterr().out
    with pytest.raises(RunFolderError, match="ratio"):
        opened(changed(config, ratio=0.1))


@pytest.mark.parametrize("finished", [False, True])
def test_other_processes_help_unless_all_is_done(tmp_path, monkeypatch, finished):
    monkeypatch.setattr(start, "rank_and_world", lambda: (1, 2))
    monkeypatch.setattr(start, "from_first", lambda _: finished)
    helped = []
    assert opened(configured(out=tmp_path / "run"), helped.append) is None
    assert len(helped) == (not finished)
    assert not (tmp_path / "run").exists()


def test_one_split_used_twice_keeps_both_rows():
    samples = [Sample(str(i), "?", domain="d") for i in range(5)]
    config = configured(train_split="test")
    table = output.samples_used(config, samples, samples[:2], ["d"], {"0": "broken"})
    assert table.split.is_unique
    assert list(table.n_questions) == [4, 1]
    other = output.samples_used(Config(), samples, samples[:2], ["d"], {})
    assert list(other.split) == ["train", "test"]


def test_the_last_words(tmp_path, capsys):
    run = Run.open(tmp_path / "run", {})
    output.summarise(run, ["One.", "Two."])
    assert capsys.readouterr().out == f"\nOne.\nTwo.\n\nReport: {run.path('report.html')}\n"
    output.summarise(run, (), "Elsewhere")
    assert capsys.readouterr().out == "\nElsewhere\n"


def test_answers_side_by_side_begin_with_those_that_changed():
    samples = [Sample(str(i), f"q{i}", answers=("a",)) for i in range(4)]
    said = {NONE: "aaba", "image": "aabb"}  # the last one changes
    answers = [
        {"setting": setting, "id": str(i), "prediction": p, "score": float(p == "a")}
        for setting, texts in said.items()
        for i, p in enumerate(texts)
        if (setting, i) != ("image", 0)  # a question that the mask was not asked
    ]
    ids = [s.id for s in samples]
    found = before_and_after(answers, samples, {"picture": ids}, {"picture": "image"}, 3)
    assert list(found.question) == ["q3", "q1", "q2"]
    assert list(found.masked) == ["b", "a", "b"]
    assert set(found.label) == {"picture"}
    assert before_and_after(answers, samples, {"x": ids}, {"x": "never"}).empty


# Analyses of sets whose labels are modalities, on a demo with pictures and videos


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    model = mmlens.load("demo/qwen2-vl")
    samples = take_per_value(mmlens.load_samples("demo/qwen2-vl", "test"), "domain", 2)
    run = Run.open(tmp_path_factory.mktemp("runner") / "run", {})
    domains = data.chosen_values((), samples)
    return Study(run, model, domains, samples, samples, 0, batching(Config()))


@pytest.fixture(scope="module")
def sets(study):
    info = study.model.module("language")
    shape = (info.layers, info.width)
    return {
        "text": NeuronSet([(0, 1), (0, 2), (1, 0)], "language", shape),
        "image": NeuronSet([(0, 1), (1, 5)], "language", shape),
        "special": NeuronSet([], "language", shape),
    }


def test_a_table_is_made_once(study):
    made = []

    def make() -> pd.DataFrame:
        made.append(1)
        return pd.DataFrame({"kind": ["none", "NA"], "value": [1.5, None]})

    first, second = (study.table("once.csv", "once", make) for _ in range(2))
    assert len(made) == 1
    assert list(first.kind) == ["none", "NA"] and first.value.isna().tolist() == [False, True]
    pd.testing.assert_frame_equal(first, second)


def test_some_are_so_many_of_each_domain(study):
    counts = pd.Series([s.domain for s in study.some(1)]).value_counts()
    assert set(counts.index) == set(study.domains) and (counts == 1).all()


def test_sets_by_modality_have_overlaps_and_cards(study, sets):
    section = sections.overlap_section(study, {"scores": sets}, list(sets), "Why.")
    assert [part.name for part in section.parts[:2]] == ["sets-scores", "overlap-scores"]
    assert section.text == "Why."
    table = pd.read_csv(study.run.path("overlap-scores.csv"))
    assert {"text", "image", "special"} <= set(table.to_numpy().ravel())
    cards = sections.cards_section(
        study, 1, {"scores": sets, "none": {"x": sets["special"]}}, title="Neurons of {page}"
    )
    assert cards.links == {"Cards of scores neurons": "cards-scores.html"}
    assert "Neurons of scores" in study.run.path("cards-scores.html").read_text()
    output.write_figures(study.run, {}, [section])
    assert study.run.path("figures", "overlap-scores.html").exists()


def test_the_lens_counts_the_neurons_of_any_sets(study, sets):
    section = sections.lens_section(study, 1, 0, sets=sets, whose="MMNeuron's")
    stages = next(part for part in section.parts if part.name == "stages")
    bars = {bar.name: list(bar.y[:3]) for bar in stages.figure.data if bar.type == "bar"}
    assert bars == {"text": [2, 1, 0], "image": [1, 1, 0], "special": [0, 0, 0]}
    assert "as MMNeuron's three stages would have it" in section.text
    assert study.run.finished("lens") and study.run.path("lens.csv").exists()


def test_statistics_are_collected_in_parts_that_add_up(study):
    run = Run.open(Path(study.run.folder).parent / "parts", {})
    options = {"modules": ["language"], "batching": replace(study.batching, progress=False)}
    parts, whole = (
        collect_statistics(one, study.model, study.train, in_parts=in_parts, seed=0, **options)
        for one, in_parts in ((run, True), (study.run, False))
    )
    assert len(whole) == len(whole[0]) == 1 and len(parts) == 2
    saved = mmlens.NeuronStatistics.load(run.path(STATISTICS))
    assert (saved.counts("language")[1] == whole[0][0].counts("language")[1]).all()
    assert run.manifest["stages"]["collect"]["tokens"] == int(saved.counts("language")[1].sum())
