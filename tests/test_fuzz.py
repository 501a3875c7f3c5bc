"""Some hundred random bad inputs of every family; python -m tests.fuzz tries thousands."""

import pytest
from fuzz import FAMILIES, family

N_INPUTS = 200  # of each family


@pytest.mark.parametrize("name", FAMILIES)
def test_bad_input_is_refused_in_words_or_understood(name, tmp_path):
    for seed in range(N_INPUTS):
        place = tmp_path / str(seed)
        place.mkdir()
        family(name)(seed, place)
