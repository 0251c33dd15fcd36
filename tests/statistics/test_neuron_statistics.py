import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import mmlens.statistics.neuron_statistics
from mmlens.errors import StatisticsError
from mmlens.statistics.accumulator import Accumulator, PositionIndex
from mmlens.statistics.neuron_statistics import (
    FIELDS,
    FORMAT,
    ModuleStatistics,
    NeuronStatistics,
    load_with_extra,
)

SHAPES = {"language": (2, 5), "vision": (3, 4)}
GROUPS = {"language": ("prompt", "image"), "vision": ("all",)}


def made(keys=("blue", "red"), seed=0, **changes):
    """Random statistics; a key's first group may be empty."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randint(0, 1000, shape, generator=generator)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    modules = {}
    for name, (layers, width) in SHAPES.items():
        shape = (len(keys), len(GROUPS[name]), layers, width)
        maximum = normal(*shape).float()
        minimum = maximum - normal(*shape).abs().float()
        maximum[:, 0, 0, 0], minimum[:, 0, 0, 0] = -torch.inf, torch.inf
        modules[name] = ModuleStatistics(
            positive=draw(*shape),
            total=normal(*shape),
            squares=normal(*shape).square(),
            maximum=maximum,
            minimum=minimum,
            tokens=draw(*shape[:2]) + 1000,
        )
    values = dict(
        modules=modules,
        keys=tuple(keys),
        groups=GROUPS,
        by="domain",
        samples=draw(len(keys)),
        skipped={f"s{seed}": "unreadable"},
        model_hash="hash",
    )
    return NeuronStatistics(**{**values, **changes})


def as_dict(statistics, module, field):
    """key -> values, as numpy."""
    value = getattr(statistics.modules[module], field).numpy()
    return {key: value[i] for i, key in enumerate(statistics.keys)}


def assert_same(a, b, exact=True):
    assert (a.keys, a.groups, a.by, a.model_hash) == (b.keys, b.groups, b.by, b.model_hash)
    assert dict(a.skipped) == dict(b.skipped)
    assert torch.equal(a.samples, b.samples)
    assert set(a.modules) == set(b.modules)
    for module in a.modules:
        for field in FIELDS:
            x, y = getattr(a.modules[module], field), getattr(b.modules[module], field)
            assert x.dtype == y.dtype
            assert x.shape == y.shape
            if exact or field in ("positive", "maximum", "minimum", "tokens"):
                assert torch.equal(x, y)
            else:
                torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


# Merging

key_sets = st.lists(st.sampled_from(["red", "blue", "green", "äh"]), unique=True, min_size=1).map(
    lambda keys: tuple(sorted(keys))
)


@given(key_sets, key_sets)
def test_a_sum_is_that_of_each_key(left, right):
    a, b = made(left, 1), made(right, 2)
    both = a + b
    assert both.keys == tuple(sorted(set(left) | set(right)))
    combine = dict(positive=np.add, total=np.add, squares=np.add, tokens=np.add)
    combine |= dict(maximum=np.maximum, minimum=np.minimum)
    for module in SHAPES:
        for field, operation in combine.items():
            x, y, z = (as_dict(one, module, field) for one in (a, b, both))
            for key in both.keys:
                parts = [one[key] for one in (x, y) if key in one]
                expected = parts[0] if len(parts) == 1 else operation(*parts)
                assert np.array_equal(z[key], expected)
    samples = dict(zip(both.keys, both.samples.tolist(), strict=True))
    for key in both.keys:
        expected = sum(int(one.samples[one.keys.index(key)]) for one in (a, b) if key in one.keys)
        assert samples[key] == expected
    assert dict(both.skipped) == {"s1": "unreadable", "s2": "unreadable"}
    assert_same(both, b + a)


@given(key_sets, key_sets, key_sets)
def test_the_order_of_merging_does_not_matter(one, two, three):
    a, b, c = made(one, 1), made(two, 2), made(three, 3)
    assert_same((a + b) + c, a + (b + c), exact=False)


def test_merging_leaves_its_parts_alone():
    a, b = made(seed=1), made(seed=2)
    before_a, before_b = made(seed=1), made(seed=2)
    total = a + b
    total.modules["language"].positive.zero_()
    assert_same(a, before_a)
    assert_same(b, before_b)


def test_nothing_is_neutral():
    a = made()
    nothing = NeuronStatistics(
        {n: ModuleStatistics.empty(2, len(GROUPS[n]), *SHAPES[n]) for n in SHAPES},
        a.keys,
        GROUPS,
        "domain",
        torch.zeros(2, dtype=torch.int64),
        {},
        "hash",
    )
    assert_same(a + nothing, a)


def test_counts_stay_exact_where_floats_would_not():
    big = made()
    for one in big.modules.values():
        one.positive.fill_(2**53)
        one.tokens.fill_(2**53)
    unit = made()
    for one in unit.modules.values():
        one.positive.fill_(1)
        one.tokens.fill_(1)
    total = (big + unit).modules["language"]
    assert (total.positive == 2**53 + 1).all()
    assert (total.tokens == 2**53 + 1).all()


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("model_hash", "other"),
        ("by", "source"),
        ("groups", {"language": ("image", "prompt"), "vision": ("all",)}),
    ],
)
def test_statistics_that_do_not_belong_together(what, value):
    with pytest.raises(StatisticsError) as caught:
        made() + made(**{what: value})
    assert what in str(caught.value)
    assert repr(value) in str(caught.value)


def test_statistics_of_other_shapes_do_not_add():
    a, b = made(), made()
    small = {n: ModuleStatistics.empty(2, len(GROUPS[n]), 1, 2) for n in SHAPES}
    with pytest.raises(StatisticsError, match=r"\(2, 2, 1, 2\) do not add"):
        a + replace(b, modules=small)


def test_only_statistics_add():
    with pytest.raises(TypeError):
        made() + 1


def test_keys_can_be_ordered_and_added_but_not_lost():
    a = made(("blue", "red"))
    more = a.with_keys(("red", "green", "blue"))
    assert more.keys == ("red", "green", "blue")
    for field in FIELDS:
        x, y = as_dict(a, "language", field), as_dict(more, "language", field)
        assert np.array_equal(x["red"], y["red"])
        assert np.array_equal(x["blue"], y["blue"])
        nothing = {"maximum": -np.inf, "minimum": np.inf}.get(field, 0)
        assert (y["green"] == nothing).all()
    assert more.samples.tolist() == [int(a.samples[1]), 0, int(a.samples[0])]
    with pytest.raises(StatisticsError, match=r"\['blue'\] would be lost"):
        a.with_keys(("red",))


# Counts


def test_counts_have_keys_last():
    a = made(("blue", "green", "red"))
    module = a.modules["language"]
    positive, tokens = a.counts("language", "image", ("red", "blue"))
    assert positive.shape == (2, 5, 2)
    assert tokens.tolist() == [int(module.tokens[2, 1]), int(module.tokens[0, 1])]
    for layer in range(2):
        for neuron in range(5):
            assert positive[layer, neuron].tolist() == [
                int(module.positive[2, 1, layer, neuron]),
                int(module.positive[0, 1, layer, neuron]),
            ]
    first, _ = a.counts("language")
    assert torch.equal(first, a.counts("language", "prompt", a.keys)[0])
    assert a.counts("vision")[0].shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("audio",), "Module 'audio' was not collected; there are language, vision"),
        (("vision", "image"), "Group 'image' was not collected for 'vision'; there are all"),
        (("language", None, ("pink",)), "domain 'pink' was not collected; there are blue, red"),
    ],
)
def test_counts_of_what_was_not_collected(arguments, message):
    with pytest.raises(StatisticsError, match=message):
        made().counts(*arguments)


def test_the_model_is_checked():
    made().check_model("hash")
    made(model_hash=None).check_model("anything")
    with pytest.raises(StatisticsError, match=r"another model \(weights hash.*has other"):
        made().check_model("other")


# Means and minima


def test_means_and_minima_pool_tokens_not_keys():
    values = {"blue": [[1.0, -2.0, 3.0]], "red": [[4.0, 0.5, 7.0], [-9.0, 2.0, 0.0], [1, 1, 1]]}
    one = ModuleStatistics.empty(2, 1, 1, 3)
    for row, tokens in enumerate(values.values()):
        columns = np.array(tokens, dtype=np.float64)
        one.total[row, 0, 0] = torch.from_numpy(columns.sum(0))
        one.minimum[row, 0, 0] = torch.from_numpy(columns.min(0)).float()
        one.tokens[row, 0] = len(columns)
    statistics = made(modules={"vision": one}, groups={"vision": ("all",)})
    everything = np.concatenate([np.array(t) for t in values.values()])
    np.testing.assert_allclose(statistics.means("vision")[0], everything.mean(0), rtol=1e-15)
    np.testing.assert_array_equal(statistics.minima("vision")[0], everything.min(0))
    np.testing.assert_allclose(
        statistics.means("vision", keys=("red",))[0], np.mean(values["red"], 0), rtol=1e-15
    )
    np.testing.assert_array_equal(statistics.minima("vision", "all", ("blue",))[0], [1, -2, 3])
    nothing = statistics.with_keys(("blue", "green", "red"))
    assert torch.equal(nothing.minima("vision"), statistics.minima("vision"))
    for values_of in (nothing.means, nothing.minima):
        with pytest.raises(StatisticsError, match="No token of group 'all' of 'vision'.*green"):
            values_of("vision", None, ("green",))
        with pytest.raises(StatisticsError, match="'language' was not collected"):
            values_of("language")


def test_other_sites_do_not_add_and_are_kept(tmp_path):
    glu = made(site="glu")
    with pytest.raises(StatisticsError, match="their site are 'act' and 'glu'"):
        made() + glu
    assert (glu + glu).site == "glu"
    glu.save(tmp_path / "a.safetensors")
    assert NeuronStatistics.load(tmp_path / "a.safetensors").site == "glu"
    assert made().site == "act"


# Files


@pytest.mark.parametrize("model_hash", ["hash", None])
def test_file_round_trip(tmp_path, model_hash):
    a = made(("blue", "äh"), model_hash=model_hash)
    path = tmp_path / "deep" / "a.safetensors"
    a.save(path, {"batches": [1, 2], "note": "ü"})
    again, extra = load_with_extra(path)
    assert_same(again, a)
    assert extra == {"batches": [1, 2], "note": "ü"}
    assert_same(NeuronStatistics.load(str(path)), a)
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


def test_special_values_keep_their_bits(tmp_path):
    a = made()
    one = a.modules["language"]
    one.total.view(-1)[:5] = torch.tensor(
        [torch.nan, torch.inf, -0.0, 5e-324, 1 + 2**-52], dtype=torch.float64
    )
    one.positive.view(-1)[:2] = torch.tensor([2**62 + 1, 0])
    a.save(tmp_path / "a.safetensors")
    again = NeuronStatistics.load(tmp_path / "a.safetensors").modules["language"]
    for field in FIELDS:
        x, y = getattr(one, field).contiguous(), getattr(again, field).contiguous()
        assert x.numpy().tobytes() == y.numpy().tobytes()


def test_reordered_statistics_can_be_saved(tmp_path):
    a = made().with_keys(("red", "blue"))
    turned = {
        n: ModuleStatistics(*(v.flip(0) for v in m.tensors().values()))
        for n, m in a.modules.items()
    }
    b = replace(a, modules=turned)
    b.save(tmp_path / "b.safetensors")
    assert_same(NeuronStatistics.load(tmp_path / "b.safetensors"), b)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        NeuronStatistics.load(tmp_path / "none.safetensors")


def test_files_of_another_format_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    for metadata in (None, {"mmlens": '{"format": "other/1"}'}):
        save_file({"x": torch.zeros(2)}, path, metadata=metadata)
        with pytest.raises(StatisticsError, match="not a statistics file"):
            NeuronStatistics.load(path)
    save_file({"x": torch.zeros(2)}, path, {"mmlens": '{"format": "mmlens.statistics/1"}'})
    with pytest.raises(StatisticsError, match="older mmlens, without the minima.*anew"):
        NeuronStatistics.load(path)


@pytest.mark.parametrize(
    "header",
    [
        "{not json",
        "[]",
        json.dumps({"format": FORMAT}),
        json.dumps({"format": FORMAT, "groups": {"language": ["all"]}}),
        json.dumps({"format": FORMAT, "groups": {}, "keys": []}),
    ],
)
def test_a_damaged_header_is_refused(tmp_path, header):
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(2)}, path, metadata={"mmlens": header})
    with pytest.raises(StatisticsError, match=r"a\.safetensors"):
        NeuronStatistics.load(path)


# Accumulation


def bent(x):
    """An activation with exact zeros and with values below zero."""
    return torch.where(x < -1, x, x.relu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("slice_size", [3, 40, 1 << 17])
def test_accumulated_statistics_are_those_of_the_tokens(monkeypatch, dtype, slice_size):
    monkeypatch.setitem(mmlens.statistics.accumulator._SLICE, "cpu", slice_size)
    rng = np.random.default_rng(0)
    layers, width, rows, positions = 2, 6, 3, 7
    statistics = ModuleStatistics.empty(3, 2, layers, width)
    accumulator = Accumulator(statistics, torch.device("cpu"))
    seen = {(key, group): [[] for _ in range(layers)] for key in range(3) for group in range(2)}
    for number in range(3):
        values = torch.from_numpy(rng.normal(size=(layers, rows, positions, width))).to(dtype)
        groups = torch.from_numpy(rng.random((2, rows, positions)) < 0.4)
        keys = torch.tensor([[0, 2, 0], [2, 2, 2], [0, 0, 2]][number])
        if number == 1:
            groups[0], groups[1] = True, False  # every position counts, for one key
        where = PositionIndex.of(groups, keys)
        accumulator.add_tokens(where)
        for layer in range(layers):
            accumulator.add(layer, values[layer], bent, where)
            for group in range(2):
                for row in range(rows):
                    for place in range(positions):
                        if groups[group, row, place]:
                            one = values[layer, row, place].double().numpy()
                            one = np.where(one < -1, one, one.clip(min=0))
                            seen[int(keys[row]), group][layer].append(one)
    got = accumulator.statistics()
    for (key, group), per_layer in seen.items():
        assert int(got.tokens[key, group]) == len(per_layer[0])
        for layer, activations in enumerate(per_layer):
            table = np.array(activations).reshape(-1, width)
            place = (key, group, layer)
            assert got.positive[place].tolist() == (table > 0).sum(0).tolist()
            np.testing.assert_allclose(got.total[place], table.sum(0), rtol=1e-6)
            np.testing.assert_allclose(got.squares[place], (table**2).sum(0), rtol=1e-6)
            expected = table.max(0) if len(table) else np.full(width, -np.inf)
            np.testing.assert_allclose(got.maximum[place], expected, rtol=1e-6)
            expected = table.min(0) if len(table) else np.full(width, np.inf)
            np.testing.assert_allclose(got.minimum[place], expected, rtol=1e-6)
    assert (statistics.positive == 0).all()  # where it went on from is unchanged


def test_a_batch_without_a_token_of_the_groups_counts_nothing():
    where = PositionIndex.of(torch.zeros((2, 3, 4), dtype=torch.bool), torch.tensor([0, 1, 0]))
    accumulator = Accumulator(ModuleStatistics.empty(2, 2, 1, 5), torch.device("cpu"))
    accumulator.add_tokens(where)
    accumulator.add(0, torch.ones(3, 4, 5), torch.relu, where)
    got = accumulator.statistics()
    assert not got.tokens.any()
    assert not got.positive.any()
    assert (got.maximum == -torch.inf).all()
    assert (got.minimum == torch.inf).all()
