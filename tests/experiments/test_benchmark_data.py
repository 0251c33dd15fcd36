import pytest

from experiments import benchmark_data
from experiments.benchmark_data import Config, main, named_folders
from mmlens.errors import SampleError
from tests.helpers import benchmarks_on_disk as disk
from tests.helpers import miner_benchmarks_on_disk as miner_disk


def test_what_is_there_and_what_is_missing(tmp_path, capsys):
    folder = disk.vqav2(tmp_path)
    next((folder / "val2014").iterdir()).unlink()
    main(Config((f"vqav2={folder}",)))
    out = capsys.readouterr().out
    assert "vqav2 val: 6 questions; 4 of 6 drawn are whole" in out
    assert "first that is not: vqav2/4200" in out and "does not exist" in out
    assert "Question: Is it red, 0?" in out and "answers: yes, No, No" in out
    assert "vqav2 train:" in out and "has no v2_OpenEnded_mscoco_train2014_questions.json" in out


def test_long_questions_are_cut(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark_data, "LONGEST", 20)
    main(Config((f"mmlu={miner_disk.mmlu(tmp_path)}",)))
    assert "\n  Multiple-choice ques ...\n  answers: A, a0x\n" in capsys.readouterr().out


def test_videos_and_sounds_are_looked_for_and_questions_counted(tmp_path, capsys):
    video = miner_disk.msvd_qa(tmp_path / "msvd_qa")
    sound = miner_disk.vocalsound(tmp_path / "vocalsound", "all")
    text = miner_disk.mmlu(tmp_path / "mmlu")
    next((video / "YouTubeClips").iterdir()).write_bytes(b"no video")
    next((sound / "audio_16k").iterdir()).unlink()
    main(Config((f"msvd_qa={video}", f"vocalsound={sound}", f"mmlu={text}")))
    out = capsys.readouterr().out
    assert "msvd_qa test: 6 questions, 13157 are published; 4 of 6 drawn are whole" in out
    assert "is not a readable video" in out
    assert "vocalsound all: 12 questions, 20977 are published; 11 of 12 drawn are whole" in out
    assert "mmlu test: 6 questions, 14042 are published; 6 of 6 drawn are whole" in out
    assert "mmlu dev: MMLU's split 'dev' is what is shown" in out
    assert "Answer:\n  answers: A, a0x" in out


@pytest.mark.parametrize("given", [("vqav2",), ("=x",), ("a=",), ("vqav2=1", "vqav2=2")])
def test_folders_by_name(given):
    with pytest.raises(SampleError, match="give name=folder, each name once, with one of lingoqa"):
        named_folders(given)


def test_a_benchmark_that_is_none():
    with pytest.raises(SampleError, match="no benchmark 'gqa'"):
        main(Config(("gqa=/x",)))
