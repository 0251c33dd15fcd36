"""MMLU (Hendrycks et al., arXiv 2009.03300): four-option questions of 57 subjects, text alone.

Official layout (of the archive, with or without its folder ``data/``)::

    data/dev/abstract_algebra_dev.csv       five questions of each subject, to be shown with answers
    data/val/abstract_algebra_val.csv
    data/test/abstract_algebra_test.csv     no header: question, A, B, C, D, letter of the answer

From Hugging Face: cais/mmlu, configuration "all" (``question, subject, choices, answer``, a number from
0), with its split dev beside the one that is asked. Ids are the subject and the number of the question
in it, from 0, in both forms.

Each question comes after up to five of its subject from dev, in their order: as many as keep the whole
prompt within 2,048 tokens (methods 3.6). MINER counts tokens of GPT-2, whose vocabulary is not ours to
ship; give ``count_tokens``, a function from a text to its number of tokens, to count with it or with
the model's own tokenizer. Without it :func:`estimated_tokens` is used, which rarely counts too few: a
long prompt may then have a question less than MINER's.

MINER asks the 14,042 questions of test, and finds its neurons on the same. Here neurons are found on
val. Questions have no medium: there is none to miss, and any model takes them that can do without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmlens.datasets.folders import check_columns, checked_folder, nothing_found, read_csv
from mmlens.datasets.prompts import Prompt, lettered, shown
from mmlens.datasets.rows import Benchmark, Row, Rows
from mmlens.datasets.tables import find_table, hub_aliases
from mmlens.errors import SampleError

#: Tokens that a prompt may have.
LONGEST = 2048
_LETTERS = "ABCD"
_COLUMNS = ("question", "subject", "choices", "answer")
_PIECE = re.compile(r"[A-Za-z]+|\n|[^\sA-Za-z]")

#: Subject -> its questions in order: question, options, number of the right one.
_Subjects = dict[str, list[tuple[str, tuple[str, ...], int]]]


def estimated_tokens(text: str) -> int:
    """GPT-2 tokens of an English text, rarely too few (ours).

    One for every four letters of a word, rounded up; one for each digit, line break and other
    character; as many as its bytes in UTF-8 for a character outside ASCII; spaces go with what follows.
    Against GPT-2's own count this gave 1.12 to 1.24 times as many on English prose, and 1.13 and 1.16
    times on questions of mathematics and medicine like those of MMLU; on program code 0.93 times.

    >>> estimated_tokens("Answer: 12")
    5
    """
    pieces = _PIECE.findall(text)
    return sum(-(-len(one) // 4) if one.isascii() else len(one.encode()) for one in pieces)


def rows(
    source: Any,
    split: str,
    *,
    shots: str = "5",
    count_tokens: Callable[[str], int] = estimated_tokens,
) -> Rows:
    """The questions of a split, each with answered ones of its subject.

    Args:
        source: a folder, or a Hugging Face data set with all its splits.
        split: ``dev``, ``val`` or ``test``.
        shots: answered questions at most, ``"5"`` to ``"0"``.
        count_tokens: text to its number of tokens.

    Raises:
        SampleError: a file, column or value is missing, or the answered questions are.
    """
    if int(shots) and split == "dev":
        raise SampleError(
            "MMLU's split 'dev' is what is shown with answers, so nothing is left to show before it; "
            "give shots='0', or another split."
        )
    asked = _subjects(source, split)
    answered = _subjects(source, "dev", beside=split) if int(shots) else {}
    if lacking := sorted(set(asked) - set(answered)) if int(shots) else []:
        raise SampleError(
            f"MMLU's split 'dev' has no questions of {', '.join(lacking[:3])} to show with answers; "
            "give its files, or shots='0'."
        )
    numbers = [(subject, i) for subject, questions in asked.items() for i in range(len(questions))]

    def build(n: int) -> Row:
        subject, i = numbers[n]
        question, choices, right = asked[subject][i]
        examples = [
            lettered(text, options, _LETTERS[number])
            for text, options, number in answered.get(subject, [])[: int(shots)]
        ]
        asked_last = lettered(question, choices)
        while examples and count_tokens(shown(subject, examples, asked_last)) > LONGEST:
            examples.pop()
        return Row(
            question=question,
            answers=(_LETTERS[right], choices[right]),
            choices=choices,
            examples=tuple(examples),
            fields={
                "source": subject,
                "question_id": f"{subject}/{i}",
                "subject": subject,
                "letter": _LETTERS[right],
                "shots": len(examples),
            },
        )

    ids = [f"{subject}/{i}" for subject, i in numbers]
    return Rows(ids, ids, build)


def _text(row: Row, prompt: Prompt) -> str:
    if prompt == "bare":
        return row.question
    return shown(row.fields["subject"], row.examples, lettered(row.question, row.choices))


def _subjects(source: Any, split: str, beside: str | None = None) -> _Subjects:
    """The questions of a split by subject, subjects in the order of the files."""
    if not isinstance(source, str | Path):
        if beside is not None and not isinstance(source, Mapping):
            raise SampleError(
                f"One split of MMLU was given; its questions are asked after some of 'dev', so give all "
                f"splits (a DatasetDict with dev and {beside}), or shots='0'."
            )
        return _from_table(source, split)
    folder = checked_folder(source, "MMLU")
    for place in (folder / "data" / split, folder / split):
        if files := sorted(place.glob(f"*_{split}.csv")):
            return {file.stem.removesuffix(f"_{split}"): _from_csv(file) for file in files}
    for place in (folder, folder / "all"):
        if beside is None or not (place / "state.json").is_file():
            found = _from_table(str(place), split)
            if found:
                return found
    missing = f"data/{split}/*_{split}.csv or {split}-*.parquet"
    raise nothing_found(folder, missing, f"MMLU, {split}")


def _from_csv(file: Path) -> list[tuple[str, tuple[str, ...], int]]:
    # "None" and "N/A" are options here, not holes.
    data = read_csv(file, header=None, keep_default_na=False)
    if data.shape[1] != 6:
        raise SampleError(
            f"{file} has {data.shape[1]} columns; MMLU's have 6 and no header: question, A, B, C, D, "
            "letter of the answer."
        )
    return [
        (str(row[0]), tuple(map(str, row[1:5])), _number(row[5], f"Row {n} of {file}"))
        for n, row in enumerate(data.itertuples(index=False, name=None))
    ]


def _from_table(source: Any, split: str) -> _Subjects:
    table = find_table(source, split, hub_aliases(split))
    if table is None:
        return {}
    check_columns(table.names, _COLUMNS, table.where)
    found: _Subjects = {}
    columns = [table.column(name) for name in _COLUMNS]
    for n, (question, subject, choices, answer) in enumerate(zip(*columns, strict=True)):
        where = f"Row {n} of {table.where}"
        if len(choices) != len(_LETTERS):
            raise SampleError(f"{where} has {len(choices)} choices; MMLU's have 4.")
        one = (str(question), tuple(map(str, choices)), _number(answer, where))
        found.setdefault(str(subject), []).append(one)
    return found


def _number(answer: Any, where: str) -> int:
    allowed: Sequence[Any] = [*_LETTERS, *range(len(_LETTERS))]
    given = answer.strip() if isinstance(answer, str) else answer
    if given not in allowed:
        raise SampleError(
            f"{where} has the answer {answer!r}; give a letter from A to D, or 0 to 3."
        )
    return list(allowed).index(given) % len(_LETTERS)


BENCHMARK = Benchmark(
    name="mmlu",
    title="MMLU",
    domain="mmlu",
    splits=("dev", "val", "test"),
    paper_splits=("val", "test"),
    metric="first_letter",
    paper_metric="first_letter",
    rows=rows,
    text=_text,
    modalities=(),
    sizes={"dev": 285, "val": 1531, "test": 14042},
    options={"shots": ("5", "4", "3", "2", "1", "0")},
    functions=("count_tokens",),
)
