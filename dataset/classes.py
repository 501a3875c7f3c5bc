"""Names of diagnoses: one vocabulary for every data set, insensitive to case, hyphens and common plurals."""

import re
import shlex
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from dataset.csvfile import CONTROL, TEXT

HAM10000 = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
MELANOMA, MALIGNANT, BENIGN, NEITHER = "melanoma", "malignant", "benign", ""
# Code, full name, kind, and synonyms from HAM10000, Kaggle, the ISIC Archive's diagnosis_1 to _5, ISIC 2016 to 2024,
# PAD-UFES-20, Derm7pt and PH2. A subtype or supertype is a separate class.
VOCABULARY = (
    ("MEL", "Melanoma", MELANOMA, "melanomas; malignant melanoma; melanoma nos"),
    ("NV", "Nevus", BENIGN, "nevi; naevus; naevi; nev; mole; moles; nevus nos; melanocytic nevus; melanocytic nevi; "
                            "melanocytic naevus; melanocytic naevi; melanocytic nevus nos"),
    ("BCC", "Basal Cell Carcinoma", MALIGNANT, "basal cell carcinomas; basal cell carcinoma nos; basalioma"),
    ("AKIEC", "Actinic Keratosis", MALIGNANT,
     "ak; ack; actinic keratoses; solar keratosis; solar or actinic keratosis; actinic keratosis intraepithelial "
     "carcinoma; actinic keratoses and intraepithelial carcinoma; actinic keratoses and intraepithelial carcinomas; "
     "actinic keratoses and intraepithelial carcinoma bowens disease; actinic keratosis bowens disease"),
    ("BKL", "Benign Keratosis", BENIGN,
     "benign keratoses; benign keratosis like lesion; benign keratosis like lesions"),
    ("DF", "Dermatofibroma", BENIGN, "dermatofibromas"),
    ("VASC", "Vascular Lesion", BENIGN, "vascular; vascular lesions; vascular skin lesion; vascular skin lesions"),
    ("SCC", "Squamous Cell Carcinoma", MALIGNANT, "squamous cell carcinomas; squamous cell carcinoma nos"),
    ("SEK", "Seborrheic Keratosis", BENIGN, "sk; seborrheic keratoses; seborrhoeic keratosis; seborrhoeic keratoses"),
    ("malignant", "malignant", MALIGNANT, "malign; malignant lesion; malignant lesions"),
    ("benign", "benign", BENIGN, "benign lesion; benign lesions; benigns"),
    ("melanoma in situ", "Melanoma in situ", MELANOMA, "in situ melanoma"),
    ("melanoma invasive", "Invasive melanoma", MELANOMA, "invasive melanoma"),
    ("melanoma metastasis", "Melanoma metastasis", MELANOMA, "metastatic melanoma; melanoma metastases"),
    ("lentigo maligna", "Lentigo maligna", MELANOMA, ""),
    ("squamous cell carcinoma in situ", "Squamous cell carcinoma in situ", MALIGNANT,
     "scc in situ; bowens disease; bowen disease; intraepithelial carcinoma"),
    ("squamous cell carcinoma invasive", "Invasive squamous cell carcinoma", MALIGNANT,
     "invasive squamous cell carcinoma"),
    ("lichenoid keratosis", "Lichenoid keratosis", BENIGN, "lichen planus like keratosis; lplk"),
    ("hemangioma", "Hemangioma", BENIGN, "haemangioma; hemangiomas; haemangiomas"),
    ("solar lentigo", "Solar lentigo", BENIGN, "solar lentigines"),
    ("lentigo", "Lentigo", BENIGN, "lentigo nos; lentigines"),
    ("atypical melanocytic proliferation", "Atypical melanocytic proliferation", NEITHER, ""),
    ("miscellaneous", "Miscellaneous", NEITHER, ""),
    *((name, name.capitalize(), BENIGN, name.replace("nevus", "naevus") if "nevus" in name else "") for name in (
        "pigmented benign keratosis", "lentigo simplex", "melanosis", "blue nevus", "clark nevus", "combined nevus",
        "common nevus", "atypical nevus", "dysplastic nevus", "congenital nevus", "dermal nevus", "compound nevus",
        "junctional nevus", "recurrent nevus", "spitz nevus", "reed nevus", "reed or spitz nevus", "halo nevus",
        "nevus spilus", "lentigo nevus", "angioma", "cherry angioma", "angiokeratoma", "cafe au lait macule",
        "pyogenic granuloma", "wart", "verruca", "acrochordon", "neurofibroma", "sebaceous hyperplasia", "scar",
        "clear cell acanthoma", "angiofibroma", "fibrous papule", "cyst", "lipoma",
    )),
)  # fmt: skip
NAMES = {code: name for code, name, _, _ in VOCABULARY}
_KINDS = {code: kind for code, _, kind, _ in VOCABULARY}
NO_DIAGNOSIS = frozenset(  # cells that mean no diagnosis
    [
        "unk",
        "unknown",
        "nan",
        "none",
        "na",
        "n/a",
        "n.a.",
        "<na>",
        "#n/a",
        "?",
        "??",
        "-",
        "--",
        "-1",
        "-1.0",
        "null",
        "nil",
        "missing",
        "indeterminate",
        "undetermined",
        "unspecified",
        "undiagnosed",
        "unlabeled",
        "unlabelled",
        "tbd",
        "pending",
    ]
) | {
    "unsure",
    "uncertain",
    "not sure",
    "not classified",
    "not available",
    "not applicable",
    "not specified",
    "not known",
    "not diagnosed",
    "no diagnosis",
    "no label",
}
_MALIGNANT = re.compile(r"melanoma|carcinoma|malignan|maligna\b|sarcoma|lymphoma|metasta|cancer|bowen")
_DISEASE = r"(?:malignant )?(?:melanoma|carcinoma|maligna|sarcoma|lymphoma|metasta|cancer|bowen)\w*"
_ANY = r"(?:(?:invasive|residual|recurrent|basal cell|squamous cell|skin) )*"
_DENIED = re.compile(
    rf"\b(?:non|not|pre)\s*(?:melanoma|maligna|cancer|carcinoma)\w*|\b(?:no|without)\s*{_ANY}{_DISEASE}"
    r"|\b(?:(?:no|without) (?:evidence|signs?) of|(?:negative|no evidence) for|free of|ruled? out|r o|excludes?) "
    rf"{_ANY}{_DISEASE}"
    rf"|\b{_ANY}{_DISEASE}(?: in situ)? (?:excluded|ruled out|absent|negative|no)$"
)
_SIGN = re.compile(r"(?<=\w)[\s_(\[]*([+\-\u2212\u2013])[\s)\]]*$")  # after a word: positive, negative
_OPPOSITES = {"malignant": "benign", "benign": "malignant"}


def key_of(text: str) -> str:
    """Key shared by spellings of the same words: lower case, one space for hyphens, underscores and the like.

    A sign at the end stays, because it separates positive from negative.
    """
    words, sign = _signed(text.lower())
    return re.sub(r"[\s_\-/,;:()\[\].]+", " ", re.sub("['`\u2019]", "", words)).strip() + sign


def _signed(text: str) -> tuple[str, str]:
    """Split off the final + or -, "" for none."""
    match = _SIGN.search(text)
    return (text[: match.start()], "+" if match[1] == "+" else "-") if match else (text, "")


SPELLINGS = {
    key_of(spelling): code
    for code, name, _, more in VOCABULARY
    for spelling in (code, name, *more.split("; "))
    if spelling
}


def is_no_diagnosis(text: str) -> bool:
    """Whether a cell means that the diagnosis is unknown.

    Examples
    --------
    >>> is_no_diagnosis("Unknown"), is_no_diagnosis("n/a"), is_no_diagnosis("nevus"), is_no_diagnosis("")
    (True, True, False, False)
    """
    text = text.strip().lower()
    if text in NO_DIAGNOSIS or text[-1:].isdigit():  # most often an id; no word of several parts ends so
        return text in NO_DIAGNOSIS
    return re.sub(r"[\s_]+", " ", text) in NO_DIAGNOSIS


def code_of(spelling: str) -> str:
    """The code of a class in the vocabulary; any other string is its own code.

    Dots, which separate names in the scores, and control characters become _, but 1.0 is 1. A column name of this
    project's tables gets a trailing _. A known class with a + is that class, and with a - its opposite.

    Examples
    --------
    >>> code_of("Melanoma, NOS"), code_of("AK"), code_of("BENIGN"), code_of("1.0"), code_of("k. seb."), code_of("true")
    ('MEL', 'AKIEC', 'benign', '1', 'k_ seb_', 'true_')
    """
    text = spelling.strip()
    if known := SPELLINGS.get(key_of(text)):
        return known
    words, sign = _signed(text)
    if sign and (known := SPELLINGS.get(key_of(words))):
        return known if sign == "+" else _OPPOSITES.get(known, f"not {known}")
    text = CONTROL.sub("_", re.sub(r"^(\d+)\.0+$", r"\1", text)).replace(".", "_")
    return f"{text}_" if text.lower() in {*TEXT, "false", "fold"} else text


def codes_of(values: Iterable[str]) -> dict[str, str]:
    """The code of each string; unknown ones that differ only in case or hyphens share the most frequent spelling.

    Examples
    --------
    >>> codes_of(["Acne", "acne", "acne", "NEVUS"])
    {'Acne': 'acne', 'acne': 'acne', 'NEVUS': 'NV'}
    """
    counts = pd.Series(list(values), dtype=object).value_counts()
    counts = counts[sorted(counts.index, key=lambda text: (-counts[text], text))]
    shared: dict[str, str] = {}
    for text in counts.index:
        key = key_of(text) if re.search(r"[^\W\d_]", text) else text.strip()
        shared.setdefault(key, code_of(text))
    return {
        text: shared[key_of(text) if re.search(r"[^\W\d_]", text) else text.strip()] for text in dict.fromkeys(values)
    }


def name_of(code: str) -> str:
    """The full name of a known class; the code of any other."""
    return NAMES.get(code, code)


def is_known(code: str) -> bool:
    """Whether the malignancy of a class is known."""
    return code in NAMES or is_malignant(code) or _asserted(code) != key_of(code)


def is_diagnosis(code: str) -> bool:
    """Whether a class is a diagnosis in the vocabulary, including "benign" and "malignant"."""
    return code in NAMES or is_malignant(code) or key_of(code) == "benign"


def is_melanoma(code: str) -> bool:
    """Whether a class is melanoma of any stage: "MEL", "melanoma in situ", "Melanoma (less than 0_76 mm)"."""
    return _KINDS.get(code) == MELANOMA or ("melanoma" in _asserted(code) and code not in NAMES)


def is_malignant(code: str) -> bool:
    """Whether a class is malignant, by the vocabulary or by a word in its name."""
    return _KINDS[code] in (MELANOMA, MALIGNANT) if code in NAMES else bool(_MALIGNANT.search(_asserted(code)))


def _asserted(code: str) -> str:
    """The key of a class without its negated words; "" for a benign or negated class."""
    key = _DENIED.sub("", key_of(code))
    return "" if key.startswith(("benign", "not ")) or key.endswith("-") else key


class Quoted(str):
    """A class name that is already quoted."""


def quoted(name: str) -> str:
    """Quote a class name for a comma-separated list or a word of --classes, if necessary."""
    if isinstance(name, Quoted) or not ("," in name or "=" in name or name.startswith(("'", '"'))):
        return name
    return Quoted('"' + name.replace('"', '""') + '"')


def with_names(codes: Iterable[str]) -> str:
    """A list of codes, each with its full name if it has one."""
    return ", ".join(
        code if NAMES.get(code, code).lower() == code.lower() else f"{code} ({NAMES[code]})" for code in codes
    )


FOR_ALL = (*HAM10000, "SCC", "malignant", "benign")  # those named in advice


def in_order(codes: Iterable[str], of_file: Sequence[str] = ()) -> tuple[str, ...]:
    """Classes in the order of the file, or else by name; HAM10000's seven in their own order."""
    codes = set(codes)
    if codes == set(HAM10000) or (codes <= set(HAM10000) and not of_file):
        return tuple(code for code in HAM10000 if code in codes)
    return tuple(of_file) or tuple(sorted(codes))


def describe_unknown(classes: Sequence[str]) -> str:
    """Warn about classes whose malignancy is unknown, and say what to do; "" if all are known."""
    unknown = [code for code in classes if not is_known(code)]
    if not unknown:
        return ""
    some = ", ".join(map(quoted, unknown[:8])) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
    words = shlex.join(quoted(code) if is_known(code) else f"CODE={quoted(code)}" for code in classes)
    return (
        f"The vocabulary does not know {some}, so none of these counts as malignant or gets a threshold. If that is "
        f"wrong, replace each CODE by one of {with_names(FOR_ALL)} (classes that share a code: CODE=one,other): "
        f"--classes {words}"
    )


def classes_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The classes of a table, in order; () without diagnoses, HAM10000's if labels are positions."""
    label = table["label"]
    return tuple(label.cat.categories) if isinstance(label.dtype, pd.CategoricalDtype) else HAM10000


def positions_of(table: pd.DataFrame) -> np.ndarray:
    """Class index of each row's label, -1 for none: (N,) int64.

    A table made by hand may hold the indices directly.
    """
    label = table["label"]
    return (label.cat.codes if isinstance(label.dtype, pd.CategoricalDtype) else label).to_numpy(np.int64)
