"""Which images must stay in one part of a split: those of a lesion, and those of a patient."""

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def join_groups(table: pd.DataFrame) -> pd.Series:
    """A name for each image that two share if they share the lesion or the patient, themselves or through others.

    It is the lesion's where no patient is known.

    Parameters
    ----------
    table : with columns lesion_id, and patient_id that is missing where it is not known.
    """
    lesion = table["lesion_id"]
    if table["patient_id"].isna().all():
        return lesion
    names, lesion_code = np.unique(lesion.to_numpy(object).astype(str), return_inverse=True)
    patient_code, _ = pd.factorize(table["patient_id"])
    known = patient_code >= 0
    n = len(names)
    size = n + patient_code.max() + 1
    graph = coo_matrix((np.ones(known.sum()), (lesion_code[known], n + patient_code[known])), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    first = pd.Series(names).groupby(component[:n]).transform("first").to_numpy()
    return pd.Series(first[lesion_code], index=table.index, dtype=object)


def name_within_patients(lesion: pd.Series, patient: pd.Series) -> tuple[pd.Series, bool]:
    """Lesion ids as patient/lesion where they are numbers that begin anew with each patient, and whether they are.

    They are where most images have a number that several patients have. Without its patient such a number says nothing.

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


def groups_of(table: pd.DataFrame) -> pd.Series:
    """What a table's images are drawn and split by: its column group, or lesion_id where it has none."""
    return table["group"] if "group" in table else table["lesion_id"]
