import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import mmlens.run.folder
from mmlens.errors import RunFolderError
from mmlens.run.folder import Run

SETTINGS = {"model": "demo", "seed": 0, "fractions": (0.01, 0.05), "data": Path("x/y")}


def test_a_new_folder(tmp_path):
    run = Run.open(tmp_path / "deep" / "run", SETTINGS, {"device": "cpu"})
    manifest = json.loads((tmp_path / "deep" / "run" / "manifest.json").read_text())
    assert manifest == run.manifest
    assert manifest["settings"] == {
        "model": "demo",
        "seed": 0,
        "fractions": [0.01, 0.05],
        "data": "x/y",
    }
    assert manifest["device"] == "cpu"
    assert manifest["stages"] == {}
    assert {"python", "torch", "transformers", "mmlens"} <= set(manifest["versions"])
    assert run.path("a", "b.csv") == tmp_path / "deep" / "run" / "a" / "b.csv"
    assert not run.finished("collect")


def test_an_empty_folder_is_as_good_as_none(tmp_path):
    Run.open(tmp_path, SETTINGS)
    assert (tmp_path / "manifest.json").is_file()


def test_the_same_settings_go_on(tmp_path):
    first = Run.open(tmp_path, SETTINGS)
    with first.stage("collect"):
        pass
    (tmp_path / "result.csv").write_text("a\n")
    second = Run.open(tmp_path, dict(reversed(SETTINGS.items())))
    assert second.finished("collect")
    assert second.manifest["started"] == first.manifest["started"]
    assert (tmp_path / "result.csv").read_text() == "a\n"


@pytest.mark.parametrize(
    ("other", "parts"),
    [
        ({**SETTINGS, "seed": 3}, ("seed (0 -> 3)",)),
        ({**SETTINGS, "fractions": (0.01,)}, ("fractions ([0.01, 0.05] -> [0.01])",)),
        ({**SETTINGS, "new": 1}, ("new (None -> 1)",)),
        ({"model": "demo", "seed": 0, "data": "x/y"}, ("fractions",)),
        ({**SETTINGS, "seed": 1, "model": "big"}, ("seed (0 -> 1)", "model ('demo' -> 'big')")),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, other, parts):
    Run.open(tmp_path, SETTINGS)
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(RunFolderError) as caught:
        Run.open(tmp_path, other)
    message = str(caught.value)
    for part in (*parts, str(tmp_path), "other settings"):
        assert part in message
    for unchanged in set(SETTINGS) & set(other):
        if SETTINGS[unchanged] == other[unchanged]:
            assert f"{unchanged} (" not in message
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_settings_that_are_not_json_compare_as_text(tmp_path):
    Run.open(tmp_path, SETTINGS)
    Run.open(tmp_path, {**SETTINGS, "data": "x/y", "fractions": [0.01, 0.05]})


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunFolderError, match="not empty and holds no run"):
        Run.open(tmp_path, SETTINGS)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("precious")
    with pytest.raises(RunFolderError):
        Run.open(tmp_path / "run", SETTINGS)
    assert (tmp_path / "run").read_text() == "precious"


@pytest.mark.parametrize(
    "content", [b"", b'{"settings": {"mod', b"\xff\xfe\xff", b"[]", b"null", b'{"settings": 3}']
)
def test_a_damaged_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"manifest\.json"):
        Run.open(tmp_path, SETTINGS)
    assert (tmp_path / "manifest.json").read_bytes() == content


def test_a_full_disk(tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunFolderError, match="No space left on device"):
        Run.open(tmp_path / "run", SETTINGS)


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test turns itself."""
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr(mmlens.run.folder, "time", SimpleNamespace(perf_counter=lambda: now.time))
    return now


def saved_stage(folder, name):
    return json.loads((folder / "manifest.json").read_text())["stages"][name]


def test_a_stage(tmp_path, clock):
    run = Run.open(tmp_path, SETTINGS)
    with run.stage("collect") as stage:
        stage.tokens += 300
        clock.time += 12.0
        assert not run.finished("collect")
    assert run.finished("collect")
    saved = saved_stage(tmp_path, "collect")
    assert saved["peak_memory_mb"] > 1
    assert {k: v for k, v in saved.items() if k != "peak_memory_mb"} == {
        "stage": "collect",
        "seconds": 12.0,
        "tokens": 300,
        "tokens_per_second": 25.0,
        "finished": True,
    }


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_stage_adds_up_and_is_not_finished(tmp_path, clock, error):
    run = Run.open(tmp_path, SETTINGS)
    with pytest.raises(error), run.stage("collect") as stage:
        stage.tokens += 100
        clock.time += 2.5
        raise error("stop")
    assert not run.finished("collect")
    assert saved_stage(tmp_path, "collect")["finished"] is False
    again = Run.open(tmp_path, SETTINGS)
    assert not again.finished("collect")
    clock.time += 1000  # between the starts nothing is counted
    with again.stage("collect") as stage:
        stage.tokens += 50
        clock.time += 0.5
    saved = saved_stage(tmp_path, "collect")
    assert (saved["seconds"], saved["tokens"], saved["tokens_per_second"]) == (3.0, 150, 50.0)
    assert again.finished("collect")


def test_a_stage_without_tokens_has_no_rate(tmp_path, clock):
    run = Run.open(tmp_path, SETTINGS)
    with run.stage("plot"):
        clock.time += 1
    assert saved_stage(tmp_path, "plot")["tokens_per_second"] is None


def test_the_table_of_stages(tmp_path, clock):
    run = Run.open(tmp_path, SETTINGS)
    assert run.stages().empty
    for name, seconds in (("collect", 2), ("plot", 3)):
        with run.stage(name):
            clock.time += seconds
    table = run.stages()
    assert table["stage"].tolist() == ["collect", "plot"]
    assert table["seconds"].tolist() == [2.0, 3.0]
    assert "finished" not in table


def test_tables_are_written(tmp_path):
    run = Run.open(tmp_path, SETTINGS)
    frame = pd.DataFrame({"a": [1, 2], "b": ["x,y", 'q"']})
    run.write_csv("t.csv", frame)
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "t.csv"), frame, check_dtype=False, check_column_type=False
    )
