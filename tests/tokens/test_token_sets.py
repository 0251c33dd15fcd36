"""The split types cover every token once, in MINER's order, and refuse what they do not know."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmlens.errors import SampleError
from mmlens.tokens.groups import TokenGroups, TokenIds
from mmlens.tokens.token_sets import MEDIA_GROUPS, SLOTS, SPLIT_TYPES, split_groups

IDS = TokenIds({"image": 9, "video": 8, "audio": 7}, frozenset({1, 2}))


@pytest.mark.parametrize(
    ("split", "groups"),
    [
        ("prompt", ("prompt",)),
        ("special_text_as_one", ("special_text", "image", "video")),
        ("special_text_separate", ("text", "special", "image", "video")),
    ],
)
def test_the_groups_of_each_split_type(split, groups):
    assert split_groups(split, ["video", "image"]) == groups
    assert split_groups(split, {"image", "video"}) == groups


def test_a_model_of_text_alone_has_no_media_groups():
    assert [split_groups(split, ()) for split in SPLIT_TYPES] == [
        ("prompt",),
        ("special_text",),
        ("text", "special"),
    ]


@given(st.lists(st.lists(st.integers(0, 9), min_size=6, max_size=6), min_size=1, max_size=4))
def test_every_split_covers_every_token_once(rows):
    ids = torch.tensor(rows)
    attention = ids != 0
    groups = TokenGroups.from_input_ids(ids, attention, IDS)
    for split in SPLIT_TYPES:
        names = split_groups(split, MEDIA_GROUPS)
        assert torch.equal(groups.stack(names).sum(0), attention.long()), split
        assert [SLOTS.index(name) for name in names] == sorted(SLOTS.index(n) for n in names)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(SampleError, match="'paper'.*special_text_separate"):
        split_groups("paper", ["image"])
    with pytest.raises(SampleError, match="'special' is no group of a medium.*image, video, audio"):
        split_groups("special_text_separate", ["image", "special"])
    # Media are checked even where the split does not use them.
    with pytest.raises(SampleError, match="'picture'"):
        split_groups("prompt", ["picture"])
