"""A web page: drop an image, see what a trained model predicts.

python app.py --checkpoint outputs/best_multitask_model.pth
"""

import base64
import contextlib
import logging
import os
import secrets
import socket
import sys
from functools import partial
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
from starlette.responses import HTMLResponse, PlainTextResponse, Response

import predict
import settings
from browser import about, cards
from browser.cards import Example
from dataset.layout import find_files
from inference.predictor import Predictor, choose_checkpoints

CAUTION = "**Research code, not a medical device.** It is often wrong: never base a diagnosis on it."
MAX_MEGABYTES = 50  # per upload
MAX_IMAGES = 24  # per upload
SYSTEM_FONTS = ("system-ui", "sans-serif")  # Gradio would download its own
LOCAL_ONLY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"  # what the page may load
PAGE = Path(__file__).parent / "browser"
START = secrets.token_hex(8)  # identifies this start of the server
NO_DRAWN = "No examples are shown: those in {} are drawn, and the model did not learn from drawn lesions alone."


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
    facts = about.about(predictor.trained)
    known = {"megabytes": MAX_MEGABYTES, "server": START, "model": facts}  # props of script.js
    with gr.Blocks(title="Dermoscopy", analytics_enabled=False) as page:
        gr.Markdown(f"# What does the model see?\n{CAUTION}", elem_classes="caution")
        gr.HTML(cards.picker(examples), apply_default_css=False)
        script = "".join((PAGE / name).read_text(encoding="utf-8") for name in ("zip.js", "script.js"))
        results = gr.HTML(js_on_load=script, elem_classes="results", apply_default_css=False, **known)
        gr.HTML(facts, elem_classes="about", apply_default_css=False)

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


def choose_examples(folder: Path, predictor: Predictor) -> list[Example]:
    """Up to six images of a data folder; unreadable files are skipped.

    Drawn lesions are examples only of a model that learned from such alone; for another one a message says so.

    Raises
    ------
    FileNotFoundError, ValueError : no such folder; no image in it.
    """
    paths = sorted(find_files(folder)[0].values())
    if not paths:
        raise ValueError(f"No images in {folder}. Name another folder of --examples.")
    examples = []
    for path in paths[:: max(1, len(paths) // 6)][:6]:
        with contextlib.suppress(ValueError, OSError):
            examples.append(cards.example_of(path, predictor.trained))
    if any(example.is_drawn for example in examples) and not about.is_of_drawn(predictor.trained):
        print(NO_DRAWN.format(folder))
        return []
    return examples


async def _guard(request, call_next, predictor: Predictor):
    """Serve the model card and signs of life, and refuse larger requests than the page sends.

    The browser may load nothing from elsewhere.
    """
    path = request.url.path
    if int(request.headers.get("content-length", 0)) > 1.5e6 * MAX_MEGABYTES:  # base64 adds a third, names a little
        response = Response("Too large", status_code=413)
    elif path == "/alive":
        response = PlainTextResponse(START)
    elif path == "/card" and (card := about.model_card(predictor.trained)):
        response = HTMLResponse(card)
    else:
        response = await call_next(request)
    response.headers["Content-Security-Policy"] = LOCAL_ONLY
    return response


def main(argv: list[str] | None = None) -> None:
    """Serve the page until stopped."""
    parser = settings.Parser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, action="append", help=predict.CHECKPOINT_HELP)
    parser.add_argument("--examples", type=Path, help="folder of example images [none]")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on; 0.0.0.0 for the network [127.0.0.1]")
    parser.add_argument("--port", type=int, default=7860, help="[7860]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... [auto]")
    options = parser.parse_args(argv)
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((options.host, options.port))
    except (OSError, OverflowError) as error:
        reason = str(error).rstrip(".")
        parser.exit(2, f"Cannot serve on {options.host}:{options.port}: {reason}. Name another --port or --host.\n")
    try:
        predictor = Predictor(*choose_checkpoints(options.checkpoint), device=options.device, explain=True)
        examples = choose_examples(options.examples, predictor) if options.examples else []
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"{error}\n")
    except torch.cuda.OutOfMemoryError as error:
        parser.exit(2, f"Out of GPU memory: {error}\nPass --device cpu.\n")
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
        app_kwargs={"middleware": [Middleware(BaseHTTPMiddleware, dispatch=partial(_guard, predictor=predictor))]},
    )


if __name__ == "__main__":
    main()
