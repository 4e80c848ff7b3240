"""The report as one file for people who do not open notebooks."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbconvert import HTMLExporter, TemplateExporter

from gmv import show
from gmv.errors import GmvError
from gmv.lake import location
from gmv.lake.reader import Reader
from gmv.publication import Window
from gmv.tables import DAILY_GMV

_TEMPLATE = Path(__file__).parent / "template" / "page.html.j2"


def render(notebook_path: Path, target: Path) -> None:
    """Make a page of a notebook that was run: its text and outputs, without code.

    The page is one file that needs nothing else: images and styles are inside, there are no scripts, and a
    content security policy keeps a browser from running or fetching any.

    Args:
        notebook_path: the notebook, with outputs.
        target: where the page goes; a page that is there is replaced whole.

    Raises:
        GmvError: a cell of the notebook failed, or none was run. No page is made.
        FileNotFoundError: there is no such notebook.
    """
    notebook = nbformat.read(notebook_path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for output in outputs:
        if output.output_type == "error":
            raise GmvError(
                f"{notebook_path.name}: a cell failed with {output.ename}: {output.evalue}. "
                f"No page was made of it."
            )
    if not outputs:
        raise GmvError(f"{notebook_path.name} has no outputs: run it first. No page was made of it.")
    exporter = HTMLExporter(
        template_name="base", template_file=str(_TEMPLATE), exclude_input=True, exclude_anchor_links=True
    )
    # HTMLExporter's own goes on to parse the whole page, for the sake of Jupyter's classes, which this one lacks.
    page, _ = TemplateExporter.from_notebook_node(exporter, notebook)
    location.replace_text(target, page)


def write_numbers(reader: Reader, window: Window, target: Path) -> None:
    """The numbers beside the page: what `gmv show daily_gmv --format csv` prints for the same window."""
    rows = show.rows(reader, DAILY_GMV, window.start_date, window.end_date)
    location.replace_text(target, show.as_csv(DAILY_GMV.column_names, rows))
