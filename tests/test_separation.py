"""Prompts with their groups highlighted, and counts of the groups, for every family and two demos."""

import copy
import re
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import mmlens
from mmlens.data.samples import Sample
from mmlens.errors import SampleError, TooManyFailuresError
from mmlens.model.batch import Batch
from mmlens.report.parts import section_html
from mmlens.report.prompt import Piece, Prompt, visible
from mmlens.report.sections import Table
from mmlens.separation import counts_table, separation_section, splits_table
from mmlens.streaming.batching import Batching
from mmlens.tokens.groups import TokenGroups, TokenIds
from tests.helpers import models as shared
from tests.helpers.models import spliced
from tests.tiny import NAMES, family

QUIET = {"batching": Batching(progress=False)}


@cache
def demo(name):
    return shared.demo(name.removeprefix("demo/")), mmlens.load_samples(name, "test")[::400]


class Spans(HTMLParser):
    """The spans of a prompt's tokens as [group, what it says], and all tags."""

    def __init__(self, page):
        super().__init__()
        self.spans, self.tags, self.inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "span":
            self.spans.append([dict(attrs)["class"].removeprefix("t "), ""])
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "span"

    def handle_data(self, data):
        if self.inside:
            self.spans[-1][1] += data


def group_of(model, token):
    """The group by its id alone, told anew."""
    ids = model.adapter.token_ids(model.tokenizer)
    named = {token_id: group for group, token_id in ids.placeholders.items()}
    return named.get(token, "special" if token in ids.special else "text")


@pytest.mark.parametrize("name", NAMES)
def test_every_token_is_shown_once_in_its_group(name):
    model = spliced(name)
    batch = model.prepare(family(name).samples())
    for row in range(len(batch)):
        shown = mmlens.show_groups(model, batch, row)
        attention = batch.inputs["attention_mask"][row].bool()
        real = attention.nonzero()[:, 0].tolist()
        ids = batch.input_ids[row].tolist()
        assert [p.position + i for p in shown.pieces for i in range(p.count)] == real
        for piece in shown.pieces:
            inside = ids[piece.position : piece.position + piece.count]
            assert {group_of(model, token) for token in inside} == {piece.group}
            if piece.group in ("text", "special"):
                assert piece.count == 1
                raw = model.tokenizer.convert_ids_to_tokens(inside[0])
                assert piece.text == raw.replace(" ", "\u2423")
        # No two runs of one medium touch.
        for one, next_one in zip(shown.pieces, shown.pieces[1:], strict=False):
            assert one.group in ("text", "special") or one.group != next_one.group
        assert shown.counts == Counter(group_of(model, ids[p]) for p in real)


@pytest.mark.parametrize("name", NAMES)
def test_html_and_text_say_the_same_groups(name):
    model = spliced(name)
    batch = model.prepare(family(name).samples()[:1])
    shown = mmlens.show_groups(model, batch)
    page = shown._repr_html_()
    assert page.startswith("<style>")
    legend, body = page[page.index("<div") :].split('<p class="tokens">')
    counts = re.findall(r'<li><span class="t (\w+)">\1</span> ([\d,]+) token', legend)
    assert {group: int(n.replace(",", "")) for group, n in counts} == dict(shown.counts)
    spans = Spans(body).spans
    assert [group for group, _ in spans] == [p.group for p in shown.pieces]
    assert [said for _, said in spans] == [p.said for p in shown.pieces]
    media = [p for p in shown.pieces if p.group not in ("text", "special")]
    assert media
    for piece in media:
        assert f"{piece.group} \u00d7 {piece.count:,}" in body
        assert f"[{piece.group} \u00d7 {piece.count:,}]" in str(shown)
    assert f"together {batch.shape[1]:,} tokens" in str(shown)


def test_demo_prompt_with_a_pair_and_with_a_video():
    model, samples = demo("demo/qwen2-vl")
    pair = next(s for s in samples if len(s.images) == 2)
    video = next(s for s in samples if s.videos)
    batch = model.prepare([pair, video])
    first, second = (mmlens.show_groups(model, batch, row) for row in (0, 1))
    assert [p.group for p in first.pieces].count("image") == 2
    assert [p.group for p in second.pieces].count("video") == 1
    assert "video" not in first.counts
    assert first.title == f"Sample {pair.id}"
    # The words between the marks are the question's, the rest of the text is the template's.
    question = len(model.tokenizer(pair.text, add_special_tokens=False)["input_ids"])
    assert first.template == first.counts["text"] - question
    assert f"{first.template} of them written by the template" in str(first)


def test_padding_is_not_shown_on_either_side():
    model, samples = demo("demo/qwen2-audio")
    batch = model.prepare(list(samples[:6]))
    assert not bool(batch.groups.attention.all())
    for row, sample in enumerate(samples[:6]):
        alone = mmlens.show_groups(model, model.prepare([sample]))
        together = mmlens.show_groups(model, batch, row)
        assert [p.said for p in together.pieces] == [p.said for p in alone.pieces]


def test_plain_inputs_are_shown_without_sample_and_template():
    model, samples = demo("demo/qwen2-vl")
    batch = model.prepare([samples[0]])
    plain = mmlens.show_groups(model, dict(batch.inputs))
    assert plain.title == ""
    assert plain.template is None
    assert plain.pieces == mmlens.show_groups(model, batch).pieces
    assert "template" not in str(plain)


@pytest.mark.parametrize("row", [-1, 1])
def test_a_row_that_is_not_there_is_refused(row):
    model, samples = demo("demo/qwen2-vl")
    with pytest.raises(SampleError, match=f"rows 0 to 0, and row {row} was asked for"):
        mmlens.show_groups(model, model.prepare([samples[0]]), row)


def byte_level(text):
    """A tokenizer with a token for every byte, as byte-level BPE writes them, and no merges."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    return fast, fast(text)["input_ids"]


def test_blanks_line_ends_and_markup_are_visible_and_harmless():
    said = "<b>a</b>\n \t&\r\x00"
    tokenizer, ids = byte_level(said)
    model = copy.copy(demo("demo/qwen2-vl")[0])
    model.processor = SimpleNamespace(tokenizer=tokenizer)
    tokens = torch.tensor([ids])
    groups = TokenGroups.from_input_ids(tokens, None, TokenIds({}, frozenset()))
    shown = mmlens.show_groups(model, Batch({"input_ids": tokens}, groups))
    expected = [*"<b>a</b>", "\u21b5", "\u2423", "\u21e5", "&", "\u240d", "\\u0000"]
    assert [p.text for p in shown.pieces] == expected
    parsed = Spans(shown.html().split('<p class="tokens">')[1])
    assert [text for _, text in parsed.spans] == expected
    assert "b" not in parsed.tags
    # A new line begins behind a line end, and only there.
    assert parsed.tags.count("br") == 1
    assert "\u21b5\n\u2423" in str(shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b\n", "a\u2423b\u21b5"),
        ("\u202eabc", "\\u202eabc"),  # would turn the rest of the page around
        ("\u200b\ufeff", "\\u200b\\ufeff"),
        ("\u00a0\u3000", "\\u00a0\\u3000"),
        ("日本 né", "日本\u2423né"),
    ],
)
def test_nothing_is_unseen(text, shown):
    assert visible(text) == shown


def test_a_prompt_alone_is_plain_data():
    pieces = (
        Piece("text", "a", 3),
        Piece("image", "image", 4, 1234),
        Piece("special", "<s>", 1238),
    )
    prompt = Prompt("T", pieces)
    assert list(prompt.counts.items()) == [("text", 1), ("special", 1), ("image", 1234)]
    assert str(prompt) == (
        "T\ntext 1 token, special 1 token, image 1,234 tokens; together 1,236 tokens\n"
        "a [image \u00d7 1,234] [<s>]"
    )
    assert 'title="image, positions 4 to 1237"' in prompt.html()
    assert "&lt;s&gt;" in prompt.html()


# Counts


@pytest.mark.parametrize("name", NAMES)
def test_counts_equal_those_of_each_prompt(name):
    model, samples = spliced(name), family(name).samples()
    frame = mmlens.group_counts(model, samples, **QUIET)
    assert frame.attrs == {}
    for domain in sorted({s.domain for s in samples}):
        each = []
        for sample in (s for s in samples if s.domain == domain):
            ids = model.prepare([sample]).input_ids[0].tolist()
            found = Counter(group_of(model, token) for token in ids)
            found["special_text"] = found["special"] + found["text"]
            found["prompt"] = len(ids)
            each.append(found)
        rows = frame[frame.dataset == domain].set_index("group")
        groups = ["text", "special", "special_text", *model.adapter.placeholders(), "prompt"]
        assert sorted(rows.index) == sorted(groups)
        for group, row in rows.iterrows():
            counts = [found[group] for found in each]
            total = sum(found["prompt"] for found in each)
            assert (row.n_samples, row.n_skipped, row.tokens) == (len(each), 0, sum(counts))
            assert row.mean_tokens == pytest.approx(sum(counts) / len(each), rel=1e-12)
            assert row.share == pytest.approx(sum(counts) / total, rel=1e-12)
            assert row.n_without == counts.count(0)


def test_counts_by_another_field_and_what_is_refused():
    model, samples = demo("demo/qwen2-audio")
    named = [
        Sample(s.id, s.text, audios=s.audios, fields={"set": str(i % 2)})
        for i, s in enumerate(samples)
    ]
    frame = mmlens.group_counts(model, named, by="set", **QUIET)
    assert list(frame.groupby("dataset").n_samples.first()) == [
        len(named[::2]),
        len(named[1::2]),
    ]
    with pytest.raises(SampleError, match="no value for field 'domain'"):
        mmlens.group_counts(model, named, **QUIET)
    with pytest.raises(SampleError, match="none was given"):
        mmlens.group_counts(model, [], **QUIET)


def test_unreadable_samples_are_left_out_and_counted_up_to_a_cap():
    model, samples = demo("demo/qwen2-audio")
    torn = Sample("torn", "what?", audios=(b"no sound",), domain=samples[0].domain)
    kept = list(samples[:4])
    frame = mmlens.group_counts(
        model, [torn, *kept], batching=Batching(max_failures=0.2, progress=False)
    )
    plain = mmlens.group_counts(model, kept, **QUIET)
    assert frame.drop(columns="n_skipped").equals(plain.drop(columns="n_skipped"))
    assert set(frame[frame.dataset == torn.domain].n_skipped) == {1}
    with pytest.raises(TooManyFailuresError, match="'torn'"):
        mmlens.group_counts(
            model, [torn, *kept], batching=Batching(max_failures=0.1, progress=False)
        )


def test_the_section_shows_counts_split_types_and_every_kind_of_prompt():
    model, samples = demo("demo/qwen2-vl")
    section = separation_section(model, samples, **QUIET)
    prompts = [part for part in section.parts if isinstance(part, Prompt)]
    domains = sorted({s.domain for s in samples if s.domain})
    assert [p.title.split(",")[0] for p in prompts][: len(domains)] == domains
    assert any("video" in p.counts for p in prompts)
    tables = [part for part in section.parts if isinstance(part, Table)]
    assert [list(t.frame.columns) for t in tables] == [
        ["data set", "samples", "text", "special", "special_text", "image", "video", "prompt"],
        ["split type", "sets", "tokens per sample"],
    ]
    html = section_html(section)
    assert html.count('<p class="tokens">') == len(prompts)
    counts = mmlens.group_counts(model, samples, **QUIET)
    image = counts[(counts.dataset == domains[0]) & (counts.group == "image")].iloc[0]
    assert f"{image.mean_tokens:.1f} ({100 * image.share:.0f}%)\n{image.n_without} without" in html


def test_tables_of_counts_as_they_are_read():
    model, samples = demo("demo/qwen2-audio")
    counts = mmlens.group_counts(model, samples, **QUIET)
    assert list(counts_table(counts)["data set"]) == sorted({s.domain for s in samples})
    splits = splits_table(counts)
    assert list(splits["sets"]) == ["1", "2", "3"]
    total = counts[counts.group == "prompt"].tokens.sum() / len(samples)
    assert splits["tokens per sample"][0].value == f"prompt {total:.1f}"
    for cell in splits["tokens per sample"][1:]:
        numbers = [float(n) for n in re.findall(r"[\d.]+", cell.value)]
        assert sum(numbers) == pytest.approx(total, abs=0.16)  # each is rounded to a tenth
