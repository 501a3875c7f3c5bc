"""The vocabulary of diagnoses."""

import shlex

import pytest
from conftest import folder_of

from checkpoints.thresholds import points_among
from dataset import choice, classes
from dataset.classes import classes_of, code_of, is_malignant, is_melanoma
from dataset.table import read_table


@pytest.mark.parametrize(
    "word",
    [
        "unknown",
        "nan",
        "None",
        "NA",
        "n/a",
        "?",
        "indeterminate",
        "-1",
        "-1.0",
        "UNK",
        "NULL",
        "-",
        "--",
        "<NA>",
        "Undetermined",
        "unlabeled",
        "not available",
        "Not_Available",
        "N/A",
        "no diagnosis",
        "unsure",
        "Uncertain",
        "not_sure",
        "Not classified",
    ],
)
def test_a_word_for_no_diagnosis_is_no_class(tmp_path, word):
    table = read_table(folder_of(tmp_path, ["melanoma", "nevus", word]))
    assert classes_of(table) == ("MEL", "NV")
    assert table["reason"].iloc[2] == f"labelled {word}, which is not a diagnosis"


def test_spellings_of_a_word_that_is_not_known_are_one_class_by_the_commonest(tmp_path):
    table = read_table(
        folder_of(tmp_path, ["Acne", "acne", "acne", "ACNE", "rosy-rash", "Rosy rash", "Rosy rash", "rosy_rash"])
    )
    assert classes_of(table) == ("Rosy rash", "acne")


@pytest.mark.parametrize(
    "code, words",
    {
        "MEL": "mel Melanoma MELANOMA malignant_melanoma",
        "NV": "nv NEV nevus Nevi naevus melanocytic_nevi Melanocytic-Nevus",
        "AKIEC": "AK ack akiec Actinic_keratoses actinic_keratosis Solar_or_actinic_keratosis",
        "BKL": "bkl benign_keratosis-like_lesions Benign_Keratosis",
        "SEK": "SEK sk seborrheic_keratosis Seborrheic_Keratosis seborrhoeic_keratosis",
        "VASC": "vasc vascular_lesions Vascular_Lesion",
        "SCC": "scc squamous_cell_carcinoma",
        "benign": "Benign BENIGN benign",
        "malignant": "Malignant MALIGNANT",
    }.items(),
    ids=lambda value: value.split()[0],
)
def test_the_same_word_in_any_spelling_is_one_code(code, words):
    assert {code_of(word) for word in words.split()} == {code}
    assert {code_of(word.replace("_", " ") + " ") for word in words.split()} == {code}


@pytest.mark.parametrize(
    "word, code",
    {
        "melanoma+": "MEL",
        "Melanoma (+)": "MEL",
        "melanoma-": "not MEL",
        "melanoma (-)": "not MEL",
        "MEL \u2212": "not MEL",
        "malignant -": "benign",
        "benign-": "malignant",
        "rash-": "rash-",
        "rash+": "rash+",
        "melanoma_": "MEL",
        "--": "--",
    }.items(),
)
def test_a_sign_behind_a_word_says_positive_or_negative(word, code):
    assert code_of(word) == code_of(code) == code


def test_words_of_other_signs_are_other_classes(tmp_path):
    table = read_table(folder_of(tmp_path, ["melanoma+", "melanoma-", "melanoma", "Melanoma (-)", "rash-", "rash"]))
    assert list(table["label"]) == ["MEL", "not MEL", "MEL", "not MEL", "rash-", "rash"]


def test_denied_words_are_known_and_a_column_of_them_is_one_of_diagnoses(tmp_path):
    assert classes.describe_unknown(["melanoma excluded", "negative for malignancy", "melanoma: no"]) == ""
    table = read_table(folder_of(tmp_path, ["a,melanoma: no", "b,melanoma: yes"], "image,note,Befund"))
    assert set(classes_of(table)) == {"melanoma: no", "melanoma: yes"}


def test_not_otherwise_specified_adds_nothing():
    assert [code_of(f"{name}, NOS") for name in ("Melanoma", "Nevus", "Squamous cell carcinoma")] == [
        "MEL",
        "NV",
        "SCC",
    ]


def test_a_part_of_a_diagnosis_is_a_class_of_its_own():
    words = [
        "Melanoma in situ",
        "Melanoma Invasive",
        "Melanoma",
        "Common Nevus",
        "Atypical Nevus",
        "Nevus",
        "Bowen's disease",
    ]
    assert len({code_of(word) for word in words}) == len(words)
    assert code_of("seborrheic keratosis") != code_of("bkl")


@pytest.mark.parametrize(
    "word, melanoma, malignant",
    [
        ("Malignant", False, True),
        ("Melanoma, NOS", True, True),
        ("melanoma in situ", True, True),
        ("Melanoma Invasive", True, True),
        ("melanoma (less than 0.76 mm)", True, True),
        ("lentigo maligna", True, True),
        ("Squamous cell carcinoma, Invasive", False, True),
        ("Malignant epidermal proliferations", False, True),
        ("Bowen's disease", False, True),
        ("non-melanoma skin cancer", False, True),
        ("not MEL", False, False),
        ("nonmelanoma", False, False),
        ("Benign melanocytic proliferations", False, False),
        *(
            (word, False, False)
            for word in (
                "no evidence of melanoma",
                "no evidence of malignant melanoma",
                "no sign of invasive carcinoma",
                "melanoma excluded",
                "melanoma in situ excluded",
                "basal cell carcinoma: ruled out",
                "melanoma: no",
                "Melanoma negative",
                "rule out melanoma",
                "r/o basal cell carcinoma",
                "negative for malignancy",
                "precancerous",
                "pre-cancerous",
                "premalignant lesion",
                "no malignant melanoma",
                "lymphoma: no",
                "sarcoma (-)",
                "melanoma-",
                "non-malignant",
            )
        ),
        *(
            (word, True, True)
            for word in (
                "melanoma without ulceration",
                "melanoma, no ulceration",
                "melanoma, no evidence of metastasis",
                "non-metastatic melanoma",
                "melanoma No. 3",
                "melanoma: yes",
                "melanoma, margins negative",
                "melanoma+",
            )
        ),
        ("no evidence of melanoma, basal cell carcinoma", False, True),
        ("non-melanoma carcinoma", False, True),
        ("nevus", False, False),
        ("rosy rash", False, False),
    ],
)
def test_the_words_of_a_class_say_whether_it_is_melanoma_and_malignant(word, melanoma, malignant):
    assert (is_melanoma(code_of(word)), is_malignant(code_of(word))) == (melanoma, malignant)


def test_thresholds_are_fitted_for_all_stages_of_melanoma():
    codes = list(map(code_of, ["Nevus", "Melanoma in situ", "Melanoma Invasive", "Squamous cell carcinoma in situ"]))
    assert points_among(codes) == {"melanoma": [1, 2], "malignant": [1, 2, 3]}
    assert points_among([code_of("Benign"), code_of("Malignant")]) == {"malignant": [1]}


def test_classes_that_are_not_known_are_named_with_what_to_do(tmp_path):
    assert classes.describe_unknown(["MEL", "NV", "not MEL", "Melanoma (thin)"]) == ""
    said = classes.describe_unknown(["MEL", "rosy rash", "0"])
    assert "does not know rosy rash, 0, so none" in said and said.endswith("--classes MEL 'CODE=rosy rash' CODE=0")
    assert said.startswith("The vocabulary does not know rosy rash, 0,") and "MEL (Melanoma), NV (Nevus), BCC" in said


@pytest.mark.parametrize("name", ["a, b", "C=43", 'the "other", one', "'tis", "rosy rash"])
def test_what_to_do_about_a_class_that_is_not_known_can_be_pasted_and_claims_no_diagnosis(name):
    advice = classes.describe_unknown([name, "NV"]).partition("--classes ")[2]
    assert choice.Choice.of(shlex.split(advice)).members == {"CODE": (name,), "NV": ("NV",)}
    assert not classes.is_malignant("CODE") and not classes.is_known("CODE")


def test_what_to_do_about_several_unknown_classes_is_refused_until_the_codes_are_filled_in():
    advice = classes.describe_unknown(["rosy rash", "acne", "NV"]).partition("--classes ")[2]
    with pytest.raises(ValueError, match="CODE"):
        choice.Choice.of(shlex.split(advice))
    filled = choice.Choice.of(shlex.split(advice.replace("CODE", "malignant", 1).replace("CODE", "benign", 1)))
    assert filled.members == {"malignant": ("rosy rash",), "benign": ("acne",), "NV": ("NV",)}


@pytest.mark.parametrize("name", ["true", "false", "image", "predicted", "balanced", "label", "Status"])
def test_a_class_called_as_a_column_of_our_tables_gets_another_name(tmp_path, name):
    table = read_table(folder_of(tmp_path, [name, "nevus", "acne"]))
    assert f"{name}_" in classes_of(table) and name not in classes_of(table)


def test_kaggles_and_the_archives_words_are_known():
    words = (
        "Actinic keratoses;Melanocytic nevi;Benign keratosis-like lesions ;Vascular lesions;pigmented benign keratosis;"
    )
    words += "Common Nevus;Atypical Nevus;reed or spitz nevus;blue nevus;clark nevus;lentigo;melanosis;Solar lentigo;"
    words += "Seborrheic keratosis;Lichen planus like keratosis;Dermatofibroma;Hemangioma;ACK;NEV;SEK;BCC"
    assert [word for word in words.split(";") if not classes.is_known(code_of(word))] == []
