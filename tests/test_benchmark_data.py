import pytest

from experiments.benchmark_data import Config, main, named_folders
from mmlens.errors import SampleError
from tests import benchmarks_on_disk as disk


def test_what_is_there_and_what_is_missing(tmp_path, capsys):
    folder = disk.vqav2(tmp_path)
    next((folder / "val2014").iterdir()).unlink()
    main(Config((f"vqav2={folder}",)))
    out = capsys.readouterr().out
    assert "vqav2 val: 4 of 6 drawn are whole" in out
    assert "first that is not: vqav2/4200" in out and "does not exist" in out
    assert "Question: Is it red, 0?" in out and "answers: yes, No, No" in out
    assert "vqav2 train:" in out and "has no v2_OpenEnded_mscoco_train2014_questions.json" in out


@pytest.mark.parametrize("given", [("vqav2",), ("=x",), ("a=",), ("vqav2=1", "vqav2=2")])
def test_folders_by_name(given):
    with pytest.raises(SampleError, match="give name=folder, each name once, with one of lingoqa"):
        named_folders(given)


def test_a_benchmark_that_is_none():
    with pytest.raises(SampleError, match="no benchmark 'gqa'"):
        main(Config(("gqa=/x",)))
