"""The vocabulary of diagnoses, and --classes, which maps words to classes."""

import itertools
import shlex

import pytest
from conftest import picture

from checkpoints.thresholds import points_among
from dataset import choice, classes
from dataset.classes import classes_of, code_of, is_malignant, is_melanoma
from dataset.layout import find
from dataset.table import read_layout, read_table


def folder_of(place, values, header="image,diagnosis", **others):
    """Images i0, i1, ... with these cells behind their names."""
    for k in range(len(values)):
        (place / "images").mkdir(parents=True, exist_ok=True)
        picture(k).save(place / "images" / f"i{k}.jpg")
    (place / "t.csv").write_text("\n".join([header, *(f"i{k},{value}" for k, value in enumerate(values))]) + "\n")
    return place


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
    assert "does not know rosy rash, 0." in said and said.endswith("--classes malignant=MEL,0 'benign=rosy rash'")


def test_what_to_do_where_all_other_classes_are_malignant_joins_none():
    advice = classes.describe_unknown(["MEL", "rosy rash", "malignant"]).partition("--classes ")[2]
    members = choice.Choice.of(shlex.split(advice)).members
    assert sorted(members.values()) == [("MEL",), ("malignant",), ("rosy rash",)]
    (name,) = (name for name, codes in members.items() if codes == ("rosy rash",))
    assert classes.is_malignant(name)


@pytest.mark.parametrize("name", ["a, b", "C=43", 'the "other", one', "'tis", "rosy rash"])
def test_what_to_do_about_a_class_that_is_not_known_can_be_pasted(name):
    advice = classes.describe_unknown([name, "NV"]).partition("--classes ")[2]
    assert choice.Choice.of(shlex.split(advice)).members == {"malignant": (name,), "benign": ("NV",)}


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


# Columns


def test_true_and_false_and_blanks_are_ones_and_zeros(tmp_path):
    for rows in (["True,False", "False,True"], ["1,", ",1"], ["yes,no", "no,yes"], ["TRUE,", ",TRUE"]):
        assert list(read_table(folder_of(tmp_path, rows, "image,MEL,NV"))["label"]) == ["MEL", "NV"], rows


@pytest.mark.parametrize(
    "name, classes",
    [("melanoma", ("MEL", "not MEL")), ("malignant", ("benign", "malignant")), ("is_ill", ("is_ill", "not is_ill"))],
)
@pytest.mark.parametrize("one, zero", ["10", ("1.0", "0.0"), ("True", "False"), ("1", "")])
def test_one_column_of_zeros_and_ones_names_a_class_and_the_rest(tmp_path, name, classes, one, zero):
    table = read_table(folder_of(tmp_path, [one, zero, one], f"image,{name}"))
    assert set(classes_of(table)) == set(classes)
    assert list(table["label"] == code_of(name)) == [True, False, True]


def test_a_column_of_zeros_and_ones_beside_details_is_no_diagnosis(tmp_path):
    folder = folder_of(tmp_path, ["L1,1", "L2,0"], "image,lesion_id,is_left")
    with pytest.raises(
        FileNotFoundError,
        match=r"t.csv names images but no diagnoses\. If one of its columns is_left does, rename it to label",
    ):
        read_table(folder)


ISIC_2017 = ["1.0,0.0", "0.0,1.0", "0.0,0.0", "0.0,0.0"]


def test_rows_of_zeros_are_asked_about_and_named_by_zeros(tmp_path):
    folder = folder_of(tmp_path, ISIC_2017, "image_id,melanoma,seborrheic_keratosis")
    with pytest.raises(
        ValueError, match=r"2 of 4 rows of .*t\.csv have a 0 for each of melanoma, seborrheic.*--zeros NV"
    ):
        read_table(folder)
    assert list(read_table(folder, zeros="NV")["label"].astype(object)) == ["MEL", "SEK", "NV", "NV"]
    assert read_table(folder, zeros="unknown")["label"].isna().tolist() == [False, False, True, True]


def test_one_row_of_zeros_among_many_is_left_out_with_the_reason(tmp_path):
    rows = [*["1,0", "0,1"] * 10, "0,0"]
    assert read_table(folder_of(tmp_path, rows, "image,MEL,NV"))["reason"].iloc[-1] == "labels are not one-hot"


def test_a_column_of_known_words_is_one_of_diagnoses_whatever_it_is_called(tmp_path):
    table = read_table(folder_of(tmp_path, ["back,melanoma", "face,nevus", "arm,nevus"], "image,place,Befund"))
    assert list(table["label"]) == ["MEL", "NV", "NV"]


def test_numbers_beside_words_that_say_the_same_are_no_second_reading(tmp_path):
    table = read_table(folder_of(tmp_path, ["benign,0", "malignant,1", "benign,0"], "image,benign_malignant,target"))
    assert classes_of(table) == ("benign", "malignant")


def test_true_and_false_columns_about_the_patient_are_no_classes_beside_a_diagnosis(tmp_path):
    """As PAD-UFES-20's, one of which is called skin_cancer_history."""
    rows = ["True,False,NEV", "False,True,MEL", "False,True,BCC"]
    table = read_table(folder_of(tmp_path, rows, "img_id,smoke,skin_cancer_history,diagnostic"))
    assert list(table["label"]) == ["NV", "MEL", "BCC"]


# --classes

WORDS = ["Melanoma, NOS", "BCC", "Nevus", "rosy rash", "a, b"]


def quoted_folder(place):
    return folder_of(place, [f'"{word}"' for word in WORDS])


def test_classes_are_mapped_and_ordered(tmp_path):
    table = read_table(quoted_folder(tmp_path), ["malignant=MEL,BCC", "benign=NV,Rosy Rash"])
    assert classes_of(table) == ("malignant", "benign")
    assert list(table["label"].astype(object)[:4]) == ["malignant", "malignant", "benign", "benign"]
    assert table["reason"].iloc[4] == "labelled a, b, which is not among the classes"


@pytest.mark.parametrize("text", ['x="a, b",NV', "x='a, b', nevus", '"x"="a, b","NV"'])
def test_names_with_blanks_and_commas_may_be_quoted(tmp_path, text):
    table = read_table(quoted_folder(tmp_path), [text, "MEL"])
    assert list(table["label"].astype(object)[[0, 2, 4]]) == ["MEL", "x", "x"]


def test_a_plain_name_may_hold_a_comma(tmp_path):
    assert list(read_table(quoted_folder(tmp_path), ["a, b", "NV"])["label"].astype(object)[[2, 4]]) == ["NV", "a, b"]


@pytest.mark.parametrize(
    "texts, message",
    [
        (["x=MEL", "y=mel,NV"], "A class is named twice: mel"),
        (["x=MEL", "x=NV"], "A class is named twice: x"),
        (["x="], "expected a class, or NAME=CLASS"),
        (["=MEL"], "expected a class, or NAME=CLASS"),
        (["x=wart", "NV"], 'has no class x; its classes are .*"a, b"'),
    ],
)
def test_a_map_that_cannot_be_meant_is_refused_with_the_classes(tmp_path, texts, message):
    with pytest.raises(ValueError, match=message):
        read_table(quoted_folder(tmp_path), texts)


def test_a_member_that_the_data_do_not_have_is_named(tmp_path):
    layout = find(quoted_folder(tmp_path), map_ := choice.Choice.of(["x=MEL,wart", "NV"]))
    _, remarks = map_.apply(layout.labels, True, "here")
    assert remarks[0] == "--classes names wart, which here does not have."


def test_another_data_sets_words_become_the_models_classes(tmp_path):
    folder = folder_of(tmp_path, ["melanoma", "malignant", "Benign", "wart"])
    table = read_table(folder, ["malignant=MEL,BCC", "benign=NV"], complete=False)
    assert list(table["label"].astype(object)[:3]) == ["malignant", "malignant", "benign"]
    assert table["reason"].iloc[3] == "labelled wart, which is not among the classes"


def test_another_data_sets_own_spelling_of_a_models_class_is_that_class(tmp_path):
    table = read_table(folder_of(tmp_path, ["ILL", "Well"]), ["ill=MEL", "well=NV"], complete=False)
    assert list(table["label"]) == ["ill", "well"]


@pytest.mark.parametrize("texts, left_out", [(["BCC=SCC", "NV"], "BCC"), (["NV", "malignant=SCC"], "malignant")])
def test_a_class_whose_name_is_given_to_others_is_left_out_with_the_reason(tmp_path, texts, left_out):
    table = read_table(folder_of(tmp_path, ["SCC", left_out, "nevus"]), texts)
    assert table["label"].isna().tolist() == [False, True, False]
    assert table["reason"].iloc[1] == f"labelled {left_out}, which is not among the classes"


def test_a_class_that_is_part_of_its_own_map_stays(tmp_path):
    table = read_table(folder_of(tmp_path, ["MEL", "BCC", "nevus"]), ["MEL=BCC", "BCC=MEL", "NV"])
    assert list(table["label"]) == ["BCC", "MEL", "NV"]


@pytest.mark.parametrize(
    "text, members",
    [
        ("ill=Hailey's rash,melanoma", ("Hailey's rash", "MEL")),
        ('ill=\'Hailey\'\'s, rash\', "the ""other"""', ("Hailey's, rash", 'the "other"')),
        ("ill=Hailey's rash,Grover's", ("Hailey's rash", "Grover's")),
        ("ill='a' b,'tis", ("'a' b", "'tis")),
    ],
)
def test_only_quotation_marks_that_enclose_a_name_are_any(text, members):
    assert choice.Choice.of([text]).members == {"ill": members}


def test_a_flag_that_is_printed_names_the_same_classes():
    marks = ["", ",", ", ", "=", "'", '"', " ", '""', "','"]
    for before, between, behind in itertools.product(marks, repeat=3):
        names = [f"{before}x{between}y{behind}".strip(), "C=43", "NV", "a, b"]
        flag = choice.as_flag(names)
        assert choice.Choice.of(shlex.split(flag)[1:]).names == tuple(names), flag
        again = choice.as_flag([classes.quoted(name) for name in names])
        assert again == flag


def test_a_map_that_is_printed_stays_a_map():
    assert choice.as_flag(['MEL=MEL,"a, b"']) == """--classes 'MEL=MEL,"a, b"'"""


def refusal(folder, **reading):
    with pytest.raises(ValueError) as refused:
        read_layout(find(folder, **reading), choice.Choice.of(reading.get("classes", ())))
    return str(refused.value)


def flagged(text):
    """The words behind --classes in a message, as a shell gives them."""
    line = text.partition("--classes ")[2].split("\n")[0].partition(", or ")[0]
    return shlex.split(line)


@pytest.mark.parametrize("column", ["label_name", "class_name", "category"])
def test_words_come_before_the_numbers_of_the_same_classes(tmp_path, column):
    rows = [f"{k % 2},{('nevus', 'melanoma')[k % 2]}" for k in range(6)]
    assert classes_of(read_table(folder_of(tmp_path, rows, f"image,label,{column}"))) == ("MEL", "NV")


def test_a_clinical_diagnosis_counts_where_there_is_no_other(tmp_path):
    rows = [f"{('nevus', 'melanoma')[k % 2]},{('melanoma', 'nevus')[k // 3]}" for k in range(6)]
    for name, other in (("a", "diagnosis"), ("b", "Histological Diagnosis")):
        cells = [("," + row.split(",")[1]) if other != "diagnosis" else row for row in rows]
        table = read_table(folder_of(tmp_path / name, cells, f"image,{other},Clinical Diagnosis"))
        words = [row.split(",")[name == "b"] for row in rows]
        assert list(table["label"]) == [{"nevus": "NV", "melanoma": "MEL"}[word] for word in words]


@pytest.mark.parametrize("column", ["label", "malignant"])
def test_numbers_that_join_what_words_tell_apart_are_asked_about(tmp_path, column):
    rows = [f"{k % 2},{('nevus', 'melanoma', 'dermatofibroma')[k % 3]}" for k in range(6)]
    folder = folder_of(tmp_path, rows, f"image,{column},words")
    said = refusal(folder)
    assert "can be read in 2 ways" in said
    assert set(classes_of(read_table(folder, flagged(said)))) == {"MEL", "NV", "DF"}


def test_zeros_name_the_class_of_the_rest_of_a_single_column(tmp_path):
    folder = folder_of(tmp_path, [0, 1, 0], "image,melanoma")
    assert list(read_table(folder, zeros="NV")["label"]) == ["NV", "MEL", "NV"]
    assert read_table(folder, zeros="unknown")["label"].isna().tolist() == [True, False, True]


def test_zeros_that_can_name_nothing_are_refused(tmp_path):
    assert "diagnoses are read from column diagnosis. Omit --zeros." in refusal(
        folder_of(tmp_path / "a", ["nevus", "melanoma"]), zeros="NV"
    )
    for code in ("nevus", "melanoma"):
        (tmp_path / "b" / code).mkdir(parents=True)
        picture(len(code)).save(tmp_path / "b" / code / f"{code}.jpg")
    assert "read from 2 folders, one per class." in refusal(tmp_path / "b", zeros="NV")


def test_a_column_of_zeros_alone_is_no_class_and_is_named(tmp_path):
    folder = folder_of(tmp_path, ["1,0,0,0", "0,1,0,0"], "image,mel,nv,bcc,gel")
    layout = find(folder)
    assert layout.labels.classes == ("MEL", "NV", "BCC") and "without gel (0 in each row)" in layout.describe()


def test_two_columns_of_zeros_and_ones_of_no_known_name_are_asked_about(tmp_path):
    folder = folder_of(tmp_path, [f"{k % 2},{1 - k % 2}" for k in range(4)], "image,hair,ruler")
    said = refusal(folder)
    assert "which may not be diagnoses" in said
    assert classes_of(read_table(folder, flagged(said))) == ("hair", "ruler")


def test_columns_of_the_same_classes_that_differ_are_not_to_be_chosen_by_classes(tmp_path):
    rows = [
        f"{one},{other}" for one, other in (("benign", "Benign"), ("malignant", "Malignant"), ("benign", "Malignant"))
    ]
    folder = folder_of(tmp_path, rows, "image,benign_malignant,diagnosis_1")
    for wanted in ((), ("benign", "malignant")):
        said = refusal(folder, classes=wanted)
        assert "They differ in 1 rows. Correct these" in said and "--classes" not in said


def test_wanted_classes_that_no_column_has_are_named_with_those_that_one_has(tmp_path):
    rows = ["melanoma,malignant,1", "nevus,benign,0", "unknown,benign,0"]
    folder = folder_of(tmp_path, rows, "image,diagnosis,benign_malignant,target")
    said = refusal(folder, classes=("0", "1"))
    assert "has no class 0, 1. It can be read in 2 ways" in said
    assert classes_of(read_table(folder, flagged(said))) == ("benign", "malignant")
