"""A page in the browser: drop a picture, see what a trained model says of it.

python app.py --checkpoint outputs/best_multitask_model.pth
"""

import argparse
import base64
import html
import io
import logging
import os
import socket
import tempfile
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
os.environ["HF_HUB_OFFLINE"] = "1"

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

import decision
import machine
import predict
from dataset.classes import name_of
from dataset.layout import find_files
from predict import Prediction, Predictor

CAUTION = "**Research software, not a medical device.** It errs often: never base a diagnosis or a treatment on it."
MAX_BYTES = 50_000_000  # of an uploaded file
VIEW = 600  # pixels: the longest side of a picture that is shown, at least
SYSTEM_FONTS = ("system-ui", "sans-serif")  # Gradio's own would be fetched from the network
LOCAL_ONLY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"  # what the page may load
NOTHING = ("", None, "", "", "")  # what the page shows of no picture


def look(path: str | None, predictor: Predictor) -> tuple[str, dict[str, float] | None, str, str, str]:
    """What the page shows of a picture: what is wrong, probability by class name, decisions, overlay and heat map.

    Of a picture that cannot be used nothing but the first is there, so that no other's result stays beside its name. An
    uploaded file is deleted, and the pictures travel inside the page: nothing is kept.
    """
    if path is None:
        return NOTHING
    name = os.path.basename(path)
    try:
        content = Path(path).read_bytes()
        if is_upload(path):
            os.remove(path)
        return "", *see(name, content, predictor)
    except ValueError as error:
        problem = f"{name} cannot be used: {error}. Use a photograph as JPEG or PNG."
    except OSError:  # two visitors have sent the same file at once, and the other's look has deleted it
        problem = f"{name} is no longer there. Choose it once more."
    except Exception:
        logging.exception("A picture could not be processed")
        problem = f"{name} could not be processed; the log of the server says why."
    return f'<p role="alert"><b>{html.escape(problem)}</b></p>', *NOTHING[1:]


def see(name: str, content: bytes, predictor: Predictor) -> tuple[dict[str, float] | None, str, str, str]:
    """Probability by class name; decisions, overlay and heat map as HTML; ValueError with what is wrong with a file."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has {len(content) / 1e6:.0f} MB, and the most is {MAX_BYTES / 1e6:.0f} MB")
    (found,) = predictor.predict([predictor.read(content)])
    enlarged = max(1, VIEW / max(found.size))
    view = predict.view_of(content, (round(found.size[0] * enlarged), round(found.size[1] * enlarged)))
    labels, decisions, heat = None, "", ""
    if found.probabilities is not None:
        names = [name_of(code) for code in predictor.classes]
        labels = dict(zip(names, map(float, found.probabilities)))
        decisions = decisions_of(found, names)
    if found.heat is not None:
        title = f"Where the likeliest class is seen on {name} (Grad-CAM)"
        heat = as_html(predict.heat_map(view, found, predictor.classes), title)
    return labels, decisions, as_html(predict.overlay(view, found, predictor.classes), f"Outline on {name}"), heat


def decisions_of(found: Prediction, names: list[str]) -> str:
    """Both rules' classes, and each group of classes to find against its threshold, as HTML."""
    balanced = decision.NO_TAU if found.balanced is None else f"Balanced rule: <b>{names[found.balanced]}</b>."
    lines = [f"Likeliest class: <b>{names[found.probabilities.argmax()]}</b>.", balanced]
    for finding in found.findings:
        verdict = "" if finding.verdict is None else f"<b>{finding.verdict}</b> the "
        about = f"{finding.probability:.4f}, {verdict}{finding.point.describe()}"
        lines.append(f"Probability of {decision.NAMES[finding.point.name][0]}: {about}.")
    return "".join(f"<p>{line}</p>" for line in lines)


def is_upload(path: str) -> bool:
    """Whether Gradio has copied the file for us."""
    return os.path.realpath(path).startswith(os.path.realpath(os.environ["GRADIO_TEMP_DIR"]) + os.sep)


def as_html(image: Image.Image, title: str) -> str:
    """A picture inside the page."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    source = base64.b64encode(buffer.getvalue()).decode()
    title = html.escape(title, quote=True)
    return f'<figure><img style="width:100%" alt="{title}" src="data:image/jpeg;base64,{source}">{title}</figure>'


def build(predictor: Predictor, examples: list[str]) -> gr.Blocks:
    """The page."""
    about = predictor.about
    facts = [about["task"], f"{about['image_size']}x{about['image_size']} pixels", f"epoch {about.get('epoch', '?')}"]
    facts += [f"trained on {about['note']}"] if about.get("note") else []
    facts += [] if predictor.is_calibrated else ["not calibrated, so its confidence may be far off"]
    with gr.Blocks(title="Dermoscopy", analytics_enabled=False) as page:
        gr.Markdown(f"# What does the model see?\n{CAUTION}")
        with gr.Row():
            with gr.Column():
                upload = gr.File(label="A dermoscopic photograph (JPEG, PNG)", type="filepath")
                samples, thumbnail = [[path] for path in examples], gr.Image(visible=False)
                shown = gr.Dataset(components=[thumbnail], samples=samples, type="index", label="Examples")
                shown.visible = bool(samples)
            with gr.Column():
                visible = "label" in predictor.model.heads
                labels = gr.Label(label="Calibrated probability of each class", visible=visible)
                decisions = gr.HTML(label="Decisions", visible=visible)
        problem = gr.HTML()
        with gr.Row():
            outputs = [problem, labels, decisions, gr.HTML(label="Outline"), gr.HTML(label="Heat map")]
        gr.Markdown(f"Model: {', '.join(facts)}. Pictures are processed on this machine and not kept.")
        options = {"api_visibility": "private"}
        upload.upload(lambda path: look(path, predictor), upload, outputs, **options)
        upload.clear(lambda: NOTHING, None, outputs, **options)
        shown.click(lambda i: (None, *look(examples[i], predictor)), shown, [upload, *outputs], **options)
    return page


async def _keep_local(request, call_next):
    """Forbid the browser to load anything from elsewhere."""
    response = await call_next(request)
    response.headers["Content-Security-Policy"] = LOCAL_ONLY
    return response


def main(argv: list[str] | None = None) -> None:
    """Serve the page until stopped."""
    machine.print_anything()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, action="append", help=predict.CHECKPOINT_HELP)
    parser.add_argument("--examples", type=Path, default=Path("demo_data"), help="data folder to show [demo_data]")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on; 0.0.0.0 for the network [127.0.0.1]")
    parser.add_argument("--port", type=int, default=7860, help="[7860]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... [auto]")
    options = parser.parse_args(argv)
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((options.host, options.port))
    except (OSError, OverflowError) as error:
        parser.exit(2, f"Cannot serve on {options.host}:{options.port}: {error}. Name another --port or --host.\n")
    try:
        predictor = Predictor(*predict.choose_checkpoints(options.checkpoint), device=options.device, explain=True)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"{error}\n")
    images = sorted(find_files(options.examples)[0].values())
    examples = images[:: max(1, len(images) // 6)][:6]
    print(f"Serving on http://{options.host}:{options.port} with {len(examples)} examples; Ctrl-C stops.", flush=True)
    with tempfile.TemporaryDirectory() as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        build(predictor, examples).launch(
            server_name=options.host,
            server_port=options.port,
            max_file_size=MAX_BYTES,
            share=False,
            ssr_mode=False,
            run_history=False,
            footer_links=[],
            quiet=True,
            theme=gr.themes.Default(font=SYSTEM_FONTS, font_mono=SYSTEM_FONTS),
            app_kwargs={"middleware": [Middleware(BaseHTTPMiddleware, dispatch=_keep_local)]},
        )


if __name__ == "__main__":
    main()
