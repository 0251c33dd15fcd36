import errno
import json

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from mmlens.errors import RunFolderError, StatisticsError
from mmlens.storage import tensorfile
from mmlens.storage.tensorfile import open_tensors, write_tensors

FORMAT = "mmlens.example/2"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


def write(path, value=1.0):
    write_tensors(path, FORMAT, {"x": torch.full((2, 3), value).T}, {"name": "ä", "n": [1, 2]})


def read(path, **options):
    with open_tensors(path, FORMAT, "example file", **options) as (header, tensor):
        return header["name"], header["n"], tensor("x")


def test_file_round_trip(tmp_path):
    path = tmp_path / "deep" / "a.safetensors"
    write(path)
    name, n, x = read(str(path))
    assert (name, n) == ("ä", [1, 2])
    assert torch.equal(x, torch.ones(3, 2))
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


def test_a_file_that_is_not_there(path):
    with pytest.raises(FileNotFoundError, match=r"no example file .*a\.safetensors"):
        read(path)


def test_a_truncated_file_is_refused(path):
    write(path)
    content = path.read_bytes()
    for length in (0, 4, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(StatisticsError, match=r"a\.safetensors is damaged"):
            read(path)


def test_files_of_something_else_are_refused(path):
    path.write_bytes(b"this is text and no safetensors at all" * 10)
    with pytest.raises(StatisticsError, match="damaged or not safetensors"):
        read(path)
    for metadata in (None, {"mmlens": '{"format": "other/1"}'}):
        save_file({"x": torch.zeros(2)}, path, metadata=metadata)
        with pytest.raises(StatisticsError, match=f"is not a example file of mmlens .{FORMAT}"):
            read(path)
        with pytest.raises(StatisticsError, match=r"a\.safetensors (is not|is of another tool)"):
            read(path, refused={"other/1": "is of another tool."})


@pytest.mark.parametrize("header", ["{not json", "[]", json.dumps({"format": FORMAT, "n": 1})])
def test_a_damaged_header_is_refused(path, header):
    save_file({"x": torch.zeros(2)}, path, metadata={"mmlens": header})
    with pytest.raises(StatisticsError, match=r"a\.safetensors is damaged: its header"):
        read(path)


def test_a_full_disk_leaves_the_old_file(path, monkeypatch):
    write(path)
    old = path.read_bytes()
    words = "Error while serializing: I/O error: No space left on device (os error 28)"
    for error in (SafetensorError(words), OSError(errno.ENOSPC, "No space left on device")):

        def full(tensors, to, metadata, error=error):
            to.write_bytes(b"half")
            raise error

        monkeypatch.setattr(tensorfile, "save_file", full)
        with pytest.raises(RunFolderError, match="No space left on device"):
            write(path, 2.0)
        assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]
        assert path.read_bytes() == old
