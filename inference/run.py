"""A run of predict.py: list the pictures, predict them side by side, write, and go on after an interruption."""

import argparse
import hashlib
import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import torch
from tqdm import tqdm

import machine
from dataset import images
from inference.inputs import (
    READABLE,
    Listed,
    keep_names,
    list_pictures,
    refuse_data_folder,
    refuse_existing,
    refuse_pictures,
)
from inference.outputs import Outputs
from inference.predictor import Picture, Predictor, choose_checkpoints
from inference.table import FIRST, PREDICTED, SKIPPED


def process(outputs: Outputs, listed: Sequence[Listed]) -> list[list[str] | str]:
    """Read, predict and write one batch; returns what the table says of each file, or what is wrong with it."""
    found: list[Picture | list[str] | str] = []
    for one in listed:
        try:
            found.append(one.problem or outputs.predictor.read(one.file))
        except (ValueError, OSError, MemoryError) as error:
            found.append(images.reason_of(error))
    good = [i for i, picture in enumerate(found) if isinstance(picture, Picture)]
    if good:
        for i, prediction in zip(good, outputs.predictor.predict([found[i] for i in good])):
            found[i] = outputs.write_picture(listed[i], prediction)
    return found


def process_all(outputs: Outputs, listed: Sequence[Listed], batch_size: int) -> Iterator[list[str]]:
    """The rows of all files, in order; batches are processed side by side, one on each core.

    A core that decodes and draws would keep the others waiting, if all of them computed one batch together.
    """
    n_workers = torch.get_num_threads()
    size = max(1, min(batch_size, -(-len(listed) // n_workers)))
    batches = [slice(start, start + size) for start in range(0, len(listed), size)]
    with ExitStack() as stack:
        pool = ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(1,))
        stack.callback(pool.shutdown, cancel_futures=True)
        progress = stack.enter_context(
            tqdm(total=len(listed), desc="predicting", unit="image", disable=machine.hides_progress())
        )
        done = machine.map_ahead(pool, lambda batch: process(outputs, listed[batch]), batches, 2 * n_workers)
        for one, found in zip(listed, itertools.chain.from_iterable(done)):
            if isinstance(found, str):
                tqdm.write(f"skipped {one.file}: {found}", file=sys.stderr)
                outputs.remove(one)
                yield [one.file, one.output, found, *[""] * (len(outputs.table.header) - len(FIRST))]
            else:
                yield [one.file, one.output, "", *found]
            progress.update()


def predict_all(options: argparse.Namespace) -> int:
    """Predict and write; returns 0 if all was done, 1 if something was skipped, 2 if nothing was done.

    Under torchrun, which takes any other code for a crash, 0 where something was done.
    """
    device = machine.join_processes(machine.choose_device(options.device))
    passed_over: Counter = Counter()
    listed = machine.from_first(list_pictures, options.paths, options.output_dir, passed_over)
    if all(one.problem for one in listed):
        found = "".join(f"{one.file}: {one.problem}. " for one in listed)
        raise FileNotFoundError(f"{found}There is no image to predict. Name images ({' '.join(READABLE)}) or folders.")
    checkpoints = choose_checkpoints(options.checkpoint)
    predictor = Predictor(*checkpoints, device=str(device), tta=options.tta, explain=options.explain)
    if options.explain and not predictor.explain:
        raise ValueError(
            f"Heat maps explain labels; the model of {' and '.join(map(str, checkpoints))} only predicts masks."
        )
    if passed_over:
        machine.say(f"Passed over: {', '.join(f'{n:,} {what}' for what, n in passed_over.items())}.")
    outputs = Outputs(options.output_dir, predictor)
    with machine.locked(options.output_dir):
        listed, left = machine.from_first(begin, outputs, listed, options, checkpoints)
        with outputs.table.open_part(machine.rank()) as write:
            for row in process_all(outputs, left[machine.share()], options.batch_size):
                write(row)
        machine.gather(None)  # all parts are whole
        n_done, n_skipped = machine.from_first(finish, outputs, listed, options.json)
    if machine.is_first():
        places = [str(outputs.table.path)] + [str(outputs.table.as_json)] * options.json
        places += [f"{kind}/" for kind in outputs.paths("")] if n_done else []
        earlier = f" ({len(listed) - len(left)} of them earlier)" if len(left) < len(listed) else ""
        print(f"{n_done} predicted{earlier}, {n_skipped} skipped: {', '.join(places)}")
        print_remarks(predictor, checkpoints)
    return 2 if not n_done else 1 if n_skipped and machine.n_ranks() == 1 else 0


def begin(
    outputs: Outputs, listed: Sequence[Listed], options: argparse.Namespace, checkpoints: Sequence[Path]
) -> tuple[list[Listed], list[Listed]]:
    """Make the folder this run's, or go on with an earlier one, or refuse.

    Returns all pictures, with the names that their outputs have by now, and those that are left to be predicted.
    """
    if goes_on := options.resume and outputs.table.run.exists():
        listed = keep_names(listed, outputs.table.outputs())
    refuse_data_folder(options.output_dir)
    refuse_pictures(outputs.written(listed), listed)
    names = (f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}" for path in checkpoints)
    identity = {"checkpoint": " and ".join(sorted(names)), "tta": options.tta, "explain": options.explain}
    if goes_on:
        state = outputs.table.go_on(identity, listed)
        return listed, [one for one, of_one in zip(listed, state) if of_one != PREDICTED]
    if not options.overwrite:
        refuse_existing(outputs.written(listed))
    outputs.table.begin(identity)
    for place in outputs.paths("").values():
        place.parent.mkdir(exist_ok=True)  # now: later a name that cannot be written is that of one picture
    return listed, listed


def finish(outputs: Outputs, listed: Sequence[Listed], as_json: bool) -> tuple[int, int]:
    """Make one table of all processes' rows; returns how many pictures were predicted and how many skipped."""
    state = outputs.table.join(listed)
    n_done, n_skipped = int((state == PREDICTED).sum()), int((state == SKIPPED).sum())
    if n_lost := len(listed) - n_done - n_skipped:
        raise ValueError(f"{n_lost} pictures have no row: --output-dir must be one folder that all machines share.")
    if as_json:
        outputs.table.write_json()
    return n_done, n_skipped


def print_remarks(predictor: Predictor, checkpoints: Sequence[Path]) -> None:
    for line in predictor.remarks():
        print(line)
    if not predictor.trained.is_calibrated:
        used = " and ".join(map(str, checkpoints))
        print(f"{used} is not calibrated, so its confidence may be far off; main.py calibrates.")
    if predictor.trained.note:
        print(f"The model was trained on {predictor.trained.note}: it knows nothing of real lesions.")
