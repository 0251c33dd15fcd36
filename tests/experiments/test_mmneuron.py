"""The whole experiment on a tiny model saved to disk, with pictures beside a JSON-lines file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import mmlens
from experiments.mmneuron.__main__ import QUICK, Config, main
from experiments.mmneuron.analyses import refuse_silenced
from experiments.shared.config import changed, settled
from mmlens.ablation.intervention import Intervention
from mmlens.errors import MMLensError, RunFolderError, TooManyFailuresError
from mmlens.run.folder import Run
from tests.tiny import llava_next as tiny

DOMAINS = ("red", "blue")
NOTHING_ELSE = {"questions_modules": 0, "deviation_samples": 0, "lens_samples": 0, "cards": 0}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model folder and a data folder, as a user has them."""
    base = tmp_path_factory.mktemp("mmneuron")
    tiny.model("mistral").save_pretrained(base / "model")
    tiny.processor().save_pretrained(base / "model")
    data = base / "data"
    (data / "pictures").mkdir(parents=True)
    for split, seed in (("train", 0), ("test", 100)):
        rows = []
        for i in range(16):
            name = f"pictures/{split}{i}.png"
            tiny.picture(16 + 8 * (i % 3), 16 + 8 * (i % 2), seed + i).save(data / name)
            rows.append(
                {
                    "id": f"{split}{i}",
                    "domain": DOMAINS[i % 2],
                    "question": f"what is w{i} ?",
                    "image": name,
                    "answers": ["one", "w7"],
                    "source": f"block{i // 4}",
                }
            )
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (data / f"{split}.jsonl").write_text(text)
    return base


def config(place, out, **changes):
    made = changed(
        Config(),
        model=str(place / "model"),
        data=(str(place / "data"),),
        modules=("language",),
        out=out,
        fractions=(0.05, 0.2),
        evaluate_fractions=(0.2,),
        quantile=0.8,
        questions=6,
        questions_others=3,
        seeds=2,
        max_new_tokens=3,
        **NOTHING_ELSE,
    )
    return changed(made, **changes)


@pytest.fixture(scope="module")
def finished(place):
    out = place / "run"
    main(config(place, out))
    return out


def test_the_run_folder_is_complete(finished):
    names = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    assert {
        "manifest.json",
        "statistics.safetensors",
        "neurons.csv",
        "answers.jsonl",
        "accuracy.csv",
        "effects.csv",
        "report.html",
        "neurons/language-0.2-red.json",
        "neurons/thresholds.json",
        "figures/neurons_per_domain.html",
        "figures/layer_distribution.html",
        "figures/entropy_language.html",
        "figures/effects_matched.html",
    } <= names
    assert not [name for name in names if "partial" in name]
    manifest = json.loads((finished / "manifest.json").read_text())
    for key in ("versions", "weight_hash", "settings", "command", "image_processor_backend"):
        assert manifest[key], key
    assert manifest["settings"]["data_hash"].keys() == {"train", "test"}
    assert manifest["settings"]["seed"] == 0
    for stage in ("load", "collect", "select", "evaluate", "report"):
        assert manifest["stages"][stage]["finished"], stage
        assert manifest["stages"][stage]["peak_memory_mb"] > 0
    assert manifest["stages"]["collect"]["tokens_per_second"] > 0


def test_the_tables_agree_with_the_answers(finished):
    answers = pd.read_json(finished / "answers.jsonl", lines=True)
    accuracy = pd.read_csv(finished / "accuracy.csv", keep_default_na=False)
    effects = pd.read_csv(finished / "effects.csv")
    # 2 domains and all together, each masked once with 2 + 2 controls, and untouched
    assert answers.setting.nunique() == 3 * 5 + 1
    red = answers[answers.setting == "mask/red/0.2"]
    data = {f"test{i}": DOMAINS[i % 2] for i in range(16)}
    own = red[red.id.map(data) == "red"]
    assert len(own) == 6
    assert len(red) - len(own) == 3
    row = effects[(effects["mask"] == "red") & (effects.evaluated == "own")].iloc[0]
    assert row.n_questions == 6
    assert row.masked == pytest.approx(own.score.mean())
    untouched = answers[(answers.setting == "none") & answers.id.isin(own.id)]
    assert row["drop"] == pytest.approx(untouched.score.mean() - own.score.mean())
    assert accuracy[accuracy["mask"] == "none"]["n"].sum() == 12
    assert set(effects.control) == {"random", "matched"}


def test_the_sets_are_those_of_the_statistics(finished):
    statistics = mmlens.NeuronStatistics.load(finished / "statistics.safetensors")
    counts = statistics.counts("language", keys=DOMAINS)
    expected = mmlens.entropy.domain_neurons(*counts, DOMAINS, fraction=0.2, quantile=0.8)
    for domain, neurons in expected.items():
        assert mmlens.NeuronSet.load(finished / f"neurons/language-0.2-{domain}.json") == neurons
    table = pd.read_csv(finished / "neurons.csv")
    assert len(table) == len(expected["red"] | expected["blue"])
    assert set(table.fraction) <= {0.05, 0.2}


def test_a_second_start_redoes_nothing(place, finished, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    main(config(place, finished))
    assert "nothing is left to do" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


def test_other_settings_or_data_are_refused(place, finished, tmp_path):
    with pytest.raises(RunFolderError, match=r"questions \(6 -> 5\)"):
        main(config(place, finished, questions=5))
    changed = tmp_path / "data"
    changed.mkdir()
    for split in ("train", "test"):
        text = (place / "data" / f"{split}.jsonl").read_text().replace("w7", "w8")
        (changed / f"{split}.jsonl").write_text(text)
    with pytest.raises(RunFolderError, match="data"):
        main(config(place, finished, data=(str(changed),)))


def test_an_interrupted_run_goes_on(place, finished, tmp_path, monkeypatch):
    import experiments.mmneuron.__main__ as experiment

    out = tmp_path / "run"
    real = experiment.evaluate

    def dying(*args, **kwargs):
        settings = args[2]
        real(args[0], args[1], settings[:3], **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "evaluate", dying)
    with pytest.raises(KeyboardInterrupt):
        main(config(place, out))
    monkeypatch.setattr(experiment, "evaluate", real)
    monkeypatch.setattr(mmlens, "collect", lambda *a, **k: pytest.fail("collected again"))
    main(config(place, out))
    for name in ("accuracy.csv", "effects.csv", "neurons.csv"):
        assert (out / name).read_text() == (finished / name).read_text()


def test_the_full_matrix_and_towers(place, tmp_path):
    out = tmp_path / "run"
    main(config(place, out, full=True, modules=("language", "vision"), seeds=1, questions=4))
    effects = pd.read_csv(out / "effects.csv")
    matched = effects[effects.control == "matched"]
    cells = set(zip(matched["mask"], matched.evaluated, strict=True))
    assert {(a, b) for a in DOMAINS for b in DOMAINS} <= cells
    assert (out / "neurons/vision-0.2-red.json").exists()


@pytest.fixture(scope="module")
def everything(place):
    out = place / "everything"
    changes = {"questions_modules": 3, "deviation_samples": 2, "lens_samples": 3, "cards": 2}
    main(config(place, out, modules=(), seeds=2, **changes))
    return out


def test_every_analysis_leaves_its_table_its_figures_and_its_section(everything):
    names = {p.relative_to(everything).as_posix() for p in everything.rglob("*") if p.is_file()}
    assert {
        "overlap-language.csv",
        "overlap-vision.csv",
        "effects-modules.csv",
        "deviation.csv",
        "stability.csv",
        "lens.csv",
        "cards-language.html",
        "cards-projector.html",
        "figures/lens-entropy.html",
        "figures/modules.html",
        "figures/deviation-relative_l2.html",
        "figures/stability-vision.html",
        "figures/sets-language.html",
    } <= names
    report = (everything / "report.html").read_text()
    for title in ("Overlap of the sets", "Module by module", "Hidden states", "The logit lens"):
        assert f"<h2>{title}</h2>" in report
        assert f">{title}</a></li>" in report
    assert 'href="cards-vision.html"' in report
    manifest = json.loads((everything / "manifest.json").read_text())
    assert manifest["estimate"]["answers"] > 0
    stages = {"modules", "deviation", "lens", "stability", "cards"}
    assert all(manifest["stages"][stage]["finished"] for stage in stages)


def test_every_module_is_silenced_alone(everything):
    table = pd.read_csv(everything / "effects-modules.csv")
    assert set(table.modules) == {"language", "vision", "projector", "vision+projector"}
    assert set(table.evaluated) == {"own"}
    assert (table.n_questions == 3).all()
    neurons = pd.read_csv(everything / "neurons.csv")
    for name in ("language", "vision", "projector"):
        for domain in DOMAINS:
            labels = neurons[neurons.module == name].domains.str.split(";")
            row = table[(table.modules == name) & (table["mask"] == domain)]
            assert (row.n_neurons == labels.map(lambda one, d=domain: d in one).sum()).all()


def test_a_last_stage_that_failed_is_done_again_alone(place, everything, monkeypatch):
    manifest = json.loads((everything / "manifest.json").read_text())
    manifest["stages"]["report"]["finished"] = False
    (everything / "manifest.json").write_text(json.dumps(manifest))
    before = (everything / "report.html").read_text()
    (everything / "report.html").unlink()
    import experiments.shared.sections as shared
    from experiments.mmneuron import analyses

    monkeypatch.setattr(analyses, "deviation", lambda *a, **k: pytest.fail("compared again"))
    monkeypatch.setattr(shared, "neuron_cards", lambda *a, **k: pytest.fail("made again"))
    changes = {"questions_modules": 3, "deviation_samples": 2, "lens_samples": 3, "cards": 2}
    main(config(place, everything, modules=(), seeds=2, **changes))
    after = (everything / "report.html").read_text()
    assert len(after) == pytest.approx(len(before), rel=0.01)


def test_quick_changes_what_was_not_asked_for():
    made = settled(Config(quick=True, questions=7), QUICK)
    assert made.questions == 7
    assert made.train_samples == QUICK["train_samples"] < Config().train_samples
    assert settled(Config(questions=7), QUICK) == Config(questions=7)


def test_a_truncated_picture_is_skipped_and_said(place, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "pictures").symlink_to(place / "data" / "pictures")
    (data / "cut.png").write_bytes((place / "data/pictures/test0.png").read_bytes()[:200])
    for split in ("train", "test"):
        text = (place / "data" / f"{split}.jsonl").read_text()
        (data / f"{split}.jsonl").write_text(text.replace(f"pictures/{split}0.png", "cut.png"))
    out = tmp_path / "run"
    main(config(place, out, data=(str(data),), max_failures=0.2))
    report = (out / "report.html").read_text()
    assert "cut.png" in report
    with pytest.raises(TooManyFailuresError, match="train0"):
        main(config(place, tmp_path / "strict", data=(str(data),), max_failures=0.0))


def test_a_domain_of_texts_alone_has_neurons_of_the_decoder_alone(place, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "pictures").symlink_to(place / "data" / "pictures")
    for split in ("train", "test"):
        rows = [json.loads(r) for r in (place / "data" / f"{split}.jsonl").read_text().splitlines()]
        for row in rows:
            if row["domain"] == "blue":
                row["domain"] = "text"
                del row["image"]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "run"
    main(config(place, out, data=(str(data),), questions_modules=2, lens_samples=2, cards=2))
    assert (out / "neurons/language-0.2-text.json").exists()
    assert (out / "cards-language.html").exists()
    with pytest.raises(MMLensError, match=r"Every domain needs at least one token.*\b0\b"):
        main(config(place, tmp_path / "tower", data=(str(data),), modules=("language", "vision")))


def test_other_interventions_have_their_examples_too(place, tmp_path):
    out = tmp_path / "run"
    main(config(place, out, intervention="scale", amount=2.0, seeds=1))
    assert '<div class="example">' in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"domains": ("green",)}, "green.*blue, red"),
        ({"modules": ("qformer",)}, "qformer"),
        ({"test_split": "validation"}, "validation"),
        ({"data": ("/nowhere",)}, "nowhere"),
        ({"metric": "rouge"}, "rouge"),
        ({"data": ("a", "b")}, "one folder"),
        ({"data": ("vqa9=/nowhere",)}, "vqa9"),
        ({"data": ("vqav2=/nowhere",)}, "nowhere"),
        ({"intervention": "scale"}, "needs an amount"),
        ({"data": ()}, "--data"),
    ],
)
def test_bad_settings_are_one_sentence(place, tmp_path, changes, match):
    with pytest.raises(MMLensError, match=match):
        main(config(place, tmp_path / "run", **changes))


def test_the_command_line(place, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.mmneuron",
            "--model",
            "demo/none",
            "--out",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: There is no demo 'demo/none'")
    assert "Traceback" not in done.stderr


#: The command line, and once more when the run is finished.
TWICE = """
import runpy
for _ in range(2):
    runpy.run_module("experiments.mmneuron", run_name="__main__", alter_sys=True)
"""


def _path() -> str:
    here = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


@pytest.mark.slow
def test_two_processes_share_the_collection(place, finished, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    made = config(place, tmp_path / "run")
    options = ["--model", made.load.model, "--data", *made.samples.data, "--out", str(made.out)]
    options += ["--fractions", "0.05", "0.2", "--evaluate-fractions", "0.2", "--quantile", "0.8"]
    options += ["--questions", "6", "--questions-others", "3", "--seeds", "2"]
    options += ["--max-new-tokens", "3", "--modules", "language"]
    for name in NOTHING_ELSE:
        options += [f"--{name.replace('_', '-')}", "0"]

    script = tmp_path / "twice.py"
    script.write_text(TWICE)
    done = subprocess.run(
        [*command, str(script), *options],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _path()},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.count("is finished already") == 1
    )  # the first process says so, the second time
    whole, ours = (
        mmlens.NeuronStatistics.load(folder / "statistics.safetensors").counts("language")
        for folder in (finished, made.out)
    )
    assert (ours[1] == whole[1]).all()
    assert (
        ours[0] - whole[0]
    ).abs().max() <= 1  # other batches, so a sign within rounding may flip


@pytest.mark.parametrize(
    ("stage", "old", "new"),
    [
        ("modules", {"effects-modules.csv": "mask,drop\n"}, {"effects-modules.csv": "mask,intervention,drop\n"}),
        ("deviation", {"deviation.csv": "mask,mean\n"}, {"deviation.jsonl": ""}),
    ],
)  # fmt: skip
def test_sections_that_silenced_against_the_settings_are_not_resumed(tmp_path, stage, old, new):
    """0.1.0 silenced the neurons there, whatever was asked."""
    run = Run.open(tmp_path / "run", {})
    with run.stage(stage):
        for name, text in old.items():
            run.path(name).write_text(text)
    refuse_silenced(run, Intervention())
    with pytest.raises(RunFolderError, match=f"{stage}.*silenced.*scale.*another folder"):
        refuse_silenced(run, Intervention("scale", 0.5))
    for name, text in new.items():
        run.path(name).write_text(text)
    refuse_silenced(run, Intervention("scale", 0.5))
