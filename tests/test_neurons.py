import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmlens.errors import StatisticsError
from mmlens.neurons import NeuronSet

SHAPE = (3, 5)
EVERYTHING = {(layer, index) for layer in range(3) for index in range(5)}
pair = st.tuples(st.integers(0, 2), st.integers(0, 4))
some_pairs = st.lists(pair, max_size=20)


def of(pairs, module="language", shape=SHAPE, model_hash=None):
    return NeuronSet(pairs, module, shape, model_hash)


def as_python(neurons):
    return {tuple(row) for row in neurons.pairs().tolist()}


@given(some_pairs, some_pairs)
def test_the_algebra_is_that_of_python_sets(a, b):
    x, y, p, q = of(a), of(b), set(a), set(b)
    assert as_python(x | y) == p | q
    assert as_python(x & y) == p & q
    assert as_python(x - y) == p - q
    assert as_python(x ^ y) == p ^ q
    assert as_python(~x) == EVERYTHING - p
    assert len(x) == len(p)
    assert list(x) == sorted(p)
    assert (x == y) == (p == q)
    for one in EVERYTHING:
        assert (one in x) == (one in p)
    # The operands are unchanged.
    assert as_python(x) == p
    assert as_python(y) == q


@given(some_pairs)
def test_pairs_mask_and_layers_agree(pairs):
    x, expected = of(pairs), set(pairs)
    assert x.pairs().tolist() == [list(one) for one in sorted(expected)]
    mask = x.mask()
    assert mask.shape == SHAPE
    assert mask.dtype == torch.bool
    for layer, index in EVERYTHING:
        assert bool(mask[layer, index]) == ((layer, index) in expected)
    assert NeuronSet.from_mask(mask, "language") == x
    layers = {layer: indices.tolist() for layer, indices in x.per_layer().items()}
    by_layer = {}
    for layer, index in sorted(expected):
        by_layer.setdefault(layer, []).append(index)
    assert layers == by_layer


@given(some_pairs, st.randoms())
def test_order_and_repetition_do_not_matter(pairs, random):
    shuffled = pairs + pairs[:3]
    random.shuffle(shuffled)
    a, b = of(pairs), of(shuffled)
    assert a == b
    assert hash(a) == hash(b)
    assert len({a, b}) == 1


def test_every_form_of_pairs_is_taken():
    pairs = [(0, 4), (2, 1), (0, 4)]
    forms = [
        pairs,
        iter(pairs),
        (list(one) for one in pairs),
        torch.tensor(pairs),
        np.array(pairs),
        np.array(pairs, dtype=np.int32),
        torch.tensor(pairs, dtype=torch.int32),
    ]
    for form in forms:
        assert as_python(of(form)) == set(pairs)
    empty = [[], torch.empty((0, 2), dtype=torch.int64), np.empty((0, 2), dtype=np.int64)]
    for form in empty:
        assert as_python(of(form)) == set()


def test_what_comes_out_cannot_change_the_set():
    x = of([(0, 1), (2, 3)])
    code = hash(x)
    x.pairs().fill_(0)
    x.mask().fill_(True)
    for indices in x.per_layer().values():
        indices.fill_(0)
    assert as_python(x) == {(0, 1), (2, 3)}
    assert hash(x) == code
    with pytest.raises((AttributeError, TypeError)):
        x.module = "vision"


def test_the_source_may_change_afterwards():
    source = np.array([[0, 1], [1, 2]])
    x = of(source)
    source[:] = 0
    assert as_python(x) == {(0, 1), (1, 2)}


def test_sets_differ_by_module_shape_and_neurons():
    a = of([(0, 1)])
    assert a != of([(0, 2)])
    assert a != of([(0, 1)], module="vision")
    assert a != of([(0, 1)], shape=(3, 6))
    assert a != {(0, 1)}
    assert a == of([(0, 1)])


def test_membership_of_anything_else_is_false():
    x = of([(0, 1), (1, 0)])
    for other in [(0, 6), (3, 0), (-1, 1), (0, -1), 1, None, "01", (0, 1, 0), ()]:
        assert other not in x
    # (0, 6) would have the code of (1, 1), (1, -5) that of (0, 0).
    assert (1, -5) not in of([(0, 0)])
    assert (0, 6) not in of([(1, 1)])


@pytest.mark.parametrize(
    "other",
    [of([(0, 1)], module="vision"), of([(0, 1)], shape=(3, 6)), of([(0, 1)], shape=(4, 5))],
)
@pytest.mark.parametrize("operation", ["__or__", "__and__", "__sub__", "__xor__"])
def test_sets_of_different_modules_do_not_mix(other, operation):
    x = of([(0, 1)])
    with pytest.raises(StatisticsError) as caught:
        getattr(x, operation)(other)
    message = str(caught.value)
    assert "different modules" in message
    assert repr(x) in message
    assert repr(other) in message
    assert "\n" not in message


@pytest.mark.parametrize("operation", ["__or__", "__and__", "__sub__", "__xor__"])
def test_sets_of_different_models_do_not_mix(operation):
    a, b = of([(0, 1)], model_hash="aaaa"), of([(0, 1)], model_hash="bbbb")
    with pytest.raises(StatisticsError, match=r"different models \(aaaa and bbbb\)"):
        getattr(a, operation)(b)


def test_a_known_model_wins_over_any_model():
    known, anyone = of([(0, 1)], model_hash="aaaa"), of([(1, 1)])
    assert (known | anyone).model_hash == "aaaa"
    assert (anyone | known).model_hash == "aaaa"
    assert (anyone | anyone).model_hash is None
    assert (~known).model_hash == "aaaa"


def test_only_sets_combine():
    with pytest.raises(TypeError):
        of([(0, 1)]) | {(0, 1)}


@pytest.mark.parametrize("outside", [(3, 0), (0, 5), (-1, 0), (0, -1), (2, 99)])
def test_a_pair_outside_the_module_is_refused(outside):
    with pytest.raises(StatisticsError) as caught:
        of([(0, 1), outside])
    message = str(caught.value)
    assert str(outside) in message
    assert "'language'" in message
    assert "3 layers of 5 neurons" in message


def test_rows_that_are_no_pairs_are_refused():
    with pytest.raises((StatisticsError, ValueError)):
        of([(0, 1, 2), (0, 1, 2)])


@given(some_pairs, st.sampled_from([None, "abc"]), st.sampled_from(["language", "vision"]))
def test_plain_data_round_trip(pairs, model_hash, module):
    x = of(pairs, module=module, model_hash=model_hash)
    again = NeuronSet.from_dict(json.loads(json.dumps(x.to_dict())))
    assert again == x
    assert (again.module, again.shape, again.model_hash) == (module, SHAPE, model_hash)


def test_file_round_trip(tmp_path):
    x = of([(0, 4), (2, 0), (2, 3)], model_hash="abc")
    x.save(tmp_path / "deep" / "set.json")
    again = NeuronSet.load(tmp_path / "deep" / "set.json")
    assert again == x
    assert again.model_hash == "abc"
    data = json.loads((tmp_path / "deep" / "set.json").read_text())
    assert data["neurons"] == {"0": [4], "2": [0, 3]}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["set.json"]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        NeuronSet.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"format": "mmlens.neuron_set/1", "module": "lang',
        b"\xff\xfe\x00 not text",
        b'{"format": "another/1"}',
        b"{}",
        b"[1, 2]",
        b"null",
        b'{"format": "mmlens.neuron_set/1"}',
        b'{"format": "mmlens.neuron_set/1", "module": "m", "shape": [3], "neurons": {},'
        b' "model_hash": null}',
        b'{"format": "mmlens.neuron_set/1", "module": "m", "shape": [3, 5], "neurons": {"x": [0]},'
        b' "model_hash": null}',
        b'{"format": "mmlens.neuron_set/1", "module": "m", "shape": [3, 5], "neurons": {"0": [9]},'
        b' "model_hash": null}',
    ],
)
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "set.json"
    path.write_bytes(content)
    with pytest.raises(StatisticsError):
        NeuronSet.load(path)
