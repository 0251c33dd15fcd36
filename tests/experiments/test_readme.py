"""What the README shows works as it stands there."""

import re
from pathlib import Path
from pkgutil import resolve_name

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_notebook_example_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it writes its page of cards where it runs
    for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if line.startswith("['")]) == 2
    assert any("image" in line and "text" in line for line in said)
    assert [path.name for path in tmp_path.iterdir()] == ["cards.html"]


def test_files_and_targets_it_names_exist():
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for module in re.findall(r"python -m ([\w.]+)", README):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_what_it_says_is_computed_somewhere_is_there():
    named = set(re.findall(r"`(mmlens(?:\.\w+)+)`", README))
    assert len(named) > 10
    for name in named:
        assert resolve_name(name), name
