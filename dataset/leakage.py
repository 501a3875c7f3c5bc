"""Which images show the same thing, and whether such a pair lies across the split.

Three kinds of pair: the same file (equal bytes), the same picture (a near duplicate by its fingerprint, also if cropped
a little differently, recompressed or recoloured), and the same lesion (by the data set's own lesion ids).
"""

import itertools

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

SIDE = 96  # pixels of the thumbnail that a fingerprint is made from
NEAR = 0.44  # correlation of fingerprints from which two images count as near duplicates
N_CANDIDATES = 20  # most similar images by colour layout that each image is compared with
KINDS = ("same file", "same picture", "same lesion")


def find_pairs(table: pd.DataFrame, pixels: np.ndarray) -> pd.DataFrame:
    """All pairs of images that are the same file, picture or lesion.

    Parameters
    ----------
    table : rows to compare, with columns image, lesion_id, digest and row.
    pixels : (n_rows, H, W, 4) uint8, as `data.decode_table` returns them.

    Returns
    -------
    Columns image_a, image_b, kind (the closest of `KINDS`), similarity (of the fingerprints, in [-1, 1]; NaN if not
    compared), lesion_a, lesion_b; one row a pair.
    """
    near = near_duplicates(pixels, table["row"].to_numpy())
    kinds = {
        "same file": _groups_to_pairs(table["digest"]),
        "same picture": {(a, b) for a, b, _ in near},
        "same lesion": _groups_to_pairs(table["lesion_id"]),
    }
    similarity = {(a, b): value for a, b, value in near}
    names, lesions = table["image"].to_numpy(), table["lesion_id"].to_numpy()
    found: dict[tuple[int, int], str] = {}
    for kind in reversed(KINDS):
        found |= dict.fromkeys(kinds[kind], kind)
    rows = [
        (names[a], names[b], kind, similarity.get((a, b), np.nan), lesions[a], lesions[b])
        for (a, b), kind in sorted(found.items())
    ]
    return pd.DataFrame(rows, columns=["image_a", "image_b", "kind", "similarity", "lesion_a", "lesion_b"])


def crossing(pairs: pd.DataFrame, split: pd.Series) -> pd.DataFrame:
    """The pairs with the parts they lie in, and whether those differ.

    Parameters
    ----------
    split : part by image name.
    """
    parts = pairs.assign(split_a=pairs["image_a"].map(split), split_b=pairs["image_b"].map(split))
    return parts.assign(crosses=parts["split_a"] != parts["split_b"])


def describe(pairs: pd.DataFrame) -> str:
    """How many pairs of each kind there are, and lie across this split and one by image, as lines for the console."""
    lines = []
    for kind in KINDS:
        some = pairs[pairs["kind"] == kind]
        lines.append(
            f"{len(some):6} pairs are the {kind}: {some['crosses'].sum()} lie across the split; "
            f"split by image, {some['crosses_by_image'].sum()} would"
        )
    return "\n".join(lines)


def merge_lesions(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    """Lesion ids in which images of the same file or picture share one id, for splitting."""
    lesions, code = np.unique(table["lesion_id"].to_numpy(), return_inverse=True)
    by_image = dict(zip(table["image"], code))
    same = pairs[pairs["kind"] != "same lesion"]
    a, b = same["image_a"].map(by_image).to_numpy(int), same["image_b"].map(by_image).to_numpy(int)
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(lesions), len(lesions)))
    _, component = connected_components(graph, directed=False)
    first = pd.Series(lesions).groupby(component).transform("first").to_numpy()
    return pd.Series(first[code], index=table.index)


def near_duplicates(pixels: np.ndarray, rows: np.ndarray, threshold: float = NEAR) -> list[tuple[int, int, float]]:
    """Pairs (a, b, similarity) of positions in `rows`, a < b, whose fingerprints correlate at `threshold` or more.

    A fingerprint is the thumbnail's fine structure: the gray image less its local mean, under a window that fades the
    corners out, with its spectrum divided by the square root of its magnitude, so that edges count and the shared round
    outline of lesion and lens does not. The similarity is the highest correlation over all shifts of one against the
    other. Only the `N_CANDIDATES` most similar images by colour layout are compared.
    """
    layout, spectrum = _fingerprints(pixels, rows)
    near = []
    for a, b in _candidates(layout).split(1000, dim=1):
        shifts = torch.fft.irfft2(spectrum[a] * spectrum[b].conj(), s=(SIDE, SIDE))
        similarity = shifts.flatten(1).amax(dim=1)
        chosen = similarity >= threshold
        near += zip(a[chosen].tolist(), b[chosen].tolist(), similarity[chosen].tolist())
    return near


def _fingerprints(pixels: np.ndarray, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Colour layout (N, 192), and spectra (N, SIDE, SIDE / 2 + 1) of unit-norm fingerprints."""
    fade = torch.hann_window(SIDE, periodic=False)
    layouts, spectra = [], []
    for part in np.array_split(rows, max(len(rows) // 256, 1)):
        image = torch.from_numpy(pixels[part][..., :3].astype(np.float32)).permute(0, 3, 1, 2)
        layouts.append(F.interpolate(image, size=(8, 8), mode="area").flatten(1))
        gray = F.interpolate(image.mean(dim=1, keepdim=True), size=(SIDE, SIDE), mode="area")
        fine = gray - F.avg_pool2d(F.pad(gray, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
        spectrum = torch.fft.rfft2(fine[:, 0].clamp(-12, 12) * fade[:, None] * fade)
        spectrum = spectrum / (spectrum.abs() + 1e-3).sqrt()
        norm = torch.fft.irfft2(spectrum, s=(SIDE, SIDE)).flatten(1).norm(dim=1).clamp(min=1e-6)
        spectra.append(spectrum / norm[:, None, None])
    return torch.cat(layouts), torch.cat(spectra)


def _candidates(layout: torch.Tensor) -> torch.Tensor:
    """Pairs (2, M) of each image with its nearest by colour layout, each pair once, as a[i] < b[i]."""
    n = len(layout)
    k = min(N_CANDIDATES, n - 1)
    nearest = []
    for start in range(0, n, 1000):
        distance = torch.cdist(layout[start : start + 1000], layout)
        distance[torch.arange(len(distance)), torch.arange(start, start + len(distance))] = torch.inf
        nearest.append(distance.topk(k, largest=False).indices)
    a, b = torch.arange(n).repeat_interleave(k), torch.cat(nearest).flatten()
    return torch.unique(torch.stack([torch.minimum(a, b), torch.maximum(a, b)]), dim=1)


def _groups_to_pairs(groups: pd.Series) -> set[tuple[int, int]]:
    """All pairs of positions with the same value."""
    positions = pd.Series(range(len(groups))).groupby(groups.to_numpy()).agg(list)
    return {pair for members in positions for pair in itertools.combinations(members, 2)}
