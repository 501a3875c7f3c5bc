"""A run of predict.py: list the images, predict them in parallel, write, and resume after an interruption."""

import argparse
import hashlib
import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

import machine
from checkpoints.seen import named_as_seen
from dataset import images
from inference.features import join_features, rows_known
from inference.inputs import (
    READABLE,
    Listed,
    as_predicted,
    keep_names,
    list_images,
    refuse_data_folder,
    refuse_existing,
    refuse_inputs,
)
from inference.outputs import Outputs
from inference.predictor import DecodedImage, Predictor, choose_checkpoints
from inference.summary import in_lines, of_all, of_each
from inference.table import PREDICTED, SKIPPED, Table
from inference.verdict import NOT_A_DEVICE, heat_remarks

NOTHING_REAL = ": it knows nothing of real lesions"
N_SAID = 20  # images; of more, the console shows a summary


def process(outputs: Outputs, listed: Sequence[Listed]) -> list[list[str] | str]:
    """Read, predict and write one batch; return each file's table cells, or what is wrong with it."""
    results: list[DecodedImage | list[str] | str] = []
    for item in listed:
        try:
            results.append(item.problem or outputs.predictor.read(item.file))
        except (ValueError, OSError, MemoryError) as error:
            results.append(images.reason_of(error))
    decoded = [i for i, result in enumerate(results) if isinstance(result, DecodedImage)]
    if decoded:
        for i, prediction in zip(decoded, outputs.predictor.predict([results[i] for i in decoded])):
            results[i] = outputs.write_image(listed[i], prediction)
    return results


def process_all(outputs: Outputs, listed: Sequence[Listed], batch_size: int) -> Iterator[list[str]]:
    """The table rows of all files, in order; batches are processed in parallel, one per core.

    If all cores shared one batch, they would wait while one of them decodes and draws.
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
        for item, result in zip(listed, itertools.chain.from_iterable(done)):
            if isinstance(result, str):
                tqdm.write(f"skipped {item.file}: {result}", file=sys.stderr)
                outputs.remove(item)
                yield [item.file, item.output, result, *[""] * (len(outputs.table.header) - 3)]
            else:
                yield [item.file, item.output, "", *result]
            progress.update()


def predict_all(options: argparse.Namespace) -> int:
    """Predict and write; return 0 if all files were predicted, 1 if some were skipped, 2 if none was predicted.

    Under torchrun, which takes any other code for a crash, return 0 if any file was predicted.
    """
    device = machine.join_processes(machine.choose_device(options.device))
    passed_over: Counter = Counter()
    listed = machine.from_first(list_images, options.paths, options.output_dir, passed_over)
    if all(item.problem for item in listed):
        problems = "".join(f"{item.file}: {item.problem}. " for item in listed)
        raise FileNotFoundError(f"{problems}No image to predict: name images ({' '.join(READABLE)}) or folders.")
    checkpoints = choose_checkpoints(options.checkpoint)
    wanted = {"explain": options.explain, "features": bool(options.features)}
    predictor = Predictor(*checkpoints, device=str(device), tta=options.tta, **wanted)
    if options.explain and not predictor.explain:
        raise ValueError(f"--explain needs labels: {' and '.join(map(str, checkpoints))} predicts masks only.")
    if passed_over:
        machine.say(f"Ignored: {', '.join(f'{n:,} {kind}' for kind, n in passed_over.items())}.")
    outputs = Outputs(options.output_dir, predictor)
    is_to_join = options.features and machine.is_first()
    known = rows_known(options.paths, predictor.trained.checkpoint) if is_to_join else None
    with machine.locked(options.output_dir):
        listed, left = machine.from_first(prepare_folder, outputs, listed, options, checkpoints)
        if not left:
            machine.say("Already predicted: nothing is left to do.")
        with outputs.table.open_part(machine.rank()) as write:
            for row in process_all(outputs, left[machine.share()], options.batch_size):
                write(row)
        machine.in_all(lambda: None)  # from here on, all parts are whole
        n_done, n_skipped = machine.from_first(complete_table, outputs, listed, options, known)
    if machine.is_first():
        print_verdicts(outputs, listed)
        print_remarks(predictor, checkpoints)
        print_seen(predictor, [item.file for item in listed if not item.problem])
        print(NOT_A_DEVICE)
        places = [str(outputs.table.path)] + [str(outputs.table.as_json)] * options.json
        earlier = f" ({len(listed) - len(left)} of them earlier)" if len(left) < len(listed) else ""
        print(f"{n_done} predicted{earlier}, {n_skipped} skipped: {', '.join(places)}")
        if n_done:
            print_places(outputs, listed)
    return 2 if not n_done else 1 if n_skipped and machine.n_ranks() == 1 else 0


def prepare_folder(
    outputs: Outputs, listed: Sequence[Listed], options: argparse.Namespace, checkpoints: Sequence[Path]
) -> tuple[list[Listed], list[Listed]]:
    """Prepare the folder for a new table, or for more rows of an earlier one, or refuse.

    Returns all images with the names of their outputs, and those that are left to predict.
    """
    table, identity = outputs.table, identity_of(options, checkpoints)
    is_begun = is_to_continue(table, identity, options.overwrite)
    kept = table.outputs() if is_begun else {}
    if is_to_add := not (options.resume or options.overwrite):
        listed = as_predicted(listed, table.rows() if is_begun else ())
    listed = keep_names(listed, kept)
    refuse_data_folder(options.output_dir)
    refuse_inputs(outputs.written(listed), listed)
    if is_to_add or not (is_begun or options.overwrite):
        new = [item for item in listed if item.file not in kept]
        refuse_existing(outputs.of_images(new) if is_begun else outputs.written(new))
    outputs.remove_joined()
    if is_begun:
        states = table.resume(listed, again=options.overwrite)
        return listed, [item for item, state in zip(listed, states) if state != PREDICTED]
    table.begin(identity)
    for place in outputs.paths("").values():
        place.parent.mkdir(exist_ok=True)  # now, because later a failure would skip one image only
    return listed, listed


def identity_of(options: argparse.Namespace, checkpoints: Sequence[Path]) -> dict:
    """What all rows of a table must share."""
    names = (f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}" for path in checkpoints)
    identity = {"checkpoint": " and ".join(sorted(names)), "tta": options.tta, "explain": options.explain}
    return identity | ({"features": True} if options.features else {})  # runs of earlier versions do not name it


def is_to_continue(table: Table, identity: dict, overwrites: bool) -> bool:
    """Whether a table is there to add rows to. One of other options is refused, or replaced if `overwrites`."""
    if not table.run.exists():
        return False
    try:
        table.refuse_other(identity)
    except ValueError:
        if not overwrites:
            raise
        return False
    return True


def complete_table(
    outputs: Outputs, listed: Sequence[Listed], options: argparse.Namespace, known: pd.DataFrame | None
) -> tuple[int, int]:
    """Join all processes' rows into one table, and the features; return the numbers of predicted and skipped images."""
    states = outputs.table.join(listed)
    n_done, n_skipped = int((states == PREDICTED).sum()), int((states == SKIPPED).sum())
    if n_lost := len(listed) - n_done - n_skipped:
        raise ValueError(f"{n_lost} images have no row: --output-dir must be one folder shared by all machines.")
    if options.json:
        outputs.table.write_json()
    if options.features and n_done:
        done = [Listed(*row[:2]) for row in outputs.table.rows() if not row[2]]
        print(join_features(outputs.folder, options.features, done, known))
    return n_done, n_skipped


def print_verdicts(outputs: Outputs, listed: Sequence[Listed]) -> None:
    """Print the verdict on each of these images, or a summary of many."""
    rows = outputs.table.predicted(listed)
    for line in of_each([*rows]) if len(listed) <= N_SAID else of_all(rows):
        print(line)


def print_places(outputs: Outputs, listed: Sequence[Listed]) -> None:
    """Print where to look: the files of a single image, or folders."""
    places = outputs.paths(listed[0].output if len(listed) == 1 else "")
    shown = [str(path) if len(listed) == 1 else f"{path.parent}{os.sep}" for path in places.values()]
    print(f"To look at: {', '.join(shown)}")


def print_seen(predictor: Predictor, files: Sequence[str]) -> None:
    """Print how many images have the name of one that the model was trained or selected on."""
    if n := named_as_seen(predictor.trained, files).sum():
        known = f"Named like images that the model was trained or selected on: {n:,} of {len(files):,}. "
        print(in_lines(known + "Results on these do not show how well it does on new images."))


def print_remarks(predictor: Predictor, checkpoints: Sequence[Path]) -> None:
    for line in predictor.remarks():
        print(in_lines(line))
    if not predictor.trained.is_calibrated:
        used = " and ".join(map(str, checkpoints))
        line = f"{used} is not calibrated, so its confidence may be unreliable; main.py --evaluate-only calibrates it."
        print(in_lines(line))
    for line in heat_remarks(predictor.trained) if predictor.explain else []:
        print(in_lines(line))
    if predictor.trained.note:
        has_start = any(one.get("seen_before") for one in predictor.trained.checkpoints.values())
        print(f"The model was trained on {predictor.trained.note}{'' if has_start else NOTHING_REAL}.")
