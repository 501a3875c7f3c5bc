"""A finished run -> a folder for a manuscript: figures, tables, methods, references, and a paper of all of them."""

import hashlib
import textwrap
from pathlib import Path

import jinja2

import visualize
from dataset.csvfile import as_csv
from measure.figures import CAPTIONS
from report.folder import RunFolder
from report.latex import as_frame, as_latex, declarations, escaped
from report.methods import CITED, bibliography, cited_in, cited_in_words, methods_of
from report.paperfigures import figures_of, left_out, printed
from report.papertables import tables_of
from report.run import Run, read_run, refusing_damage

WRITTEN = "written.json"  # the SHA-256 of each file, by which changes by hand are noticed
WHOLE = {"break_long_words": False, "break_on_hyphens": False}  # LaTeX reads the end of a line as a space
PAPER = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
README = """# For the paper

Written by `python -m report paper` from {folder}. {note}To work on these files, copy them: a file that was changed here
stops the command.

- `figures/`: PDF with embedded fonts and SVG with text as paths, 85 mm or 170 mm wide, text of 8 points
- `tables/`: LaTeX (booktabs, adjustbox) and CSV
- `methods.tex`, `methods.txt`: the same text; `references.bib`: what it cites
- `paper.tex`: all of it: `pdflatex paper`, `bibtex paper`, then `pdflatex paper` twice

{missing}

methods.txt says only what the run knows; `checklist.md` of the run lists what the authors must add.
"""


def write_paper(folder: Path, output_dir: Path | None = None) -> list[str]:
    """Write the paper's files of a finished run; returns what the console should say.

    Parameters
    ----------
    output_dir : ``folder / "paper"`` if None.

    Raises
    ------
    ValueError : the run is not finished or damaged, or the folder to write has files that are not from this command;
        nothing is written.
    """
    place = Path(output_dir or folder / "paper")
    refuse_other_files(place)
    with refusing_damage(folder):
        try:
            contents, said = contents_of(read_run(folder).files)
        except jinja2.UndefinedError as error:
            raise ValueError(f"its files lack a value: {error}. Evaluate again: main.py --evaluate-only.") from None
    write_files(place, contents)
    return [f"Written: {place}, {len(contents)} files; README.md there says what they are.", *said]


def contents_of(run: Run) -> tuple[dict[str, bytes], list[str]]:
    """The content of each file by name, and what the console should say of it."""
    contents: dict[str, str | bytes] = {}
    captions = {}
    with visualize.on_paper():
        for name, figure in figures_of(run):
            captions[name] = escaped(_caption(name) + (f" Data: {run.note}" if run.note else ""))
            contents |= {f"figures/{name}.{kind}": drawn for kind, drawn in printed(figure, run.note).items()}
    tables = tables_of(run)
    for table in tables:
        contents[f"tables/{table.name}.tex"] = as_latex(table, run.note)
        contents[f"tables/{table.name}.csv"] = as_csv(as_frame(table, run.note))
    paragraphs = methods_of(run)
    keys = cited_in(paragraphs)
    contents["methods.txt"] = _as_text(paragraphs)
    contents["methods.tex"] = _as_latex(paragraphs, keys)
    contents["references.bib"] = bibliography(keys, "tschandl2018" in keys)
    latex = "".join(text for name, text in contents.items() if name.endswith(".tex")) + "".join(captions.values())
    template = (Path(__file__).parent / "paper.txt").read_text(encoding="utf-8")
    values = {"tables": [table.name for table in tables], "figures": captions, "note": escaped(run.note)}
    contents["paper.tex"] = PAPER.from_string(template).render(values | {"declarations": declarations(latex)}) + "\n"
    missing = [f"Not drawn: {path} ({why})." for path, why in left_out(run, set(captions)).items()]
    facts = {"folder": run.folder.resolve().name, "note": f"Data: {run.note}. " if run.note else ""}
    contents["README.md"] = README.format(missing="\n".join(f"- {line}" for line in missing), **facts)
    return {name: text.encode() if isinstance(text, str) else text for name, text in contents.items()}, missing


def _caption(name: str) -> str:
    """The report's caption of a figure named task_figure, with the task; else its name."""
    known = [figure for figure in CAPTIONS if name.endswith(f"_{figure}")]
    if not known:
        return name.replace("_", " ").capitalize() + "."
    caption = CAPTIONS[known[0]]
    return f"{name.removesuffix(known[0]).replace('_', ' ').strip().capitalize()}: {caption[0].lower()}{caption[1:]}"


def _as_text(paragraphs: dict[str, str]) -> str:
    blocks = [f"{title}\n\n{textwrap.fill(cited_in_words(text), 100, **WHOLE)}\n" for title, text in paragraphs.items()]
    return "\n".join(blocks)


def _as_latex(paragraphs: dict[str, str], keys: list[str]) -> str:
    """The same text; what is between two marks is escaped, and the marks of known keys cite."""
    blocks = []
    for title, text in paragraphs.items():
        parts = CITED.split(text)  # text and keys in turn
        for i, key in enumerate(parts):
            parts[i] = escaped(key) if i % 2 == 0 else f"~\\cite{{{key}}}" if key in keys else escaped(f" [@{key}]")
        blocks.append(f"\\paragraph{{{title}}}\n" + textwrap.fill("".join(parts), 100, **WHOLE) + "\n")
    return "\n".join(blocks)


def write_files(place: Path, contents: dict[str, bytes]) -> None:
    """Write the files by name, in place of those of an earlier call. Raises as `refuse_other_files`."""
    target = RunFolder(place)
    for name in refuse_other_files(place).keys() - contents.keys():
        (place / name).unlink(missing_ok=True)
    for name, content in contents.items():
        target.write(name, content)
    target.write_json(WRITTEN, {name: _sha(content) for name, content in contents.items()})


def refuse_other_files(place: Path) -> dict[str, str]:
    """The files that an earlier call wrote into the folder, with their SHA-256; {} for a new or empty one.

    Raises
    ------
    ValueError : it holds a run or other files, or one of its files was changed by hand.
    """
    if place.exists() and not place.is_dir():
        raise ValueError(f"{place} is a file. Name a folder with --output-dir.")
    written = RunFolder(place).read_json(WRITTEN)
    if not written and place.exists() and (other := sorted(place.iterdir())):
        raise ValueError(f"{place} holds other files ({other[0].name}). Name a new or empty folder with --output-dir.")
    for name, sha in written.items():
        if (place / name).is_file() and _sha((place / name).read_bytes()) != sha:
            raise ValueError(f"{place / name} was changed by hand. Move it, or name another folder with --output-dir.")
    return written


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
