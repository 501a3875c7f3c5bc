"""The scores that runs are compared by, on the files of a run."""

import json
from functools import reduce

import numpy as np
import pytest

from measure.scores import compared
from report.run import read_head


def test_the_scores_that_runs_are_compared_by_are_those_of_the_runs_files(outputs):
    for task, heads in {"classification": ["label"], "segmentation": ["mask"], "multitask": ["label", "mask"]}.items():
        found = json.loads((outputs / task / "metrics.json").read_text())
        for head in heads:
            table = read_head(outputs / task, head)
            for score in compared(head).values():
                (value,) = score.of(table, np.ones((1, len(table))))
                assert value == pytest.approx(reduce(dict.get, score.path, found[head])), (task, score.title)
