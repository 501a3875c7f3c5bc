"""Thumbnails -> pairs of near duplicates, in time nearly proportional to the number of images.

Each image gets a colour layout and a small spectrum, both in memory. The images with the most similar layouts are
candidates. The small spectra rule out nearly all of them, and the others are compared in full.

Shapes: N images, M pairs of positions among them, SIDE pixels of a thumbnail.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from dataset.images import THUMBNAIL as SIDE
from machine import hides_progress

NEAR = 0.44  # minimum correlation of the fingerprints of near duplicates; see docs/near-duplicates.md for all constants
N_CANDIDATES = 20  # images with the most similar colour layout that each image is compared with
N_SEARCHED = 16384  # images among which these are looked for, at least; all images of a smaller set
CELL = 32  # maximum number of images of similar layout that are looked up together
SMALL = 32  # pixels; side of the fingerprint that the small spectrum describes
POSSIBLE = 0.36  # minimum correlation of the small fingerprints of pairs that are compared in full
BLOCK = 256  # images, or pairs to compare in full, at a time
PATIENCE = 3  # seconds of work before a progress bar appears


def near_duplicates(thumbnails, rows: np.ndarray, threshold: float = NEAR) -> tuple[np.ndarray, np.ndarray]:
    """Images whose fingerprints correlate at `threshold` or more.

    The similarity is the maximum correlation over all relative shifts. Only the `N_CANDIDATES` most similar images by
    colour layout are compared.

    Parameters
    ----------
    thumbnails : (n, SIDE, SIDE, 3) uint8; may be anything that returns an array for an array of positions.
    rows : (N,) positions in `thumbnails`.

    Returns
    -------
    pairs : (M, 2) positions in `rows`, the first below the second, in ascending order.
    similarity : (M,) in [-1, 1].
    """
    prints = Fingerprints(thumbnails, rows)
    return near_between(prints, prints, threshold)


class Fingerprints:
    """Fingerprints of images. A fingerprint is the fine structure of a thumbnail: see `_spectra`.

    Attributes
    ----------
    layout : (N, 192) colours of an 8x8 image.
    small : (N, SMALL, SMALL / 2 + 1, 2) half precision, the spectra's lowest frequencies: 2 KB per image.
    """

    def __init__(self, thumbnails, rows: np.ndarray) -> None:
        self._thumbnails, self._rows = thumbnails, np.asarray(rows)
        self.layout = torch.empty(len(rows), 192)
        self.small = torch.empty(len(rows), SMALL, SMALL // 2 + 1, 2, dtype=torch.float16)
        for block in _with_bar(_blocks(len(rows), BLOCK), "Fingerprints"):
            image = self._images(block)
            self.layout[block] = F.interpolate(image, size=(8, 8), mode="area").flatten(1)
            self.small[block] = torch.view_as_real(_lowest(_spectra(image))).half()

    def __len__(self) -> int:
        return len(self._rows)

    def spectra(self, positions: torch.Tensor) -> torch.Tensor:
        """(M, SIDE, SIDE / 2 + 1) complex, computed from the thumbnails."""
        return _spectra(self._images(positions))

    def small_spectra(self, positions: torch.Tensor) -> torch.Tensor:
        """(M, SMALL, SMALL / 2 + 1) complex."""
        return torch.view_as_complex(self.small[positions].float())

    def _images(self, positions: torch.Tensor) -> torch.Tensor:
        """(M, 3, SIDE, SIDE)."""
        images = self._thumbnails[self._rows[positions.numpy()]]
        return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)


def _spectra(image: torch.Tensor) -> torch.Tensor:
    """Spectra (N, SIDE, SIDE / 2 + 1) of the unit-norm fingerprints of images (N, 3, SIDE, SIDE).

    A fingerprint is the gray image minus its local mean, under a window that fades out the corners. Its spectrum is
    divided by the square root of its magnitude, so that edges count and the common round shape of lesions and lenses
    does not.
    """
    fade = torch.hann_window(SIDE, periodic=False)
    gray = image.mean(dim=1, keepdim=True)
    fine = gray - F.avg_pool2d(F.pad(gray, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    spectrum = torch.fft.rfft2(fine[:, 0].clamp(-12, 12) * fade[:, None] * fade)
    return _of_unit_norm(spectrum / (spectrum.abs() + 1e-3).sqrt(), SIDE)


def _lowest(spectrum: torch.Tensor) -> torch.Tensor:
    """Spectra (N, SMALL, SMALL / 2 + 1) of the fingerprints at SMALL pixels, of unit norm again."""
    half = SMALL // 2
    return _of_unit_norm(torch.cat([spectrum[:, :half], spectrum[:, -half:]], dim=1)[:, :, : half + 1], SMALL)


def _of_unit_norm(spectrum: torch.Tensor, side: int) -> torch.Tensor:
    norm = torch.fft.irfft2(spectrum, s=(side, side)).flatten(1).norm(dim=1).clamp(min=1e-6)
    return spectrum / norm[:, None, None]


def _correlation(a: torch.Tensor, b: torch.Tensor, side: int) -> torch.Tensor:
    """Maximum correlation (M,) over all shifts of fingerprints with the spectra (M, side, side / 2 + 1)."""
    return torch.fft.irfft2(a * b.conj(), s=(side, side)).flatten(1).amax(dim=1)


def near_between(a: Fingerprints, b: Fingerprints, threshold: float = NEAR) -> tuple[np.ndarray, np.ndarray]:
    """As `near_duplicates`, of positions in `a` and `b`; if `a` is `b`, each pair once."""
    return near_among(a, b, candidates_between(a.layout, b.layout, a is b), threshold)


def near_among(
    a: Fingerprints, b: Fingerprints, pairs: torch.Tensor, threshold: float = NEAR
) -> tuple[np.ndarray, np.ndarray]:
    """As `near_between`, of these pairs (M, 2): in full only if their small fingerprints leave it possible."""
    pairs = pairs[small_correlation(a, b, pairs) >= min(POSSIBLE, threshold)]
    similarity = torch.empty(len(pairs))
    for block in _with_bar(_blocks(len(pairs), BLOCK), "Comparing fingerprints"):
        (of_a, in_a), (of_b, in_b) = (torch.unique(pairs[block, k], return_inverse=True) for k in (0, 1))
        similarity[block] = _correlation(a.spectra(of_a)[in_a], b.spectra(of_b)[in_b], SIDE)
    chosen = similarity >= threshold
    return pairs[chosen].numpy(), similarity[chosen].double().numpy()


def small_correlation(a: Fingerprints, b: Fingerprints, pairs: torch.Tensor) -> torch.Tensor:
    """Correlation (M,) of the small fingerprints of pairs (M, 2)."""
    small = torch.empty(len(pairs))
    for block in _with_bar(_blocks(len(pairs), 16 * BLOCK), "Comparing small fingerprints"):
        of_a, of_b = pairs[block].unbind(dim=1)
        small[block] = _correlation(a.small_spectra(of_a), b.small_spectra(of_b), SMALL)
    return small


def candidates_between(a: torch.Tensor, b: torch.Tensor, same: bool) -> torch.Tensor:
    """Pairs (M, 2) of each layout of `a` with its nearest of `b`, in order; for the same layouts, each pair once.

    The layouts of each cell of `a` are compared with those of the nearest cells of `b`, `N_SEARCHED` or more. So the
    time per layout does not depend on their number, and a small set is searched in full.
    """
    if not len(a) or not len(b):
        return torch.empty(0, 2, dtype=torch.long)
    cells = _cells(b)
    own = cells if same else _cells(a)
    layouts = _with_half_squares(b[torch.cat(cells)]).split([len(cell) for cell in cells])
    codes = []
    for cell, nearest in zip(_with_bar(own, "Comparing colour layouts"), _nearest_cells(a, own, b, cells)):
        near = torch.cat([cells[k] for k in nearest])
        distance = _less(a[cell]) @ torch.cat([layouts[k] for k in nearest]).T
        if same:
            distance[cell[:, None] == near] = torch.inf
        k = min(N_CANDIDATES, len(near) - same)
        found = near[distance.topk(k, largest=False).indices]
        one = cell[:, None].expand_as(found)
        one, found = (torch.minimum(one, found), torch.maximum(one, found)) if same else (one, found)
        codes.append((one * len(b) + found).flatten())
    codes = torch.unique(torch.cat(codes))
    return torch.stack([codes // len(b), codes % len(b)], dim=1)


def _nearest_cells(
    a: torch.Tensor, cells_of_a: list[torch.Tensor], b: torch.Tensor, cells_of_b: list[torch.Tensor]
) -> Iterator[list[int]]:
    """For each cell of `a`, the nearest of `b` that together hold `N_SEARCHED` layouts, or all."""
    centres = _with_half_squares(torch.stack([b[cell].mean(dim=0) for cell in cells_of_b]))
    sizes = torch.tensor([len(cell) for cell in cells_of_b])
    enough = min(len(sizes), -(-N_SEARCHED // int(sizes.min())))
    for block in _blocks(len(cells_of_a), BLOCK):
        means = torch.stack([_less(a[cells_of_a[k]]).mean(dim=0) for k in block])
        nearest = (means @ centres.T).topk(enough, largest=False).indices
        n_cells = (sizes[nearest].cumsum(dim=1) < N_SEARCHED).sum(dim=1) + 1
        yield from (cells[:n] for cells, n in zip(nearest.tolist(), n_cells.tolist()))


def _less(x: torch.Tensor) -> torch.Tensor:
    """(N, D + 1): (-x, 1), to be multiplied with `_with_half_squares`."""
    return F.pad(-x, (0, 1), value=1)


def _with_half_squares(y: torch.Tensor) -> torch.Tensor:
    """(N, D + 1): (y, |y|² / 2). Its product with (-x, 1) is half the squared distance of x and y, less |x|² / 2."""
    return torch.cat([y, y.square().sum(dim=1, keepdim=True) / 2], dim=1)


def _cells(layout: torch.Tensor) -> list[torch.Tensor]:
    """Positions of similar layouts (N, 192) together, at most `CELL`: halves along the direction of most variance."""
    cells, whole = [], [torch.arange(len(layout))]
    while whole:
        cell = whole.pop()
        if len(cell) <= CELL:
            cells.append(cell)
            continue
        some = layout[cell[:: len(cell) // 2000 + 1]]
        some = some - some.mean(dim=0)
        direction = some[some.square().sum(dim=1).argmax()]
        for _ in range(5):  # power iteration
            direction = F.normalize(some.T @ (some @ direction), dim=0)
        whole += cell[(layout[cell] @ direction).argsort(stable=True)].tensor_split(2)
    return cells


def _blocks(n: int, size: int) -> list[torch.Tensor]:
    return list(torch.arange(n).split(size)) if n else []


def _with_bar(items, title: str) -> tqdm:
    return tqdm(items, title, leave=False, delay=PATIENCE, disable=hides_progress())
