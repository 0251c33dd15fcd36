"""Lingo-Judge: what it reads, its threshold, the best reference, and a judge that is not there."""

import math
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.metrics import lingo_judge as module
from mmlens.metrics.lingo_judge import (
    MAX_TOKENS,
    LingoJudge,
    any_row_right,
    judge_logits,
    load_lingo_judge,
)
from mmlens.metrics.scoring import scorer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "Question:", "Answer:", "Student:", *"abcdefgh"]


def tokenizer():
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]"
    )


def classifier(labels=1, seed=0):
    torch.manual_seed(seed)
    config = DebertaV2Config(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=MAX_TOKENS,
        num_labels=labels,
        initializer_range=0.7,
    )
    return DebertaV2ForSequenceClassification(config).eval()


@pytest.fixture(scope="module")
def judge():
    return LingoJudge(classifier(), tokenizer())


def by_hand(judge, question, reference, prediction):
    """One text, tokenized by a dictionary, without padding."""
    text = f"[CLS]\nQuestion: {question}\nAnswer: {reference}\nStudent: {prediction}"
    ids = [WORDS.index(word) for word in text.split()][:MAX_TOKENS]
    with torch.no_grad():
        return judge.model(input_ids=torch.tensor([ids])).logits.item()


def test_each_reference_is_judged_as_if_alone(judge):
    references = ["a", "b c d e f g", "h"]
    expected = [by_hand(judge, "a b", one, "c") for one in references]
    assert judge_logits(judge, "a b", references, "c").tolist() == pytest.approx(expected, abs=1e-5)
    assert len({round(one, 3) for one in expected}) == 3


def test_the_best_reference_counts_and_half_is_the_threshold(judge):
    # The middle puts right and wrong answers on both sides of the threshold.
    cases = [(q, [a, b], "c") for q in "ad" for a in "bef" for b in "agh"]
    bests = [max(by_hand(judge, q, one, said) for one in rs) for q, rs, said in cases]
    centred = classifier()
    with torch.no_grad():
        centred.classifier.bias -= sum(sorted(bests)[8:10]) / 2
    judge = LingoJudge(centred, judge.tokenizer)
    scores = []
    assert len(cases) == 18
    for question, references, said in cases:
        best = max(by_hand(judge, question, one, said) for one in references)
        sure = judge.probability(question, references, said)
        assert sure == pytest.approx(1 / (1 + math.exp(-best)), abs=1e-5)
        scores.append(judge.score(question, references, said))
        assert scores[-1] == float(best > 0)
    assert set(scores) == {0.0, 1.0}


def test_long_answers_are_cut(judge):
    long = " ".join("ab" * 200)
    assert judge_logits(judge, "a", ["b"], long).item() == pytest.approx(
        by_hand(judge, "a", "b", long), abs=1e-5
    )


def test_the_judge_reads_the_question_without_its_prompt(monkeypatch):
    read = []
    spy = SimpleNamespace(score=lambda *args: read.append(args) or 1.0)
    monkeypatch.setattr("mmlens.metrics.scoring.load_lingo_judge", lambda: spy)
    score = scorer("lingo_judge")
    sample = Sample("q", "long prompt: a b", answers=("c", "d"), fields={"question": "a b"})
    assert score("e", sample) == 1.0
    assert score("e", Sample("r", "a b", answers=("c",))) == 1.0
    assert read == [("a b", ("c", "d"), "e"), ("a b", ("c",), "e")]


def test_a_judge_from_a_folder(judge, tmp_path):
    judge.model.save_pretrained(tmp_path)
    judge.tokenizer.save_pretrained(tmp_path)
    loaded = load_lingo_judge(str(tmp_path), device="cpu")
    assert not loaded.model.training
    # Threads sum in another order from one run to the next.
    wanted = pytest.approx(judge.probability("a", ["b"], "c"), rel=1e-4)
    assert loaded.probability("a", ["b"], "c") == wanted


def test_a_judge_that_is_not_there(tmp_path):
    with pytest.raises(SampleError, match="needs the model .*, which is not on this machine"):
        load_lingo_judge(str(tmp_path))
    with pytest.raises(SampleError, match=f"needs the model {module.PUBLISHED}"):
        scorer("lingo_judge")


def test_what_is_no_judge(judge):
    with pytest.raises(SampleError, match="at least one reference"):
        judge.probability("a", [], "b")
    with pytest.raises(SampleError, match="gives 2 numbers for a text; Lingo-Judge gives one"):
        LingoJudge(classifier(labels=2), tokenizer()).probability("a", ["b"], "c")


def test_a_question_is_right_if_any_row_is():
    scores = [0.0, 0.7, 0.5, 0.2, 1.0, 1.0]
    assert any_row_right(scores, ["a", "a", "b", "b", "c", "c"]) == pytest.approx(2 / 3)
    assert any_row_right([1.0, 0.0], ["a", "a"]) == 1.0
    with pytest.raises(SampleError, match="2 scores with 1 questions"):
        any_row_right([1.0, 0.0], ["a"])
    with pytest.raises(SampleError, match="0 scores"):
        any_row_right([], [])
