"""The whole of MINER's experiment on the shipped demos, with few samples; resumed, and refused."""

import json
import runpy
import sys

import pandas as pd
import pytest

import mmlens
from experiments.miner.__main__ import Config, found_on, keyed, main, media_of
from experiments.miner.config import QUICK
from experiments.shared.config import changed, settled
from mmlens.data.demos import demo_data
from mmlens.data.samples import Sample
from mmlens.errors import MMLensError, RunFolderError, StatisticsError
from mmlens.importance import ImportanceScores
from mmlens.selection.strategies import select_neurons

FEW = changed(
    Config(),
    train_samples=8,
    questions=6,
    questions_few=3,
    seeds=1,
    ratios=(0.02, 0.05),
    strategies=("LA_MU", "uniform"),
    all_weights=("paper", "mean"),
    states_samples=2,
    contribution_samples=4,
    lens_samples=2,
    cards=1,
    max_new_tokens=3,
)
NOTHING_ELSE = {
    "ratios": (),
    "strategies": (),
    "treatments": False,
    "mining": False,
    "comparison": False,
    "convergence": False,
    "states_samples": 0,
    "lens_samples": 0,
    "cards": 0,
}


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A few questions of each demo, as a user's own data folder: read in no time."""
    folders = {}
    for demo, kinds in (("qwen2-vl", ["videos", "images"]), ("qwen2-audio", ["domain"])):
        folders[demo] = tmp_path_factory.mktemp(demo)
        for split in ("train", "test"):
            rows = pd.read_parquet(demo_data(f"demo/{demo}") / f"{split}.parquet")
            key = [rows[k] if k == "domain" else rows[k].map(len) for k in kinds]
            rows.groupby(key).head(12).to_parquet(folders[demo] / f"{split}.parquet")
    return {
        name: changed(FEW, model=f"demo/{name}", data=(str(folder),))
        for name, folder in folders.items()
    }


@pytest.fixture(scope="module")
def finished(few, tmp_path_factory):
    out = tmp_path_factory.mktemp("miner") / "vl"
    main(changed(few["qwen2-vl"], out=out))
    return out


def test_the_run_folder_is_complete(finished):
    names = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    assert {
        "manifest.json",
        "importance.safetensors",
        "statistics.safetensors",
        "masking.csv",
        "answers.jsonl",
        "convergence.csv",
        "score-correlations.csv",
        "methods-overlap.csv",
        "methods-differences.csv",
        "states.csv",
        "contributions.csv",
        "lens.csv",
        "cards-language.html",
        "report.html",
        "neurons/language-0.02-image.json",
        "neurons/language-0.02-video.json",
    } <= names
    assert not [name for name in names if "partial" in name]
    manifest = json.loads((finished / "manifest.json").read_text())
    assert all(stage["finished"] for stage in manifest["stages"].values())
    figures = {p.stem for p in (finished / "figures").glob("*.html")}
    assert {
        *("masking-matched", "masking-random", "treatments", "ratios", "grid", "mining", "splits"),
        *("methods", "methods-pairs", "methods-overlap", "importance", "score-correlations"),
        *("convergence", "selected", "contributions", "indices", "lens-entropy"),
    } <= figures


def test_the_report_says_everything(finished):
    page = (finished / "report.html").read_text()
    for title in (
        "What masking costs",
        "Masking, every way",
        "Entropy against importance",
        "Importance scores",
        "Modality-specific neurons",
        "How modalities meet",
        "Contributions to the last token",
        "The logit lens",
        "Examples",
        "How it was done",
        "Settings and versions",
    ):
        assert f">{title}<" in page, title
    assert "Silencing the" in page and "matched random neurons" in page


def test_contributions_are_of_every_layer(finished):
    layers = ImportanceScores.load(finished / "importance.safetensors").sums.shape[3]
    assert set(pd.read_csv(finished / "contributions.csv").layer) == set(range(layers))


def test_the_sets_are_those_of_the_scores(finished):
    scores = ImportanceScores.load(finished / "importance.safetensors")
    assert scores.datasets == ("2 images", "image", "video")
    groups = ("text", "special", "image", "video")
    expected = select_neurons(scores.combine("paper", groups), groups, 0.02, "LA_MU")
    for group in groups:
        found = mmlens.NeuronSet.load(finished / f"neurons/language-0.02-{group}.json")
        assert found == expected[group] and len(found) == 107 // 4
    # Pictures have no video tokens, and videos no pictures'.
    at = {g: i for i, g in enumerate(scores.groups)}
    assert scores.samples[:, at["video"]].tolist() == [0, 0, 8]
    assert scores.samples[:, at["image"]].tolist() == [8, 8, 0]


def test_the_table_agrees_with_the_answers(finished):
    table = pd.read_csv(finished / "masking.csv", keep_default_na=False, na_values=[""])
    answers = pd.read_json(finished / "answers.jsonl", lines=True)
    score = answers.set_index(["setting", "id"])["score"]
    main_rows = table[(table.purpose == "main") & (table.evaluated == "all")]
    assert set(main_rows.modality) == {"text", "special", "image", "video", "all"}
    row = main_rows[(main_rows.modality == "image") & (main_rows.control == "matched")].iloc[0]
    name = "all/LA_MU/paper/0.02/special_text_separate/image/zero"
    assert row.masked == pytest.approx(score[f"mask/{name}"].mean())
    assert row.control_mean == pytest.approx(score[f"matched/{name}/0"].mean())
    assert row.baseline == pytest.approx(score["none"].mean()) and row.n_questions == 18
    assert row.n_neurons == 26
    video = table[(table.purpose == "treatments") & (table.modality == "video")]
    assert set(video.treatment) == {"zero", "layer_minimum", "keep_only", "own_tokens"}
    assert set(video.evaluated) == {"video", "all"} and set(video.n_questions) == {3}
    assert set(table.purpose) == {
        *("main", "treatments", "grid", "ratios", "mining", "splits", "methods")
    }
    assert set(table[table.purpose == "mining"].mined) == {"2 images", "image", "video", "all"}


def test_a_second_start_redoes_nothing_and_other_settings_are_refused(few, finished, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    main(changed(few["qwen2-vl"], out=finished))
    said = capsys.readouterr().out
    assert "nothing is left to do" in said and "Silencing the" in said
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before
    with pytest.raises(RunFolderError, match="ratio"):
        main(changed(few["qwen2-vl"], out=finished, ratio=0.1))


def test_an_interrupted_run_goes_on(few, tmp_path, monkeypatch):
    """Killed while answers are generated: what was answered is kept, and the end is the same."""
    small = changed(few["qwen2-vl"], **NOTHING_ELSE, questions=3)
    main(changed(small, out=tmp_path / "whole"))
    from mmlens.streaming import sweep as module

    plain, calls = module.append_jsonl, []

    def dying(path, rows):
        plain(path, rows)
        calls.append(len(rows))
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "append_jsonl", dying)
        with pytest.raises(KeyboardInterrupt):
            main(changed(small, out=tmp_path / "cut"))
    half = (tmp_path / "cut/answers.jsonl").read_text()
    main(changed(small, out=tmp_path / "cut"))
    assert (tmp_path / "cut/answers.jsonl").read_text().startswith(half)
    tables = [(tmp_path / one / "masking.csv").read_text() for one in ("whole", "cut")]
    assert tables[0] == tables[1]


def test_sound_has_its_modalities(few, tmp_path):
    out = tmp_path / "audio"
    small = changed(few["qwen2-audio"], **{**NOTHING_ELSE, "lens_samples": 1})
    main(changed(small, unions=("text+audio",), out=out))
    table = pd.read_csv(out / "masking.csv")
    assert set(table.modality) == {"text", "special", "audio", "text+audio", "all"}
    sizes = table.set_index("modality").n_neurons
    assert sizes["text+audio"].max() > sizes["text"].max()
    assert set(table.model) == {"demo/qwen2-audio"}
    assert set(table.evaluated) == {"machine", "music", "nature", "speech", "all"}
    page = (out / "report.html").read_text()
    assert "audio neurons" in page and "The logit lens" in page


def test_data_sets_are_domains_fields_or_kinds_of_media(few):
    samples = [
        Sample("a", "?", images=(b"",), domain="x", fields={"task": "t"}),
        Sample("b", "?", images=(b"", b""), domain="x", fields={"task": "u"}),
        Sample("c", "?", domain="y", fields={"task": "t"}),
    ]
    assert [media_of(s) for s in samples] == ["image", "2 images", "text"]
    assert [s.domain for s in keyed(samples, "media")] == ["image", "2 images", "text"]
    assert [s.domain for s in keyed(samples, "task")] == ["t", "u", "t"]
    assert keyed(samples, "domain") == samples
    by, chosen = found_on(changed(few["qwen2-vl"], train_samples=2))
    assert by == "media" and {s.domain for s in chosen} == {"image", "2 images", "video"}
    assert found_on(changed(few["qwen2-vl"], by="domain"))[0] == "domain"
    assert found_on(few["qwen2-audio"])[0] == "domain"


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"split": "words"}, MMLensError, "no split type 'words'"),
        ({"weights": "best"}, StatisticsError, "no weights 'best'"),
        ({"all_weights": ("paper", "best")}, StatisticsError, "no weights 'best'"),
        ({"ratio": 0.0001}, StatisticsError, "selects nothing"),
        ({"ratios": (0.02, 2.0)}, MMLensError, "2.0 was given"),
        ({"strategy": "random"}, MMLensError, "of no modality"),
        ({"unions": ("text+smell",)}, MMLensError, "joins modalities with +"),
        ({"domains": ("smell",)}, MMLensError, "no data set 'smell'"),
    ],
)
def test_bad_settings_are_one_sentence(few, tmp_path, changes, error, words):
    small = {**NOTHING_ELSE, "train_samples": 2, "questions": 1, **changes}
    with pytest.raises(error, match=words):
        main(changed(few["qwen2-vl"], out=tmp_path / "run", **small))


def test_what_a_comparison_cannot_select_is_left_out_and_said(few, tmp_path):
    """0.02% of 5,376 neurons is one: enough for adaptive, not for one neuron of each of four sets."""
    small = {**NOTHING_ELSE, "train_samples": 3, "questions": 2, "ratios": (0.0002, 0.02)}
    main(changed(few["qwen2-vl"], out=tmp_path / "run", **small))
    page = (tmp_path / "run/report.html").read_text()
    assert "Left out: LA_MU, paper, 0.02%: A ratio of 0.0002 selects nothing" in page


def test_quick_changes_what_was_not_asked_for():
    quick = settled(Config(quick=True, seeds=7), QUICK)
    assert quick.seeds == 7 and quick.questions == QUICK["questions"]


def test_the_command_line_says_errors_in_one_line(tmp_path, monkeypatch):
    arguments = ["--model", "demo/qwen3", "--out", str(tmp_path / "x")]
    monkeypatch.setattr(sys, "argv", ["experiments.miner", *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("experiments.miner", run_name="__main__")
    assert stopped.value.code.startswith("error: There is no demo 'demo/qwen3'")


def test_the_report_says_how_active_matched_controls_are(finished):
    assert "How active the matched controls are" in (finished / "report.html").read_text()
