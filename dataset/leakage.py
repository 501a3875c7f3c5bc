"""Which images show the same thing, and whether such a pair lies across the split.

Three kinds of pair: the same file (equal bytes), the same picture (a near duplicate by its fingerprint, also if cropped
a little differently, recompressed or recoloured), and the same lesion (by the data set's own lesion ids).
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

NEAR = 0.44  # correlation of fingerprints from which two images are near duplicates; see docs/near-duplicates.md
N_CANDIDATES = 20  # most similar images by colour layout that each image is compared with
N_DISTANCES = 10_000_000  # between layouts, at a time
MAX_GROUP = 100  # images of one file or lesion of which all pairs are listed
KINDS = ("same file", "same picture", "same lesion", "same patient")


def find_pairs(table: pd.DataFrame, thumbnails) -> pd.DataFrame:
    """All pairs of images that are the same file, picture, lesion or, where patients are known, patient.

    Parameters
    ----------
    table : rows to compare, with columns image, lesion_id, digest and row.
    thumbnails : (n_rows, SIDE, SIDE, 3) uint8, those of the pixels that `decode_table` returns.

    Returns
    -------
    Columns image_a, image_b, kind (the closest of `KINDS`), similarity (of the fingerprints, in [-1, 1]; NaN if not
    compared), lesion_a, lesion_b; one row a pair.
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
    found: dict[tuple[int, int], str] = {}
    for kind in reversed(KINDS):
        found |= dict.fromkeys(kinds[kind], kind)
    rows = [
        (names[a], names[b], kind, similarity.get((a, b), np.nan), lesions[a], lesions[b])
        for (a, b), kind in sorted(found.items())
    ]
    return pd.DataFrame(rows, columns=["image_a", "image_b", "kind", "similarity", "lesion_a", "lesion_b"])


def audit(table: pd.DataFrame, thumbnails, by_image: pd.Series | None) -> pd.DataFrame:
    """`find_pairs` with the parts that they lie in, and whether those differ, in this split and in one by image.

    Parameters
    ----------
    table : as `find_pairs`, and with the column split.
    by_image : the parts of a split by image, by the table's index; None if that is not possible.
    """
    pairs = crossing(find_pairs(table, thumbnails), table.set_index("image")["split"])
    pairs["crosses_by_image"] = False
    if by_image is not None:
        parts = by_image.reindex(table.index).set_axis(table["image"])
        pairs["crosses_by_image"] = crossing(pairs, parts)["crosses"]
    return pairs


def crossing(pairs: pd.DataFrame, split: pd.Series) -> pd.DataFrame:
    """The pairs with the parts they lie in, and whether those differ.

    Parameters
    ----------
    split : part by image name.
    """
    parts = pairs.assign(split_a=pairs["image_a"].map(split), split_b=pairs["image_b"].map(split))
    return parts.assign(crosses=parts["split_a"] != parts["split_b"])


def describe_pairs(pairs: pd.DataFrame) -> str:
    """How many pairs of each kind there are, and lie across this split and one by image, as lines for the console."""
    lines = []
    for kind in kinds_in(pairs):
        some = pairs[pairs["kind"] == kind]
        lines.append(
            f"{len(some):6} pairs are the {kind}: {some['crosses'].sum()} lie across the split; "
            f"split by image, {some['crosses_by_image'].sum()} would"
        )
    return "\n".join(lines)


def kinds_in(pairs: pd.DataFrame) -> tuple[str, ...]:
    """The kinds that are told of: patients only where there are such pairs."""
    return KINDS if (pairs["kind"] == KINDS[-1]).any() else KINDS[:-1]


def merge_lesions(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    """Lesion ids in which images of the same file or picture share one id, for splitting."""
    lesions, code = np.unique(table["lesion_id"].to_numpy(), return_inverse=True)
    by_image = dict(zip(table["image"], code))
    same = pairs[pairs["kind"].isin(["same file", "same picture"])]
    a, b = same["image_a"].map(by_image).to_numpy(int), same["image_b"].map(by_image).to_numpy(int)
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(lesions), len(lesions)))
    _, component = connected_components(graph, directed=False)
    first = pd.Series(lesions).groupby(component).transform("first").to_numpy()
    return pd.Series(first[code], index=table.index)


def overlap(other: pd.DataFrame, other_thumbnails, known: pd.DataFrame, known_thumbnails) -> pd.Series:
    """Which images of another data set show what a model knows already.

    Parameters
    ----------
    other, known : rows with the columns image, lesion_id, lesion_known, digest and row.

    Returns
    -------
    By the index of `other`: the first that holds of "same lesion", "same file", "same picture"; or "". A lesion's id
    counts if it is told apart from a mere number, which any data set may use.
    """
    lesions = known.loc[known["lesion_known"], "lesion_id"]
    is_told = other["lesion_id"].astype(str).str.contains(r"[^\W\d_][^/]*$")
    reason = pd.Series("", index=other.index)
    with Fingerprints(other_thumbnails, other["row"]) as theirs, Fingerprints(known_thumbnails, known["row"]) as ours:
        pictures = {a for a, _, _ in _near(theirs, ours, NEAR)}
    holds = {
        "same picture": [position in pictures for position in range(len(other))],
        "same file": other["digest"].isin(known["digest"]),
        "same lesion": other["lesion_known"] & is_told & other["lesion_id"].isin(lesions),
    }
    for name, members in holds.items():
        reason[members] = name
    return reason


def describe_overlap(reason: pd.Series, name: str) -> str:
    """What `overlap` found, in words."""
    counts = reason[reason != ""].value_counts()
    if counts.empty:
        return f"None of the {len(reason):,} images of {name} shows what the models learned from."
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in counts.items())
    what = f"{counts.sum():,} of {len(reason):,} images of {name}"
    return f"{what} show what the models learned from and are left out ({kinds})."


def near_duplicates(thumbnails, rows: np.ndarray, threshold: float = NEAR) -> list[tuple[int, int, float]]:
    """Pairs (a, b, similarity) of positions in `rows`, a < b, whose fingerprints correlate at `threshold` or more.

    The similarity is the highest correlation over all shifts of one against the other. Only the `N_CANDIDATES` most
    similar images by colour layout are compared.
    """
    with Fingerprints(thumbnails, rows) as prints:
        return _near(prints, prints, threshold)


class Fingerprints:
    """Of each image a colour layout, in memory, and the spectrum of a fingerprint, in a temporary file (37 KB each).

    A fingerprint is the thumbnail's fine structure: the gray image less its local mean, under a window that fades the
    corners out, with its spectrum divided by the square root of its magnitude, so that edges count and the shared round
    outline of lesion and lens does not.
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
        found = np.empty((len(positions), *self.shape), np.complex64)
        for place, position in zip(found, positions.tolist()):
            self._file.seek(position * place.nbytes)
            self._file.readinto(place)
        return torch.from_numpy(found)


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
    """Pairs of positions in `a` and `b` (each once, and in order, if they are the same) and their similarities."""
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
    """Pairs (2, M) of each of `a` with its nearest of `b`; if they are the same images, each pair once, ordered."""
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
    """All pairs of positions with the same value; of a group of more than `MAX_GROUP`, each one with the first."""
    found: set[tuple[int, int]] = set()
    positions = pd.Series(range(len(groups)))[groups.notna().to_numpy()]
    for members in positions.groupby(groups.dropna().to_numpy()).agg(list):
        small = len(members) <= MAX_GROUP
        found.update(itertools.combinations(members, 2) if small else ((members[0], m) for m in members[1:]))
    return found
