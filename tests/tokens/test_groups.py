import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmlens.errors import SampleError
from mmlens.model.batch import Batch
from mmlens.tokens.groups import TokenGroups, TokenIds

IMAGE, AUDIO, BOS, EOS, PAD = 9, 8, 1, 2, 0
IDS = TokenIds({"image": IMAGE, "audio": AUDIO}, frozenset({BOS, EOS, PAD}))
KINDS = {IMAGE: "image", AUDIO: "audio", BOS: "special", EOS: "special", PAD: "special"}


@st.composite
def padded(draw):
    """(rows of real tokens, ids, attention, side): padded with an id that also occurs inside."""
    rows = draw(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8), min_size=1))
    width = max(map(len, rows)) + draw(st.integers(0, 2))
    side = draw(st.sampled_from(["left", "right"]))
    ids, attention = [], []
    for row in rows:
        fill = [draw(st.sampled_from([PAD, IMAGE]))] * (width - len(row))
        ones, zeros = [1] * len(row), [0] * len(fill)
        ids.append(fill + row if side == "left" else row + fill)
        attention.append(zeros + ones if side == "left" else ones + zeros)
    return rows, torch.tensor(ids), torch.tensor(attention), side


def expected_mask(rows, width, side, wanted):
    out = []
    for row in rows:
        flags, fill = [wanted(i, row) for i in range(len(row))], [False] * (width - len(row))
        out.append(fill + flags if side == "left" else flags + fill)
    return out


@given(padded())
def test_base_groups_partition_the_tokens(problem):
    rows, ids, attention, side = problem
    groups = TokenGroups.from_input_ids(ids, attention, IDS)
    width = ids.shape[1]
    assert groups.shape == ids.shape
    assert set(groups.base) == {"text", "special", "image", "audio"}
    for name in groups.base:
        want = expected_mask(
            rows, width, side, lambda i, row, name=name: KINDS.get(row[i], "text") == name
        )
        assert groups.mask(name).tolist() == want
    total = sum(mask.int() for mask in groups.base.values())
    assert torch.equal(total, attention.int())
    for name, count in groups.counts().items():
        kinds = [[KINDS.get(token, "text") for token in row] for row in rows]
        assert count.tolist() == [row.count(name) for row in kinds]


@given(padded())
def test_derived_groups(problem):
    rows, ids, attention, side = problem
    groups = TokenGroups.from_input_ids(ids, attention, IDS)

    def expected(wanted):
        return expected_mask(rows, ids.shape[1], side, wanted)

    assert groups.mask("prompt").tolist() == expected(lambda i, row: True)
    assert groups.mask("last").tolist() == expected(lambda i, row: i == len(row) - 1)
    assert groups.mask("special_text").tolist() == expected(
        lambda i, row: row[i] not in (IMAGE, AUDIO)
    )
    # A modality that exists, but not in this model.
    assert not groups.mask("video").any()
    stacked = groups.stack(["last", "image"])
    assert stacked.shape == (2, *ids.shape)
    assert torch.equal(stacked[0], groups.mask("last"))
    assert torch.equal(stacked[1], groups.mask("image"))


def test_without_an_attention_mask_every_token_is_real():
    groups = TokenGroups.from_input_ids(torch.tensor([[PAD, 5, IMAGE]]), None, IDS)
    assert groups.mask("prompt").all()
    assert groups.mask("special").tolist() == [[True, False, False]]
    assert groups.mask("last").tolist() == [[False, False, True]]


def test_a_row_of_padding_alone_has_no_last_token():
    ids = torch.tensor([[PAD, PAD], [5, 6]])
    groups = TokenGroups.from_input_ids(ids, torch.tensor([[0, 0], [1, 1]]), IDS)
    assert groups.mask("last").tolist() == [[False, False], [False, True]]


def test_a_model_without_special_tokens():
    groups = TokenGroups.from_input_ids(torch.tensor([[1, 9]]), None, TokenIds({}, frozenset()))
    assert groups.mask("text").all()
    assert not groups.mask("special").any()


def test_an_unknown_name_is_refused_with_the_known_ones():
    groups = TokenGroups.from_input_ids(torch.tensor([[5]]), None, IDS)
    with pytest.raises(SampleError) as caught:
        groups.mask("pictures")
    assert "'pictures'" in str(caught.value)
    for name in ("text", "special", "image", "audio", "prompt", "last", "special_text"):
        assert name in str(caught.value)
        assert name in groups.names
    with pytest.raises(SampleError, match="'pictures'"):
        groups.stack(["text", "pictures"])


def test_the_template_must_be_known():
    ids = torch.tensor([[1, 5, 6]])
    with pytest.raises(SampleError, match="'template' is known only"):
        TokenGroups.from_input_ids(ids, None, IDS).mask("template")
    flags = torch.tensor([[False, True, False]])
    groups = TokenGroups.from_input_ids(ids, None, IDS, flags)
    assert torch.equal(groups.mask("template"), flags)
    assert torch.equal(groups.to("cpu").mask("template"), flags)


@given(padded())
def test_padding_turned_to_the_left(problem):
    rows, ids, attention, side = problem
    template = (ids == 5) & attention.bool()
    groups = TokenGroups.from_input_ids(ids, attention, IDS, template)
    other = torch.arange(3.0)
    positions = torch.arange(ids.numel()).view(ids.shape)
    inputs = {
        "input_ids": ids,
        "attention_mask": attention,
        "pixel_values": other,
        "position_ids": positions,
        "use_cache": False,
    }
    batch = Batch(inputs, groups, features={"image": torch.tensor([len(r) for r in rows])})
    turned = batch.left_padded()
    width = ids.shape[1]
    assert turned.inputs["attention_mask"].tolist() == expected_mask(
        rows, width, "left", lambda i, row: True
    )
    for number, row in enumerate(rows):
        here = turned.groups.attention[number]
        assert turned.input_ids[number][here].tolist() == row
        # What stood beside a token stands beside it still.
        before = positions[number][attention[number].bool()]
        assert torch.equal(turned.inputs["position_ids"][number][here], before)
        # Nothing is lost, padding included.
        assert sorted(turned.input_ids[number].tolist()) == sorted(ids[number].tolist())
    for name in ("text", "special", "image", "audio", "last", "template", "prompt"):
        want = expected_mask(
            rows,
            width,
            "left",
            lambda i, row, name=name: {
                "last": i == len(row) - 1,
                "template": row[i] == 5,
                "prompt": True,
            }.get(name, KINDS.get(row[i], "text") == name),
        )
        assert turned.groups.mask(name).tolist() == want
    assert turned.inputs["pixel_values"] is other
    assert turned.inputs["use_cache"] is False
    assert turned.features is batch.features
    if side == "left":
        assert torch.equal(turned.input_ids, ids)
    # The batch given is unchanged.
    assert torch.equal(batch.input_ids, ids)
    assert len(turned) == len(rows)
    assert turned.shape == ids.shape


def test_left_padding_without_a_known_template():
    ids, attention = torch.tensor([[5, PAD], [6, 7]]), torch.tensor([[1, 0], [1, 1]])
    groups = TokenGroups.from_input_ids(ids, attention, IDS)
    batch = Batch({"input_ids": ids, "attention_mask": attention}, groups)
    turned = batch.left_padded()
    assert turned.input_ids.tolist() == [[PAD, 5], [6, 7]]
    assert turned.groups.template_text is None
    assert batch.to("cpu").input_ids.tolist() == ids.tolist()
