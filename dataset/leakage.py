"""Find pairs of images that show the same lesion, and whether such a pair crosses the split.

The kinds of pairs: the same file (equal bytes), the same picture (a near duplicate by its fingerprint, also if slightly
cropped, recompressed or recoloured), and the same lesion or patient (by the ids of the data set).
"""

import itertools
import tempfile

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dataset.images import THUMBNAIL as SIDE

NEAR = 0.44  # minimum correlation of the fingerprints of near duplicates; see docs/near-duplicates.md
N_CANDIDATES = 20  # images with the most similar colour layout that each image is compared with
N_DISTANCES = 10_000_000  # between layouts, computed at once
MAX_GROUP = 100  # images; larger groups of one file or lesion are not listed pair by pair
KINDS = ("same file", "same picture", "same lesion", "same patient")


def find_pairs(table: pd.DataFrame, thumbnails) -> pd.DataFrame:
    """All pairs of images of the same file, picture, lesion or, if known, patient.

    Parameters
    ----------
    table : rows to compare, with columns image, lesion_id, digest and row.
    thumbnails : (n_rows, SIDE, SIDE, 3) uint8, from the pixels that `decode_table` returns.

    Returns
    -------
    One row per pair, with the columns image_a, image_b, kind (the closest of `KINDS`), similarity (of the fingerprints,
    in [-1, 1]; NaN if not compared), lesion_a, lesion_b.
    """
    near = near_duplicates(thumbnails, table["row"].to_numpy())
    kinds = {
        "same file": _groups_to_pairs(table["digest"]),
        "same picture": {(a, b) for a, b, _ in near},
        "same lesion": _groups_to_pairs(table["lesion_id"]),
        "same patient": _groups_to_pairs(table["patient_id"]) if "patient_id" in table else set(),
    }
    similarity = {(a, b): value for a, b, value in near}
    names, lesions = table["image"].to_numpy(), table["lesion_id"].to_numpy()
    closest: dict[tuple[int, int], str] = {}
    for kind in reversed(KINDS):
        closest |= dict.fromkeys(kinds[kind], kind)
    rows = [
        (names[a], names[b], kind, similarity.get((a, b), np.nan), lesions[a], lesions[b])
        for (a, b), kind in sorted(closest.items())
    ]
    return pd.DataFrame(rows, columns=["image_a", "image_b", "kind", "similarity", "lesion_a", "lesion_b"])


def audit(table: pd.DataFrame, thumbnails, by_image: pd.Series | None) -> pd.DataFrame:
    """`find_pairs`, and whether each pair crosses this split, and a split by image.

    Parameters
    ----------
    table : as for `find_pairs`, with the column split.
    by_image : the parts of a split by image, with the table's index; None if that is impossible.
    """
    pairs = crossing(find_pairs(table, thumbnails), table.set_index("image")["split"])
    pairs["crosses_by_image"] = False
    if by_image is not None:
        parts = by_image.reindex(table.index).set_axis(table["image"])
        pairs["crosses_by_image"] = crossing(pairs, parts)["crosses"]
    return pairs


def crossing(pairs: pd.DataFrame, split: pd.Series) -> pd.DataFrame:
    """Add the parts of both images, and whether they differ.

    Parameters
    ----------
    split : part by image name.
    """
    parts = pairs.assign(split_a=pairs["image_a"].map(split), split_b=pairs["image_b"].map(split))
    return parts.assign(crosses=parts["split_a"] != parts["split_b"])


def describe_pairs(pairs: pd.DataFrame) -> str:
    """Console lines: the number of pairs of each kind, and how many cross this split and a split by image."""
    lines = []
    for kind in kinds_in(pairs):
        of_kind = pairs[pairs["kind"] == kind]
        lines.append(
            f"{len(of_kind):6} pairs of the {kind}: {of_kind['crosses'].sum()} cross the split; "
            f"{of_kind['crosses_by_image'].sum()} would cross a split by image"
        )
    return "\n".join(lines)


def kinds_in(pairs: pd.DataFrame) -> tuple[str, ...]:
    """The kinds to report: patients only if there are such pairs."""
    return KINDS if (pairs["kind"] == KINDS[-1]).any() else KINDS[:-1]


def merge_lesions(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    """Lesion ids for splitting: identical and near-duplicate images share one."""
    lesions, code = np.unique(table["lesion_id"].to_numpy(), return_inverse=True)
    by_image = dict(zip(table["image"], code))
    duplicates = pairs[pairs["kind"].isin(["same file", "same picture"])]
    a, b = duplicates["image_a"].map(by_image).to_numpy(int), duplicates["image_b"].map(by_image).to_numpy(int)
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(lesions), len(lesions)))
    _, component = connected_components(graph, directed=False)
    first = pd.Series(lesions).groupby(component).transform("first").to_numpy()
    return pd.Series(first[code], index=table.index)


def overlap(other: pd.DataFrame, other_thumbnails, training: pd.DataFrame, training_thumbnails) -> pd.Series:
    """Which images of another data set overlap with the training data.

    Parameters
    ----------
    other, training : rows with the columns image, lesion_id, lesion_known, digest and row.

    Returns
    -------
    By the index of `other`: the first of "same lesion", "same file" and "same picture" that applies, or "". A lesion id
    counts only if it is more than a number, which any data set may use.
    """
    lesions = training.loc[training["lesion_known"], "lesion_id"]
    reason = pd.Series("", index=other.index)
    with (
        Fingerprints(other_thumbnails, other["row"]) as theirs,
        Fingerprints(training_thumbnails, training["row"]) as ours,
    ):
        near = {a for a, _, _ in _near(theirs, ours, NEAR)}
    matches = {
        "same picture": [position in near for position in range(len(other))],
        "same file": other["digest"].isin(training["digest"]),
        "same lesion": other["lesion_known"] & is_specific(other["lesion_id"]) & other["lesion_id"].isin(lesions),
    }
    for name, members in matches.items():
        reason[members] = name
    return reason


def is_specific(names: pd.Series) -> pd.Series:
    """Which names are more than numbers, which any data set may use."""
    return names.astype(str).str.contains(r"[^\W\d_][^/]*$")


def describe_overlap(reason: pd.Series, name: str) -> str:
    """Summarize the result of `overlap`."""
    counts = reason[reason != ""].value_counts()
    if counts.empty:
        return f"None of the {len(reason):,} images of {name} overlaps with the training data."
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in counts.items())
    subject = f"{counts.sum():,} of {len(reason):,} images of {name}"
    return f"{subject} overlap with the training data and are left out ({kinds})."


def near_duplicates(thumbnails, rows: np.ndarray, threshold: float = NEAR) -> list[tuple[int, int, float]]:
    """Pairs (a, b, similarity) of positions in `rows`, a < b, whose fingerprints correlate at `threshold` or more.

    The similarity is the maximum correlation over all relative shifts. Only the `N_CANDIDATES` most
    similar images by colour layout are compared.
    """
    with Fingerprints(thumbnails, rows) as prints:
        return _near(prints, prints, threshold)


class Fingerprints:
    """Colour layouts of images, in memory, and the spectra of their fingerprints, in a temporary file (37 KB each).

    A fingerprint is the fine structure of a thumbnail: the gray image minus its local mean, under a window that fades
    out the corners. Its spectrum is divided by the square root of its magnitude, so that edges count and the common
    round shape of lesions and lenses does not.
    """

    shape = (SIDE, SIDE // 2 + 1)

    def __init__(self, thumbnails, rows: np.ndarray) -> None:
        self._file, layouts = tempfile.TemporaryFile(), []  # noqa: SIM115, closed by __exit__
        for part in np.array_split(np.asarray(rows), max(len(rows) // 256, 1)):
            image = torch.from_numpy(thumbnails[part].astype(np.float32)).permute(0, 3, 1, 2)
            layout, spectrum = _fingerprint(image)
            layouts.append(layout)
            self._file.write(spectrum.numpy())
        self.layout = torch.cat(layouts)

    def __enter__(self) -> "Fingerprints":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def spectra(self, positions: torch.Tensor) -> torch.Tensor:
        """(M, SIDE, SIDE / 2 + 1) complex."""
        spectra = np.empty((len(positions), *self.shape), np.complex64)
        for target, position in zip(spectra, positions.tolist()):
            self._file.seek(position * target.nbytes)
            self._file.readinto(target)
        return torch.from_numpy(spectra)


def _fingerprint(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Colour layout (N, 192) and spectra of unit-norm fingerprints of thumbnails (N, 3, SIDE, SIDE)."""
    fade = torch.hann_window(SIDE, periodic=False)
    layout = F.interpolate(image, size=(8, 8), mode="area").flatten(1)
    gray = image.mean(dim=1, keepdim=True)
    fine = gray - F.avg_pool2d(F.pad(gray, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    spectrum = torch.fft.rfft2(fine[:, 0].clamp(-12, 12) * fade[:, None] * fade)
    spectrum = spectrum / (spectrum.abs() + 1e-3).sqrt()
    norm = torch.fft.irfft2(spectrum, s=(SIDE, SIDE)).flatten(1).norm(dim=1).clamp(min=1e-6)
    return layout, spectrum / norm[:, None, None]


def _near(a: Fingerprints, b: Fingerprints, threshold: float) -> list[tuple[int, int, float]]:
    """Pairs of positions in `a` and `b` and their similarities; if `a` is `b`, each pair once, in order."""
    near = []
    candidates = _candidates(a.layout, b.layout, a is b)
    for pairs in candidates.split(1000, dim=1) if candidates.numel() else ():
        of_a, in_a = torch.unique(pairs[0], return_inverse=True)
        of_b, in_b = torch.unique(pairs[1], return_inverse=True)
        spectra = a.spectra(of_a)[in_a] * b.spectra(of_b)[in_b].conj()
        similarity = torch.fft.irfft2(spectra, s=(SIDE, SIDE)).flatten(1).amax(dim=1)
        chosen = similarity >= threshold
        near += zip(*pairs[:, chosen].tolist(), similarity[chosen].tolist())
    return near


def _candidates(a: torch.Tensor, b: torch.Tensor, same: bool) -> torch.Tensor:
    """Pairs (2, M) of each image of `a` with its nearest of `b`; for the same images, each pair once, in order."""
    k = max(0, min(N_CANDIDATES, len(b) - same))
    step, nearest = max(1, N_DISTANCES // max(len(b), 1)), []
    for start in range(0, len(a), step):
        distance = torch.cdist(a[start : start + step], b)
        if same:
            distance[torch.arange(len(distance)), torch.arange(start, start + len(distance))] = torch.inf
        nearest.append(distance.topk(k, largest=False).indices)
    pairs = torch.stack([torch.arange(len(a)).repeat_interleave(k), torch.cat(nearest).flatten()])
    return torch.unique(pairs.sort(dim=0).values if same else pairs, dim=1)


def _groups_to_pairs(groups: pd.Series) -> set[tuple[int, int]]:
    """All pairs of positions with the same value; in groups above `MAX_GROUP`, each member with the first."""
    pairs: set[tuple[int, int]] = set()
    positions = pd.Series(range(len(groups)))[groups.notna().to_numpy()]
    for members in positions.groupby(groups.dropna().to_numpy()).agg(list):
        small = len(members) <= MAX_GROUP
        pairs.update(itertools.combinations(members, 2) if small else ((members[0], m) for m in members[1:]))
    return pairs
