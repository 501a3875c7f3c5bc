"""A run of predict.py: list the images, predict them in parallel, write, and resume after an interruption."""

import argparse
import hashlib
import itertools
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
from dataset import images
from inference.features import join_features, rows_known
from inference.inputs import (
    READABLE,
    Listed,
    keep_names,
    list_images,
    refuse_data_folder,
    refuse_existing,
    refuse_inputs,
)
from inference.outputs import Outputs
from inference.predictor import DecodedImage, Predictor, choose_checkpoints
from inference.table import FIRST, PREDICTED, SKIPPED
from inference.verdict import heat_remarks

N_SAID = 20  # images; with more, the console shows no verdicts


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
                yield [item.file, item.output, result, *[""] * (len(outputs.table.header) - len(FIRST))]
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
    outputs = Outputs(options.output_dir, predictor, keeps_verdicts=len(listed) <= N_SAID)
    is_to_join = options.features and machine.is_first()
    known = rows_known(options.paths, predictor.trained.checkpoint) if is_to_join else None
    with machine.locked(options.output_dir):
        listed, left = machine.from_first(prepare_folder, outputs, listed, options, checkpoints)
        with outputs.table.open_part(machine.rank()) as write:
            for row in process_all(outputs, left[machine.share()], options.batch_size):
                write(row)
        verdicts = machine.gather(outputs.verdicts)  # from here on, all parts are whole
        n_done, n_skipped = machine.from_first(complete_table, outputs, listed, options, known)
    if machine.is_first():
        print_verdicts({file: lines for part in verdicts for file, lines in part.items()}, listed)
        places = [str(outputs.table.path)] + [str(outputs.table.as_json)] * options.json
        places += [f"{kind}/" for kind in outputs.paths("")] if n_done else []
        earlier = f" ({len(listed) - len(left)} of them earlier)" if len(left) < len(listed) else ""
        print(f"{n_done} predicted{earlier}, {n_skipped} skipped: {', '.join(places)}")
        print_remarks(predictor, checkpoints)
    return 2 if not n_done else 1 if n_skipped and machine.n_ranks() == 1 else 0


def prepare_folder(
    outputs: Outputs, listed: Sequence[Listed], options: argparse.Namespace, checkpoints: Sequence[Path]
) -> tuple[list[Listed], list[Listed]]:
    """Prepare the folder for a new run, or resume an earlier one, or refuse.

    Returns all images with the names of their outputs, and those that are left to predict.
    """
    if resumes := options.resume and outputs.table.run.exists():
        listed = keep_names(listed, outputs.table.outputs())
    refuse_data_folder(options.output_dir)
    refuse_inputs(outputs.written(listed), listed)
    names = (f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}" for path in checkpoints)
    identity = {"checkpoint": " and ".join(sorted(names)), "tta": options.tta, "explain": options.explain}
    identity |= {"features": True} if options.features else {}  # runs of earlier versions do not name it
    if resumes:
        states = outputs.table.resume(identity, listed)
        outputs.remove_joined()
        return listed, [item for item, state in zip(listed, states) if state != PREDICTED]
    if not options.overwrite:
        refuse_existing(outputs.written(listed))
    outputs.remove_joined()
    outputs.table.begin(identity)
    for place in outputs.paths("").values():
        place.parent.mkdir(exist_ok=True)  # now, because later a failure would skip one image only
    return listed, listed


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
        done = [listed[number] for number in (states == PREDICTED).nonzero()[0]]
        print(join_features(outputs.folder, options.features, done, known))
    return n_done, n_skipped


def print_verdicts(verdicts: dict[str, list[str]], listed: Sequence[Listed]) -> None:
    """Print the verdict on each image predicted in this run."""
    for item in listed:
        if lines := verdicts.get(item.file):
            print(f"{item.file}", *lines, sep="\n  ")


def print_remarks(predictor: Predictor, checkpoints: Sequence[Path]) -> None:
    for line in predictor.remarks():
        print(line)
    if not predictor.trained.is_calibrated:
        used = " and ".join(map(str, checkpoints))
        print(f"{used} is not calibrated, so its confidence may be unreliable; main.py --evaluate-only calibrates it.")
    for line in heat_remarks(predictor.trained) if predictor.explain else []:
        print(line)
    if predictor.trained.note:
        print(f"The model was trained on {predictor.trained.note}: it knows nothing of real lesions.")
