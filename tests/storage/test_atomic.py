import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from mmlens.errors import RunFolderError
from mmlens.storage.atomic import append_jsonl, read_jsonl, write_atomically, write_json, write_text

TROUBLE = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError(errno.EROFS, "Read-only file system"),
    PermissionError(errno.EACCES, "Permission denied"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_written_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    write_text(path, "héllo\n")
    assert path.read_bytes() == "héllo\n".encode()
    write_text(path, "again")
    assert path.read_text() == "again"
    assert names(path.parent) == ["c.txt"]


def test_json(tmp_path):
    data = {"a": [1, 2.5, None], "ü": {"x": "y"}}
    write_json(tmp_path / "a.json", data)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == data


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    seen = []

    def write(beside):
        beside.write_text("new, in part")
        seen.append((beside.parent, path.read_text()))

    write_atomically(path, write)
    assert seen == [(tmp_path, "old")]
    assert path.read_text() == "new, in part"


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt()])
def test_an_error_of_the_writer_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(beside):
        beside.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", TROUBLE, ids=str)
def test_a_full_disk_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(beside):
        beside.write_text("half")
        raise error

    with pytest.raises(RunFolderError) as caught:
        write_atomically(path, write)
    message = str(caught.value)
    assert str(path) in message
    assert "is intact" in message
    assert (getattr(error, "strerror", None) or "No space left on device") in message
    assert "\n" not in message
    assert caught.value.__cause__ is error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_is_full_only_at_the_end(tmp_path, monkeypatch, step):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(RunFolderError, match="No space left on device"):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunFolderError, match="Permission denied"):
        write_text(tmp_path / "new" / "a.txt", "x")


def test_a_read_only_disk_refuses_to_delete_as_well(tmp_path, monkeypatch):
    # Linux answers EROFS to unlink even where there is nothing to delete.
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RunFolderError, match="Read-only file system"):
        write_text(tmp_path / "a.txt", "x")


def test_another_error_of_the_disk_is_not_disguised(tmp_path):
    def write(beside):
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error") as caught:
        write_atomically(tmp_path / "a.txt", write)
    assert not isinstance(caught.value, RunFolderError)


# JSON lines

texts = st.text(st.characters(exclude_categories=["Cs"]))
some_rows = st.lists(
    st.fixed_dictionaries({"id": texts, "n": st.integers(), "maybe": st.none() | st.booleans()}),
    max_size=5,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lines")


@given(some_rows, some_rows)
def test_rows_come_back_as_they_were(folder, first, second):
    path = folder / "a.jsonl"
    path.unlink(missing_ok=True)
    append_jsonl(path, first)
    append_jsonl(path, second)
    assert read_jsonl(path) == first + second


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\r\n"])
def test_unicode_line_separators_do_not_cut_a_row(tmp_path, mark):
    row = {"id": "a", "prediction": f"one{mark}two"}
    append_jsonl(tmp_path / "a.jsonl", [row])
    assert read_jsonl(tmp_path / "a.jsonl") == [row]


def test_folders_are_made_and_a_missing_file_has_no_rows(tmp_path):
    path = tmp_path / "deep" / "a.jsonl"
    assert read_jsonl(path) == []
    append_jsonl(path, [{"a": 1}])
    assert read_jsonl(path) == [{"a": 1}]


@given(some_rows.filter(bool), st.data())
def test_a_line_cut_by_a_kill_costs_that_line_only(folder, rows, data):
    path = folder / "b.jsonl"
    path.unlink(missing_ok=True)
    append_jsonl(path, rows)
    content = path.read_bytes()
    # Anywhere within the last line, multi-byte characters included.
    start = content[:-1].rfind(b"\n") + 1
    cut = data.draw(st.integers(start, len(content) - 2))
    path.write_bytes(content[:cut])
    assert read_jsonl(path) == rows[:-1]
    append_jsonl(path, [{"id": "later"}])
    append_jsonl(path, [{"id": "last"}])
    assert read_jsonl(path) == [*rows[:-1], {"id": "later"}, {"id": "last"}]


def test_a_row_that_lacks_only_its_line_end_is_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}')
    assert read_jsonl(path) == [{"a": 1}]
    append_jsonl(path, [{"a": 2}])
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]


def test_lines_that_are_no_rows_are_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n3\n"x"\n[1]\n\xff\xfe\n{"a": 1}\n')
    assert read_jsonl(path) == [{"a": 1}]


def test_a_full_disk_leaves_the_earlier_rows(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    append_jsonl(path, [{"a": 1}])

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError) as caught:
        append_jsonl(path, [{"a": 2}])
    assert "No space left on device" in str(caught.value)
    assert str(path) in str(caught.value)
    assert read_jsonl(path)[0] == {"a": 1}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_disk_that_really_is_full(tmp_path):
    (tmp_path / "a.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunFolderError, match="No space left on device"):
        append_jsonl(tmp_path / "a.jsonl", [{"a": 1}])
    with pytest.raises(RunFolderError, match="No space left on device"):
        write_atomically(tmp_path / "b.txt", lambda to: Path("/dev/full").write_text("x"))
    assert names(tmp_path) == ["a.jsonl"]
