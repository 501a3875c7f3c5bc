"""Groups of images that must stay in one part of a split: those of one lesion or one patient."""

import numpy as np
import pandas as pd


def join_groups(table: pd.DataFrame) -> pd.Series:
    """Group name of each image: images that share a lesion or patient, directly or through others, share a group.

    It is the lesion id if no patient is known.

    Parameters
    ----------
    table : with the columns lesion_id and patient_id, which is missing if unknown.
    """
    lesion = table["lesion_id"]
    if table["patient_id"].isna().all():
        return lesion
    names, lesion_code = np.unique(lesion.to_numpy(object).astype(str), return_inverse=True)
    patient_code, _ = pd.factorize(table["patient_id"])
    known = patient_code >= 0
    n = len(names)
    component = components(n + patient_code.max() + 1, lesion_code[known], n + patient_code[known])
    first = pd.Series(names).groupby(component[:n]).transform("first").to_numpy()
    return pd.Series(first[lesion_code], index=table.index, dtype=object)


def components(n_nodes: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The connected component (n_nodes,) of each node of a graph with an edge from each of `a` to that of `b`."""
    from scipy.sparse import coo_matrix  # a prediction needs no SciPy
    from scipy.sparse.csgraph import connected_components

    return connected_components(coo_matrix((np.ones(len(a)), (a, b)), shape=(n_nodes, n_nodes)), directed=False)[1]


def name_within_patients(lesion: pd.Series, patient: pd.Series) -> tuple[pd.Series, bool]:
    """Lesion ids as patient/lesion if numbering restarts with each patient, and whether it does.

    It does if most images have a lesion number that several patients share.

    Examples
    --------
    >>> name_within_patients(pd.Series(["1", "2", "1"]), pd.Series(["A", "A", "B"]))[0].tolist()
    ['A/1', 'A/2', 'B/1']
    """
    is_number = lesion.str.fullmatch(r"(?:[^\W\d_]{0,10}[\s_-]*)\d{1,3}", na=False).astype(bool)
    n_patients = patient[is_number].groupby(lesion).transform("nunique").reindex(lesion.index)
    if not is_number.any() or 2 * (n_patients[is_number & patient.notna()] > 1).sum() <= is_number.sum():
        return lesion, False
    return lesion.mask(is_number, patient + "/" + lesion), True


def lesions_known(table: pd.DataFrame) -> bool:
    """Whether the lesion of any image is known; an image whose lesion is not is its own, of the image's name."""
    return bool((table["lesion_id"] != table["image"]).any())


def groups_of(table: pd.DataFrame) -> pd.Series:
    """The column by which images are resampled and split: group, or lesion_id if there is none."""
    return table["group"] if "group" in table else table["lesion_id"]
