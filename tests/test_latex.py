"""Text and tables as LaTeX and CSV."""

import re

import pytest

from report.latex import N_CHARACTERS, N_ROWS, PaperTable, as_frame, as_latex, declarations, escaped


def score(value, low=None, high=None):
    return {"value": value, "interval": None if low is None else [low, high]}


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("a_b & 50 % #1 $x$ {y}", r"a\_b \& 50 \% \#1 \$x\$ \{y\}"),
        ("\\~^", r"\textbackslash{}\textasciitilde{}\textasciicircum{}"),
        ('<|>"`', r"\textless{}\textbar{}\textgreater{}\textquotedbl{}\textasciigrave{}"),
        ("[x] *", "{[}x] {*}"),
        ("a--b ''", "a-{}-b '{}'"),
        ("ResNet-18's Ä", "ResNet-18's Ä"),
        ("a\nb\udcff", r"a\textbackslash{}nb\textbackslash{}udcff"),
    ],
)
def test_every_special_character_is_escaped(text, latex):
    assert escaped(text) == latex


def test_only_characters_beyond_ascii_are_declared_each_once():
    found = declarations("ä癌 癌 a")
    assert re.findall(r"DeclareUnicodeCharacter{(\w+)}", found) == ["00E4", "764C"]
    assert declarations("plain").count("Declare") == 1  # the guard for other engines


def test_numbers_have_three_decimals_their_intervals_and_a_dash_where_undefined():
    row = ["a_b", 1234, score(0.12345, 0.1, 0.2), score(None), score(-0.0001), score(-0.5, -0.6, -0.4), score(7), None]
    (line,) = [
        line for line in as_latex(PaperTable("t", "c", list("abcdefgh"), [row]), "").splitlines() if "1,234" in line
    ]
    expected = [r"a\_b", "1,234", "0.123 (0.100--0.200)", "--", "0.000", "$-0.500$ ($-0.600$--$-0.400$)", "7", "--"]
    assert line == " & ".join(expected) + r" \\"


def test_a_table_has_booktabs_rules_a_label_and_its_note():
    latex = as_latex(PaperTable("t_1", "50 % of a_b", ["Class", "R&D"], [["x", 1]]), "demo & data")
    assert r"\caption{50 \% of a\_b. Data: demo \& data.}\label{tab:t_1}" in latex
    assert r"Class & R\&D \\" in latex
    rules = [word for word in re.findall(r"\\(\w+)", latex) if word.endswith("rule")]
    assert rules == ["toprule", "midrule", "bottomrule"]


def test_a_long_table_continues_after_a_page_of_rows():
    rows = [[f"class {i}", i] for i in range(2 * N_ROWS + 1)]
    latex = as_latex(PaperTable("t", "c", ["Class", "n"], rows), "")
    parts = latex.split(r"\end{table}")[:-1]
    assert [len(re.findall(r"^class \d+ &", part, re.MULTILINE)) for part in parts] == [N_ROWS, N_ROWS, 1]
    assert ["continued" in part for part in parts] == [False, True, True] and latex.count(r"\label") == 1
    assert all(r"Class & n \\" in part for part in parts)


def test_a_wide_table_continues_with_its_first_column_again():
    columns = ["Class", *(f"score {i}" for i in range(9))]
    latex = as_latex(PaperTable("t", "c", columns, [["MEL", *[score(0.5, 0.4, 0.6)] * 9]]), "")
    lines = [line for line in latex.splitlines() if line.startswith("Class")]
    assert len(lines) > 1 and [word for line in lines for word in re.findall(r"score \d", line)] == columns[1:]
    rows = [line for line in latex.splitlines() if line.startswith("MEL")]
    assert len(rows) == len(lines) and all(len(row) <= N_CHARACTERS for row in rows)
    assert [row.count("&") for row in rows] == [line.count("&") for line in lines]


def test_a_csv_has_the_ends_of_intervals_in_columns_and_the_note_in_each_row():
    rows = [["001", 3, score(0.12345, 0.1, 0.2)], ["all", 4, score(None)]]
    frame = as_frame(PaperTable("t", "c", ["Class", "n", "F1"], rows), "demo")
    assert list(frame) == ["Class", "n", "F1", "F1, low", "F1, high", "data"]
    assert frame.values.tolist() == [["001", "3", "0.123", "0.100", "0.200", "demo"], ["all", "4", "", "", "", "demo"]]
    assert "data" not in as_frame(PaperTable("t", "c", ["Class", "n", "F1"], rows), "")
