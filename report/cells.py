"""Numbers of metrics.json -> cells of the report's tables: each a value with its interval, if it has one."""

import evaluate
from measure import bootstrap
from measure.scores import SCORES, Score, shown_in

COUNTED = {"n_images": "Images", "n_lesions": "Lesions"}  # of a subgroup
COUNTED |= {"n_melanomas": "Melanomas", "n_malignant": "Malignant"}
COUNTED |= {name: SCORES[name].title for name in ("n_labels", "n_masks")}
COLUMNS = {  # of subgroups
    "dx_type": "Diagnosis confirmed by",
    "dataset": "Source",
    "fitzpatrick_skin_type": "Fitzpatrick skin type",
    "age": "Age",
    "sex": "Sex",
    "localization": "Site",
}


def scores_at(metrics: dict, path: tuple[str, ...]) -> dict:
    """The part of metrics.json at `path`, each number in it replaced by its `score_at`."""
    return {
        name: scores_at(metrics, (*path, name)) if isinstance(value, dict) else score_at(metrics, (*path, name))
        for name, value in at(metrics, path).items()
    }


def score_at(metrics: dict, path: tuple[str, ...]) -> dict:
    """A number of metrics.json, its interval if both ends are known, and its `kind` if it is not the bootstrap's."""
    kind = at(metrics, ("intervals", *path[:-1], path[-1] + bootstrap.KIND))
    cell = cell_of(at(metrics, path), at(metrics, ("intervals", *path)))
    return cell | {"kind": kind} if kind and cell["value"] is not None else cell


def rounded(value: float, digits: int = 3) -> float:
    """A rounded number that is never -0.0, which would be shown as -0.000."""
    return round(value, digits) + 0.0


def cell_of(value: float | None, interval: list | None) -> dict:
    """A value, and its interval if both ends are known; earlier versions wrote some that have no width."""
    is_whole = value is not None and interval and None not in interval and interval[0] < interval[1]
    return {"value": value, "interval": interval if is_whole else None}


def has_score(metrics: dict, score: Score) -> bool:
    """Whether metrics.json holds a score; what is not defined stands there as None."""
    return score.path[-1] in (at(metrics, (score.head, *score.path[:-1])) or {})


def with_biopsied(metrics: dict[str, dict]) -> dict[str, dict]:
    """Each model's numbers on all images, and on the biopsied ones if any are known."""
    sets = {}
    for task, numbers in metrics.items():
        sets[task] = numbers
        if "biopsied" in numbers:
            sets[f"{task}, biopsied only"] = numbers["biopsied"]
    return sets


def score_columns(shown: list[Score], sets: dict[str, dict]) -> dict[str, list[dict]]:
    """The `score_at` of each of these scores, by set of numbers."""
    return {name: [score_at(numbers, (one.head, *one.path)) for one in shown] for name, numbers in sets.items()}


def majority_column(shown: list[Score], metrics: dict[str, dict]) -> dict[str, list[dict]]:
    """The column of always predicting the commonest class; {} without labels."""
    for numbers in metrics.values():
        if majority := at(numbers, ("label", "majority", "class")):
            known = {name: ("label", "majority", name) for name in ("accuracy", "balanced_accuracy")}
            known["n_images"] = ("label", "n_images")
            paths = [known.get(one.path[0] if one.head == "label" else "", ("none",)) for one in shown]
            return {f"always {majority}": [score_at(numbers, path) for path in paths]}
    return {}


def at(part: dict, path: tuple[str, ...]):
    for name in path:
        part = (part or {}).get(name)
    return part


def in_percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def rules_agree(metrics: dict[str, dict]) -> bool:
    """Whether the balanced rule predicts the top-1 class in every model, as it does at τ = 0."""
    return all(at(numbers, ("label", "calibration", "tau")) == 0 for numbers in metrics.values() if "label" in numbers)


def heat_of(metrics: dict) -> dict | None:
    """Energy of the heat maps inside the masks, and whether they localise; None without labels or masks."""
    heat = at(metrics, ("label", "heat_map"))
    return heat and heat | {"localises": heat["energy_in_mask"] >= evaluate.LOCALISING}


def benefit_of(label: dict) -> dict | None:
    """Net benefit at 10 %, and thresholds at which the model is shown to be better than treating all and treating none.

    None where there are no malignant classes.
    """
    if "net_benefit" not in label:
        return None
    by_percent = {int(percent): values for percent, values in label["net_benefit"].items()}
    better = [percent for percent in by_percent if (by_percent[percent]["gain"]["interval"] or [0])[0] > 0]
    has_holes = any(percent not in better for percent in by_percent if better and better[0] <= percent <= better[-1])
    ends = {"first": min(by_percent), "last": max(by_percent)}
    return {"at": by_percent[10], "percent": 10, "better": better, "has_holes": has_holes} | ends


def subgroup_tables(groups: list[dict], gaps: list[dict]) -> dict:
    """The groups' scores by column of the data, each with the largest gaps between its groups."""
    keys = [key for key in shown_in("subgroups") if groups and key in groups[0]]
    counted = [name for name in COUNTED if any(name in group for group in groups)]
    parts: dict[str, dict] = {}
    for group in groups:
        counts = [group.get(name, group["n_images"]) for name in counted]
        title, none = COLUMNS.get(group["group"], group["group"]), {"rows": [], "gaps": [], "n_values_not_shown": 0}
        part = parts.setdefault(group["group"], {"title": title} | none)
        part["rows"].append(group | {"cells": [score_at(group, (key,)) for key in keys] + counts})
    for gap in gaps:
        scores = gap["scores"]
        cells = [
            scores[key] | cell_of(scores[key]["difference"], scores[key]["interval"]) if key in scores else None
            for key in keys
        ]
        parts[gap["group"]] |= gap | {"gaps": cells if scores else []}
    names = [*(SCORES[key].title for key in keys), *(COUNTED[name] for name in counted)]
    return {"columns": names, "parts": list(parts.values())}
