"""Execute the notebook and store it with its output: `make notebook`."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

__all__ = ["NOTEBOOK", "execute"]

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "from_scratch.ipynb"
SECONDS = 180  # for a cell


def execute(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with the output of all its cells, and nothing that changes by itself.

    Raises:
        CellExecutionError: A cell failed.

    """
    notebook: nbformat.NotebookNode = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    # Otherwise other users of the machine can read what the kernel is told and says.
    encrypted = Config({"KernelManager": {"transport_encryption": "auto"}})
    NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources=place, config=encrypted
    ).execute()
    for cell in notebook.cells:
        cell.metadata = {}  # the times of execution
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return the outputs with text that was printed piece by piece in one."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else output
        if joined and output.get("name") == last.get("name") == "stdout":
            last.text += output.text
        else:
            joined.append(output)
    return joined


def main() -> int:
    """Execute the notebook in place, or the one that is named."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else NOTEBOOK
    nbformat.write(execute(path), path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
