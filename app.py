"""A web page: drop an image, see what a trained model predicts.

python app.py --checkpoint outputs/best_multitask_model.pth
"""

import base64
import contextlib
import logging
import os
import socket
import sys
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
os.environ["HF_HUB_OFFLINE"] = "1"

try:
    import gradio as gr
except ModuleNotFoundError:
    sys.exit("The page needs Gradio: pip install -r requirements-app.txt")
import torch
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import Response

import predict
import settings
from browser import cards
from browser.cards import Example
from dataset.layout import find_files
from inference.predictor import Predictor, choose_checkpoints

CAUTION = "**Research software, not a medical device.** It is often wrong: never base a diagnosis or treatment on it."
MAX_MEGABYTES = 50  # per upload
MAX_IMAGES = 24  # per upload
SYSTEM_FONTS = ("system-ui", "sans-serif")  # Gradio would download its own
LOCAL_ONLY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"  # what the page may load
PAGE = Path(__file__).parent / "browser"


def answer(images: list[tuple[str, bytes]], predictor: Predictor) -> str:
    """The page's HTML for images (name, content): a card for each, or what is wrong with the file."""
    shown, problems = [], []
    for name, content in images[:MAX_IMAGES]:
        try:
            shown.append(cards.look(name, content, predictor))
        except ValueError as error:
            problems.append(f"{name} cannot be used: {error}. Use a JPEG or PNG photograph.")
        except Exception:
            logging.exception("An image could not be processed")
            problems.append(f"{name} could not be processed; see the server's log.")
    if len(images) > MAX_IMAGES:
        problems.append(f"Showing the first {MAX_IMAGES} of {len(images)} images; predict.py takes any number.")
    return cards.render(shown, problems, predictor)


def numbered(asked: int, shown: str) -> str:
    """An answer with the number of its upload: see script.js."""
    return f'<div data-asked="{int(asked)}">{shown}</div>'


def build(predictor: Predictor, examples: list[Example]) -> gr.Blocks:
    """The page."""
    trained = predictor.trained
    files = f"average of {len(trained.checkpoints)} models" if trained.is_average else trained.name
    epoch = [] if trained.is_average else [f"epoch {trained.checkpoint.get('epoch', '?')}"]
    facts = [files, f"{trained.image_size}x{trained.image_size} pixels", *epoch]
    facts += [f"trained on {trained.note}"] if trained.note else []
    facts += [] if trained.is_calibrated else ["not calibrated, so its confidence may be unreliable"]
    with gr.Blocks(title="Dermoscopy", analytics_enabled=False) as page:
        gr.Markdown(f"# What does the model see?\n{CAUTION}", elem_classes="caution")
        gr.HTML(cards.picker(examples), apply_default_css=False)
        script = (PAGE / "script.js").read_text(encoding="utf-8")
        results = gr.HTML(js_on_load=script, elem_classes="results", apply_default_css=False, megabytes=MAX_MEGABYTES)
        gr.Markdown(f"Model: {', '.join(facts)}. The server processes the images and stores none.")

        def uploaded(event: gr.EventData) -> str:
            files = [(file["name"], base64.b64decode(file["content"])) for file in event.files]
            return numbered(event.asked, answer(files, predictor))

        def selected(event: gr.EventData) -> str:
            return numbered(event.asked, answer([examples[event.index][:2]], predictor))

        options = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "multiple"}
        options |= {"concurrency_id": "model"}  # one at a time, in order of arrival
        results.upload(uploaded, None, results, **options)
        results.select(selected, None, results, **options)
    return page


def choose_examples(folder: Path) -> list[Example]:
    """Up to six images of a data folder; unreadable files are skipped."""
    paths = sorted(find_files(folder)[0].values())
    examples = []
    for path in paths[:: max(1, len(paths) // 6)][:6]:
        with contextlib.suppress(ValueError, OSError):
            examples.append(cards.example_of(path))
    return examples


async def _guard(request, call_next):
    """Refuse larger requests than the page sends, and forbid the browser to load anything from elsewhere."""
    if int(request.headers.get("content-length", 0)) > 1.5e6 * MAX_MEGABYTES:  # base64 adds a third, names a little
        return Response("Too large", status_code=413)
    response = await call_next(request)
    response.headers["Content-Security-Policy"] = LOCAL_ONLY
    return response


def main(argv: list[str] | None = None) -> None:
    """Serve the page until stopped."""
    parser = settings.Parser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, action="append", help=predict.CHECKPOINT_HELP)
    parser.add_argument("--examples", type=Path, default=Path("demo_data"), help="folder of examples [demo_data]")
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
        predictor = Predictor(*choose_checkpoints(options.checkpoint), device=options.device, explain=True)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"{error}\n")
    except torch.cuda.OutOfMemoryError as error:
        parser.exit(2, f"Out of GPU memory: {error}\nPass --device cpu.\n")
    examples = choose_examples(options.examples)
    print(f"Serving on http://{options.host}:{options.port} with {len(examples)} examples; Ctrl-C stops.", flush=True)
    build(predictor, examples).launch(
        server_name=options.host,
        server_port=options.port,
        max_file_size=1,  # images arrive inside messages: none is stored as a file
        share=False,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        quiet=True,
        theme=gr.themes.Default(font=SYSTEM_FONTS, font_mono=SYSTEM_FONTS),
        css_paths=PAGE / "style.css",
        app_kwargs={"middleware": [Middleware(BaseHTTPMiddleware, dispatch=_guard)]},
    )


if __name__ == "__main__":
    main()
