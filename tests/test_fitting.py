"""Folder names without what they share, and tables that fit the console."""

import pytest

from report.fitting import WIDTH, as_table, in_pieces, without_shared

LONG = "a-very-long-name-of-a-folder-that-someone-gave-to-a-run"


@pytest.mark.parametrize(
    ("names", "short", "start"),
    [
        (["/data/runs/plain", "/data/runs/strong"], ["plain", "strong"], "/data/runs/"),
        (["outputs", "outputs_seed43"], ["outputs", "outputs_seed43"], ""),
        (["/data/x", "/tmp/y"], ["/data/x", "/tmp/y"], ""),
        (["runs/a", "runs/a/fold-1"], ["a", "a/fold-1"], "runs/"),
        (["a_long_beginning_of_plain", "a_long_beginning_of_plus"], ["…plain", "…plus"], "a_long_beginning_of_…"),
        ([f"x{LONG}", f"y{LONG}"], [f"x{LONG[:19]}…{LONG[-19:]}", f"y{LONG[:19]}…{LONG[-19:]}"], ""),
        (["."], ["."], ""),
    ],
)
def test_names_lose_what_they_share(names, short, start):
    assert without_shared(names) == (short, start)


def test_names_that_would_be_equal_if_shortened_stay_whole():
    names = [f"{'x' * 30}{letter}{'y' * 30}" for letter in "ab"]
    assert without_shared(names) == (names, "")


def test_pieces_are_words_and_the_parts_of_a_name_and_lose_nothing():
    assert in_pieces("runs/plain-1 (2 folds)") == ["runs/", "plain-", "1 ", "(2 ", "folds)"]
    assert "".join(in_pieces(". a__b-\n")) == ". a__b-\n" and in_pieces("") == []


def test_a_table_fits_the_console_and_breaks_no_word():
    columns = ["Accuracy", "Balanced accuracy, balanced rule", *(f"Score {i}" for i in range(6))]
    rows = [(f"{LONG} classification", [f"0.{i}{k}1\n(0.100 to 0.200)" for k in range(8)]) for i in range(2)]
    lines = as_table(columns, rows).splitlines()
    assert max(map(len, lines)) <= WIDTH and sum("0.0" in line for line in lines) > 1
    text = "\n".join(lines)
    assert all(f"0.{i}{k}1" in text for i in range(2) for k in range(8))
    words = text.replace("-", " ").split()
    assert all(word in words for word in f"{LONG} classification".replace("-", " ").split())


def test_rows_are_aligned():
    """Labels to the left, cells to the right, headings above them."""
    assert as_table(["n", "score"], [("a", ["1", "0.5\n(low)"]), ("bc", ["12", "-"])]).splitlines() == [
        "     n  score",
        "a    1    0.5",
        "        (low)",
        "bc  12      -",
    ]
