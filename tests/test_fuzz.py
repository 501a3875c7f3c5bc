"""Some hundred random bad inputs of every family; python -m tests.fuzz tries thousands."""

import pytest
from fuzz import FAMILIES, family

N_INPUTS = {"folders": 200, "checkpoints": 60}  # of each family; of others 100


@pytest.mark.parametrize("name", FAMILIES)
def test_bad_input_is_refused_in_words_or_understood(name, tmp_path):
    for seed in range(N_INPUTS.get(name, 100)):
        place = tmp_path / str(seed)
        place.mkdir()
        family(name)(seed, place)
