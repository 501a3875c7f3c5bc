"""Command lines of main.py: settings of every kind and value, before any file is touched."""

import contextlib
import io
from pathlib import Path

import numpy as np

import main
import settings

VALUES = [
    *("0", "1", "-1", "7", "0.5", "1e30", "1e-400", "inf", "nan", "-0.0", "99999999999999999999", "0x10", "1_000"),
    *("yes", "cpu", "flips", "auto", "classification", "data/../data", "\u0661", "\udcff", "--", "-", "", " "),
]


def one(seed: int, place: Path) -> None:
    rng = np.random.default_rng(seed)
    flags = []
    for name in rng.choice(list(settings.declared(main)), size=rng.integers(1, 5)):
        flag = settings.flag_of(name)
        flags += [flag.replace("--", "--no-", 1) if rng.random() < 0.1 else flag]
        flags += list(rng.choice(VALUES, size=rng.choice([0, 1, 1, 1, 2])))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            config = main.parse_arguments([str(flag) for flag in flags])
    except SystemExit as stop:
        assert stop.code == 2 and "error: " in said.getvalue(), flags
    else:
        assert all(np.isfinite(value) for value in vars(config).values() if isinstance(value, float)), flags
        assert set(config.TASKS) <= set(main.choices()["TASKS"]) and 32 <= config.IMAGE_SIZE <= 4096, flags
