import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from dataset import fingerprints
from dataset.fingerprints import SIDE, Fingerprints, candidates_between, near_among, near_between, near_duplicates


def noise(n, seed=0):
    """Thumbnails (n, SIDE, SIDE, 3) that share nothing."""
    return np.random.default_rng(seed).integers(0, 256, (n, SIDE, SIDE, 3), np.uint8)


def moved(thumbnail, right):
    return np.roll(thumbnail, right, axis=1)


def layouts(n, seed=0):
    """Layouts (n, 192) in few directions, as those of real images."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy((rng.normal(size=(n, 4)) @ rng.normal(size=(4, 192))).astype(np.float32))


def as_set(pairs):
    return set(map(tuple, pairs.tolist()))


def nearest(a, b, k):
    """Positions (len(a), k) of the nearest of b, by scikit-learn."""
    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(b).kneighbors(a, return_distance=False)


@pytest.fixture
def few(monkeypatch):
    """Three candidates, found among 40 layouts or more, in cells of at most 8."""
    for name, value in {"N_CANDIDATES": 3, "N_SEARCHED": 40, "CELL": 8}.items():
        monkeypatch.setattr(fingerprints, name, value)


def test_the_candidates_of_a_small_set_are_its_nearest_layouts(few):
    points = layouts(40)
    expected = {tuple(sorted((i, j))) for i, row in enumerate(nearest(points, points, 4)) for j in row if i != j}
    assert as_set(candidates_between(points, points, same=True)) == expected


def test_the_candidates_of_two_small_sets_are_the_nearest_layouts_of_the_other(few):
    a, b = layouts(50, 1), layouts(40)
    expected = {(i, j) for i, row in enumerate(nearest(a, b, 3)) for j in row}
    assert as_set(candidates_between(a, b, same=False)) == expected


def test_most_candidates_of_a_large_set_are_found_and_few_layouts_are_compared(few, monkeypatch):
    points, compared = layouts(2000), []
    smallest = torch.Tensor.topk

    def count(values, k, **options):
        if k == fingerprints.N_CANDIDATES:  # not of cells
            compared.append(values.numel())
        return smallest(values, k, **options)

    monkeypatch.setattr(torch.Tensor, "topk", count)
    found = as_set(candidates_between(points, points, same=True))
    expected = {tuple(sorted((i, j))) for i, row in enumerate(nearest(points, points, 4)) for j in row if i != j}
    assert len(found & expected) > 0.7 * len(expected)
    assert 2000 * 40 <= sum(compared) < 2000 * (40 + 8)


def test_cells_hold_each_position_once_and_are_of_like_size(few):
    cells = fingerprints._cells(layouts(1000))
    assert sorted(torch.cat(cells).tolist()) == list(range(1000))
    assert max(map(len, cells)) <= 8 and min(map(len, cells)) >= 4


def test_equal_layouts_are_divided_all_the_same(few):
    assert max(map(len, fingerprints._cells(torch.ones(100, 192)))) <= 8


def test_the_similarity_is_the_highest_correlation_over_all_shifts():
    """Against numpy's own sum over the pixels of two fingerprints, at each shift of a few."""
    first = noise(1)[0]
    thumbnails = np.stack([first, moved(first, 5)])
    (pair,), (similarity,) = near_duplicates(thumbnails, np.arange(2), threshold=-1)
    spectra = Fingerprints(thumbnails, np.arange(2)).spectra(torch.arange(2))
    a, b = torch.fft.irfft2(spectra, s=(SIDE, SIDE)).numpy()
    sums = {shift: (moved(a, shift) * b).sum() for shift in range(-8, 9)}
    assert pair.tolist() == [0, 1] and max(sums, key=sums.get) == 5
    np.testing.assert_allclose(similarity, sums[5], atol=1e-5)


def test_the_small_fingerprint_is_the_fingerprint_without_its_high_frequencies():
    prints = Fingerprints(noise(1), np.arange(1))
    whole = torch.fft.fftfreq(SIDE, 1 / SIDE).long().tolist()
    low = torch.fft.fftfreq(fingerprints.SMALL, 1 / fingerprints.SMALL).long().tolist()
    spectrum, small = prints.spectra(torch.arange(1))[0], prints.small_spectra(torch.arange(1))[0]
    chosen = spectrum[[whole.index(frequency) for frequency in low], : fingerprints.SMALL // 2 + 1]
    ratio = (small / chosen).real
    np.testing.assert_allclose(ratio, torch.full_like(ratio, ratio[0, 0]), rtol=1e-2)


def test_only_what_small_fingerprints_leave_possible_is_compared_in_full(monkeypatch):
    first = noise(8)
    prints = Fingerprints(np.concatenate([first, np.roll(first, 3, axis=2)]), np.arange(16))
    read = []
    spectra = Fingerprints.spectra
    monkeypatch.setattr(Fingerprints, "spectra", lambda self, some: read.extend(some.tolist()) or spectra(self, some))
    pairs = torch.tensor([[0, 1], [2, 10], [3, 4]])
    found, _ = near_among(prints, prints, pairs)
    assert found.tolist() == [[2, 10]] and read == [2, 10]


def test_pairs_of_two_sets_name_the_position_in_each():
    ours = noise(6)
    theirs = np.stack([noise(1, seed=1)[0], ours[4]])
    sets = Fingerprints(theirs, np.arange(2)), Fingerprints(ours, np.arange(5, -1, -1))
    pairs, similarity = near_between(*sets)
    assert pairs.tolist() == [[1, 1]]
    np.testing.assert_allclose(similarity, 1, atol=1e-5)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_images_are_no_pair(n):
    pairs, similarity = near_duplicates(noise(1), np.arange(n))
    assert pairs.shape == (0, 2) and similarity.shape == (0,)
