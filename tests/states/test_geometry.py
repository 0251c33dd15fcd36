"""Separation of token groups against scikit-learn and plain loops; the indices on made-up prompts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmlens.errors import SampleError
from mmlens.states.geometry import (
    centroid_cosine,
    cosine_distances,
    neighbour_purity,
    permuted_labels,
    probe_accuracy,
    silhouette,
)
from mmlens.states.indices import nearest, permuted_positions, probing_hits, telomere_hits
from mmlens.states.projections import pca, principal_axes, tsne

sklearn_metrics = pytest.importorskip("sklearn.metrics")
seeds = st.integers(0, 10_000)


def tokens(seed, n=30, d=6, groups=3, apart=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, groups, n)
    centres = rng.normal(size=(groups, d)) * apart
    states = rng.normal(size=(n, d)) + centres[labels]
    return torch.tensor(states), torch.tensor(labels), torch.tensor(rng.integers(0, 5, n))


@given(seeds, st.integers(2, 4))
def test_silhouette_equals_scikit_learn(seed, groups):
    states, labels, samples = tokens(seed, groups=groups)
    labels[0] = 7  # alone in its group, and labels with gaps
    permuted = permuted_labels(labels, samples, 3, seed)
    every = torch.cat([labels[None], permuted])
    found = silhouette(cosine_distances(states), every)
    for one, value in zip(every, found, strict=True):
        theirs = sklearn_metrics.silhouette_score(states, one, metric="cosine")
        assert float(value) == pytest.approx(theirs, abs=1e-9)


@given(seeds, st.integers(1, 12))
def test_purity_by_hand(seed, k):
    states, labels, _ = tokens(seed, n=9)
    found = neighbour_purity(cosine_distances(states), labels[None], k)
    x = states.numpy() / np.linalg.norm(states.numpy(), axis=1, keepdims=True)
    shares = []
    for i in range(9):
        order = sorted((j for j in range(9) if j != i), key=lambda j: float(-x[i] @ x[j]))[:k]
        shares.append(np.mean([int(labels[j] == labels[i]) for j in order]))
    assert float(found[0]) == pytest.approx(np.mean(shares))


@given(seeds)
def test_centroid_cosine_by_hand(seed):
    states, labels, _ = tokens(seed)
    means = [states[labels == g].mean(0).numpy() for g in labels.unique()]
    cosines = [
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        for i, a in enumerate(means)
        for b in means[i + 1 :]
    ]
    assert float(centroid_cosine(states, labels[None])) == pytest.approx(np.mean(cosines))


@pytest.mark.parametrize("d", [4, 60])  # both ways to solve it
def test_probe_equals_scikit_learn(d):
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    states, labels, samples = tokens(3, n=40, d=d, apart=0.4)
    permuted = permuted_labels(labels, samples, 2, 0)
    every = torch.cat([labels[None], permuted])
    found = probe_accuracy(states, every, samples, folds=3, ridge=0.2, seed=5)
    names = samples.unique()
    fold = dict(
        zip(names.tolist(), np.random.default_rng(5).permutation(len(names)) % 3, strict=True)
    )
    which = np.array([fold[int(s)] for s in samples])
    for one, value in zip(every.numpy(), found, strict=True):
        predicted = np.zeros(40, dtype=int)
        for f in range(3):
            train, test = which != f, which == f
            scaler = StandardScaler().fit(states.numpy()[train])
            targets = np.eye(3)[one[train]]
            model = Ridge(alpha=0.2 * d).fit(scaler.transform(states.numpy()[train]), targets)
            predicted[test] = model.predict(scaler.transform(states.numpy()[test])).argmax(1)
        assert float(value) == pytest.approx(
            sklearn_metrics.balanced_accuracy_score(one, predicted)
        )


def test_the_probe_never_trains_on_the_sample_it_is_asked_about():
    """States that tell the sample and nothing else; every sample is of one group."""
    samples = torch.arange(12).repeat_interleave(4)
    states = torch.nn.functional.one_hot(samples, 12).double()
    labels = torch.arange(12).remainder(2)[samples]
    assert float(probe_accuracy(states, labels[None], samples)) <= 0.55
    leaking = probe_accuracy(states, labels[None], torch.arange(48))
    assert float(leaking) == 1


def test_far_and_mixed_groups():
    far, labels, samples = tokens(0, n=200, d=20, apart=20.0)
    mixed = tokens(1, n=200, d=20, apart=0.0)[0]
    for states, low, high in ((far, 0.8, 1.0), (mixed, -0.1, 0.1)):
        assert low <= float(silhouette(cosine_distances(states), labels[None])) <= high
    one = labels[None]
    assert float(neighbour_purity(cosine_distances(far), one)) == 1
    assert float(probe_accuracy(far, one, samples)) == 1
    assert float(probe_accuracy(mixed, one, samples)) < 0.5
    assert float(centroid_cosine(far, one)) < float(centroid_cosine(far + 100, one))


def test_what_has_no_answer():
    states, labels, samples = tokens(0, n=6)
    alone = torch.zeros(1, 6, dtype=torch.long)
    assert silhouette(cosine_distances(states), alone).isnan().all()
    assert centroid_cosine(states, alone).isnan().all()
    assert probe_accuracy(states, alone, samples).isnan().all()
    assert probe_accuracy(states, labels[None], torch.zeros(6).long()).isnan().all()
    assert neighbour_purity(torch.zeros(1, 1), torch.zeros(1, 1).long()).isnan().all()
    with pytest.raises(SampleError, match="k = 0"):
        neighbour_purity(torch.zeros(2, 2), alone[:, :2], 0)
    with pytest.raises(SampleError, match="penalty above 0"):
        probe_accuracy(states, labels[None], samples, ridge=0.0)


@given(seeds)
def test_permutations_stay_within_samples(seed):
    _, labels, samples = tokens(seed)
    found = permuted_labels(labels, samples, 20, seed)
    assert len({tuple(row.tolist()) for row in found}) > 1
    for row in found:
        for sample in samples.unique():
            own = samples == sample
            assert sorted(row[own].tolist()) == sorted(labels[own].tolist())


def test_permutations_are_uniform():
    labels, samples = torch.tensor([0, 1, 2, 0]), torch.tensor([4, 4, 4, 1])
    found = permuted_labels(labels, samples, 6000, 0)
    counts = {}
    for row in found:
        assert row[3] == 0
        counts[tuple(row[:3].tolist())] = counts.get(tuple(row[:3].tolist()), 0) + 1
    assert len(counts) == 6
    assert all(880 < n < 1120 for n in counts.values())


@given(seeds)
def test_probing_by_hand(seed):
    states, labels, samples = tokens(seed, n=14, groups=3)
    distances = cosine_distances(states)
    every = torch.cat([labels[None], permuted_labels(labels, samples * 0, 4, seed)])
    found = probing_hits(distances, every, 1)
    d = distances.numpy()
    for one, hits in zip(every.numpy(), found.tolist(), strict=True):
        inside, others = np.flatnonzero(one == 1), np.flatnonzero(one != 1)
        if len(inside) < 2 or not len(others):
            assert hits == -1
            continue
        median = np.median([d[i, j] for i in inside for j in inside if i < j])
        assert hits == sum(min(d[i, j] for j in others) < median for i in inside)


def test_probing_of_a_group_apart_and_of_one_that_reaches_out():
    tight = torch.tensor([[1.0, 0.0], [1.0, 0.01], [1.0, -0.01]])
    text = torch.tensor([[0.0, 1.0], [0.1, 1.0]])
    labels = torch.tensor([[1, 1, 1, 0, 0]])
    assert int(probing_hits(cosine_distances(torch.cat([tight, text])), labels, 1)) == 0
    spread = torch.tensor([[0.0, 1.0], [0.1, -1.0], [1.0, 0.0]])
    # Median of 1.995, 1 and 0.90; to the nearest text: 0, 1.98 and 0.90.
    assert int(probing_hits(cosine_distances(torch.cat([spread, text])), labels, 1)) == 2


def test_telomeres_of_a_made_up_prompt():
    """Special tokens 0, 4 and 8: beside text that is alike, alike to far text, alike to an image."""
    text, special, image = 0, 1, 2
    labels = torch.tensor([special, text, image, image, special, image, text, text, special])
    states = torch.eye(9)
    states[1] = states[0] + 0.1 * states[1]  # text at 1: adjacent to 0
    states[4] = states[7] + 0.1 * states[4]  # special at 4: like text at 7, three away
    states[8] = states[5] + 0.1 * states[8]  # special at 8: like an image token
    neighbours = nearest(cosine_distances(states))
    positions = torch.arange(3, 12)
    adjacent, any_text = telomere_hits(neighbours, labels[None], positions[None], special, text)
    assert (adjacent.tolist(), any_text.tolist()) == ([1], [2])
    moved = permuted_positions(positions, labels == text, 600, 0)
    assert torch.equal(moved[:, labels != text], positions[labels != text].repeat(600, 1))
    assert (moved[:, labels == text].sort(-1).values == positions[labels == text]).all()
    chance, same = telomere_hits(neighbours, labels.expand(600, -1), moved, special, text)
    assert (same == 2).all()
    # Text at 1 is one of three places, of which one is adjacent to special 0; likewise text 7 and 4.
    assert float(chance.double().mean()) == pytest.approx(1 / 3 + 1 / 3, abs=0.08)


def test_pca_equals_scikit_learn():
    from sklearn.decomposition import PCA

    states = tokens(0, n=50, d=8)[0]
    ours, theirs = pca(states, 3).numpy(), PCA(3).fit_transform(states.numpy())
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-9)
    axes = principal_axes(states, 3)[1]
    assert (axes.gather(0, axes.abs().argmax(0, keepdim=True)) > 0).all()


def test_tsne_keeps_groups_apart_and_repeats_itself():
    states, labels, _ = tokens(0, n=90, d=20, apart=15.0)
    found = tsne(states, seed=3)
    assert torch.equal(found, tsne(states, seed=3))
    apart = sklearn_metrics.silhouette_score(found.numpy(), labels)
    assert apart > 0.5
    assert tsne(states[:5]).shape == (5, 2)
    with pytest.raises(SampleError, match="at least four tokens; 3"):
        tsne(states[:3])
