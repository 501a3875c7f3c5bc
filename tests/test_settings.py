"""Settings: of main.py, and of a small script of other names."""

import importlib.util
import io
import subprocess
import sys

import pytest
from conftest import ROOT

import main
import settings
import train

SCRIPT = '''"""A script of one's own."""
SIZES: tuple = ("small",)  # of what is made
RATE: float = 1  # steps an hour
IS_ROUND: bool = False  # whether corners are cut
KIND: str = "plain"  # plain or fast
SIDE_LENGTH = 3
'''
TABLES = {
    "choices": lambda: {"SIZES": ("small", "large")},
    "ranges": {"RATE": "(0, 5]"},
    "presets": {},
    "demo": {"RATE": 2},
}


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Makes a module of a source text."""

    def make(source=SCRIPT):
        path = tmp_path / "script.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location("script", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "script", module)
        spec.loader.exec_module(module)
        return module

    return make


def parse(script, *flags, **tables):
    return settings.parse(list(flags), script, **TABLES | tables, find_problem=lambda config: "")


def refusal(capsys, *arguments, **tables):
    with pytest.raises(SystemExit) as stopped:
        parse(*arguments, **tables)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_any_scripts_annotated_constants_are_settings_and_its_others_are_not(script):
    made = script()
    assert {name: one.kind for name, one in settings.declared(made).items()} == {
        "SIZES": tuple,
        "RATE": float,
        "IS_ROUND": bool,
        "KIND": str,
    }
    assert settings.declared(made)["RATE"] == (float, 1.0, "steps an hour")
    config = parse(made, "--sizes", "large", "small", "--is-round", "--demo")
    assert vars(config) == {"SIZES": ("large", "small"), "RATE": 2.0, "IS_ROUND": True, "KIND": "plain", "DEMO": True}


def test_a_preset_sets_others_and_what_it_sets_is_checked_by_name(script, capsys):
    made, fast = script(), {"KIND": {"plain": {}, "fast": {"RATE": 3, "IS_ROUND": True}}}
    config = parse(made, "--kind", "fast", "--no-is-round", presets=fast)
    assert config.RATE == 3 and not config.IS_ROUND
    assert settings.describe(config, made, fast).splitlines()[0] == "Kind fast, except for:"
    assert "RATE must lie in (0, 5], not 9" in refusal(capsys, made, "--demo", demo={"RATE": 9})
    assert "PACE is set but is not a setting" in refusal(capsys, made, presets={"KIND": {"plain": {"PACE": 1}}})
    assert "PACE is set but is not a setting" in refusal(capsys, made, ranges={"PACE": "[0, 1]"})


def test_an_annotation_that_no_flag_can_have_is_named(script, capsys):
    assert "TABLE is annotated as <class 'dict'>" in refusal(capsys, script("TABLE: dict = {}  # rows\n"))


@pytest.mark.parametrize(
    "value, interval, inside",
    [
        *((0, "[0, 1)", True), (1, "[0, 1)", False), (0, "(0, 1]", False), (1, "(0, 1]", True)),
        *((float("inf"), "[0, inf)", False), (float("nan"), "[0, inf)", False), (-1e-9, "[0, inf)", False)),
    ],
)
def test_an_interval_holds_its_ends_by_its_brackets(value, interval, inside):
    assert settings.lies_in(value, interval) == inside


def test_a_flag_that_does_not_exist_is_answered_with_the_nearest(capsys):
    flags = ["--classification-epochs", "--segmentation-epochs", "--image-size", "--epoch-length", "--steps"]
    assert settings.similar_flags("--epochs", flags) == ["--classification-epochs", "--segmentation-epochs"]
    assert settings.similar_flags("--epoch", flags) == [*flags[:2], "--epoch-length"]
    assert settings.similar_flags("--imagesize", flags) == ["--image-size"]
    assert settings.similar_flags("--zzz", flags) == settings.similar_flags("--", flags) == []


def test_every_hyperparameter_is_a_flag_with_an_explanation(capsys):
    with pytest.raises(SystemExit) as stopped:
        main.main(["--help"])
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    for name, setting in settings.declared(main).items():
        assert settings.flag_of(name) in shown and setting.help
    assert "ImageNet weights: auto" in shown and "[0.0001]" in shown


def test_the_defaults_are_the_specifications():
    config = main.parse_arguments([])
    assert (config.IMAGE_SIZE, config.SEED, config.VAL_FRACTION, config.TEST_FRACTION) == (224, 42, 0.15, 0.15)
    plain = {"schedule": "constant", "warm_up": 0.0, "ema": 0.0, "mask_loss": "bce"}
    assert {task: main.recipe_of(config, task) for task in config.TASKS} == {
        "classification": train.Recipe(15, 32, 1e-4, **plain),
        "segmentation": train.Recipe(25, 16, 1e-4, **plain),
        "multitask": train.Recipe(10, 16, 1e-4, **plain),
    }
    assert config.RECIPE == "paper" and config.AUGMENT == ("flips", "rotations")


def test_flags_win_over_the_demo_and_the_demo_over_the_constants():
    assert main.DEMO["IMAGE_SIZE"] == main.parse_arguments(["--demo"]).IMAGE_SIZE
    assert main.parse_arguments(["--demo", "--image-size", "48"]).IMAGE_SIZE == 48


def test_a_recipe_sets_constants_and_demo_and_flags_win_over_it():
    strong = main.RECIPES["strong"]
    config = main.parse_arguments(["--recipe", "strong", "--multitask-lr", "0.5"])
    assert {name: getattr(config, name) for name in strong} == strong | {"MULTITASK_LR": 0.5}
    assert set(strong) <= set(settings.declared(main))
    demo = main.parse_arguments(["--recipe", "strong", "--demo"])
    assert main.DEMO["MULTITASK_EPOCHS"] == demo.MULTITASK_EPOCHS and demo.SCHEDULE == "cosine"


def test_a_recipe_that_is_edited_in_is_checked_too(monkeypatch, capsys):
    monkeypatch.setattr(main, "RECIPE", "strongest")
    with pytest.raises(SystemExit):
        main.main([])
    assert "RECIPE must be among paper, strong, finetune, not strongest" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--image-sise", "128"], "Did you mean --image-size?"),
        (["--recipe", "weak"], "not weak"),
        (["--augment", "warp"], "not warp"),
        (["--augment", "flips", "cutmax"], "not flips cutmax. Did you mean cutmix?"),
        (["--augment", "none", "flips"], "AUGMENT names none beside others"),
        (["--augment", "flips", "flips"], "AUGMENT repeats a value: flips flips"),
        (["--ema", "1"], "EMA must lie in [0, 1), not 1.0"),
        (["--warm-up", "-0.1"], "WARM_UP must lie in [0, 1)"),
        (["--dropout", "1"], "DROPOUT must lie in [0, 1)"),
        (["--drop-path", "nan"], "DROP_PATH must lie in [0, 1), not nan"),
        (["--weight-decay", "-1"], "WEIGHT_DECAY must lie in [0, inf)"),
        (["--encoder-lr-scale", "0"], "ENCODER_LR_SCALE must lie in (0, inf)"),
        (["--mask-loss", "mcc"], "not mcc"),
        (["--split-seed", "-1"], "SPLIT_SEED must lie in [0, 4294967296), not -1"),
        (["--image-size", "large"], "invalid int value: 'large'"),
        (["--image-size", "8"], "IMAGE_SIZE must lie in [32, 4096], not 8"),
        (["--classification-epochs", "0"], "CLASSIFICATION_EPOCHS must lie in [1, inf)"),
        (["--multitask-lr", "-1"], "MULTITASK_LR must lie in (0, inf)"),
        (["--tasks", "detection"], "not detection"),
        (["--pretrained", "maybe"], "not maybe"),
        (["--encoder", "mobilnet_v2"], "names, the nearest are mobilenet_v2, "),
        (["--encoder", "resnet9"], "not resnet9"),
        (["--val-fraction", "0.5", "--test-fraction", "0.5"], "must leave images to train on"),
        (["--demo", "--data-dir", "x"], "--demo makes its own data"),
        (["--negatives", "20", "--sampling", "sqrt"], "NEGATIVES and SAMPLING both choose"),
        (["--negatives", "-1"], "NEGATIVES must lie in [0, inf)"),
        (["--limit", "-5"], "LIMIT must lie in [0, inf)"),
        (["folder"], "unrecognized arguments: folder. main.py --help lists all flags"),
        (["--classification-lr", "inf"], "CLASSIFICATION_LR must lie in (0, inf), not inf"),
        (["--classification-lr", "nan"], "CLASSIFICATION_LR must lie in (0, inf), not nan"),
        (["--image-size", "1000000"], "IMAGE_SIZE must lie in [32, 4096]"),
        (["--seed", "4294967296"], "SEED must lie in [0, 4294967296)"),
        (["--resume", "--evaluate-only"], "choose one"),
        (["--checkpoints", "a.pth"], "pass --evaluate-only as well"),
    ],
)
def test_a_mistaken_flag_is_refused_with_a_message(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main.main(flags)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and message in said and said.count("\n") == 1


@pytest.mark.parametrize("words", [["main.py", "--demo"], ["predict.py", "README.md"]])
def test_a_python_without_the_packages_is_one_message(words):
    bare = [sys.executable, "-S", "-E", *words]  # -S: without site-packages
    done = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True)
    said = f"or use the environment of README.md: .venv/bin/python {words[0]}\n"
    assert (
        done.returncode == 2
        and "has no PyTorch" in done.stderr
        and done.stderr.endswith(said)
        and done.stderr.count("\n") == 1
    )


EDITED = {
    "TASKS": (("classification", 3), "TASKS must be a tuple of strings, not ('classification', 3)"),
    "IMAGE_SIZE": ("64", "IMAGE_SIZE must be a whole number, not '64'"),
    "MULTITASK_EPOCHS": (1.5, "MULTITASK_EPOCHS must be a whole number, not 1.5"),
    "LIMIT": (True, "LIMIT must be a whole number, not True"),
    "SEED": (None, "SEED must be a whole number, not None"),
    "MULTITASK_LR": ("0.9", "MULTITASK_LR must be a number, not '0.9'"),
    "RESUME": (1, "RESUME must be True or False, not 1"),
    "DEVICE": (0, "DEVICE must be a string, not 0"),
}


@pytest.mark.parametrize("name", EDITED)
def test_a_setting_that_is_edited_to_another_type_is_refused_by_name(name, monkeypatch, capsys):
    value, message = EDITED[name]
    monkeypatch.setattr(main, name, value)
    with pytest.raises(SystemExit) as stopped:
        main.main([])
    assert stopped.value.code == 2 and capsys.readouterr().err.endswith(f"error: {message}\n")


def test_a_demo_that_is_edited_to_another_type_is_refused_by_name(monkeypatch, capsys):
    monkeypatch.setitem(main.DEMO, "IMAGE_SIZE", "64")
    with pytest.raises(SystemExit):
        main.main(["--demo"])
    assert "IMAGE_SIZE must be a whole number, not '64'" in capsys.readouterr().err


@pytest.mark.parametrize("name, value", [("TASKS", "classification"), ("CLASSES", "MEL"), ("CHECKPOINTS", "a.pth")])
def test_one_text_in_the_place_of_several_is_understood(name, value, monkeypatch):
    """("MEL") is a string in Python, and ("MEL",) a tuple."""
    monkeypatch.setattr(main, name, value)
    assert getattr(main.parse_arguments(["--evaluate-only"]), name) == (value,)


def test_a_whole_number_and_a_list_may_be_edited_in(monkeypatch):
    monkeypatch.setattr(main, "MULTITASK_LR", 1)
    monkeypatch.setattr(main, "TASKS", ["multitask"])
    assert main.parse_arguments([]).TASKS == ("multitask",)
    assert type(main.parse_arguments([]).MULTITASK_LR) is float


def test_only_settings_that_differ_from_the_recipe_are_shown():
    flags = ["--recipe", "strong", "--image-size", "64", "--tasks", "segmentation", "multitask", "--schedule", "cosine"]
    shown = settings.describe(main.parse_arguments(flags), main, {"RECIPE": main.RECIPES}).splitlines()
    assert [line.split() for line in shown] == [
        ["Recipe", "strong,", "except", "for:"],
        ["TASKS", "segmentation", "multitask"],
        ["IMAGE_SIZE", "64"],
    ]
    assert (
        settings.describe(main.parse_arguments([]), main, {"RECIPE": main.RECIPES})
        == "Recipe paper, as set in main.py."
    )


def test_a_console_without_the_character_shows_an_escape(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    settings.Parser().parse_args([])
    print("\N{GRINNING FACE} \udcff")
    console.flush()
    assert console.buffer.getvalue() == b"\\U0001f600 \\udcff\n"
