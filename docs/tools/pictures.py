"""Make the screenshots of the documents: a terminal as SVG, the report as PNG.

`make pictures` runs it. The terminal is drawn by rich; the report is photographed by Chromium,
headless, and left out where there is none.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

IMAGES = Path(__file__).parents[1] / "images"
BIN = Path(sys.executable).parent
WIDTH = 84
REPORT_SIZE = (1000, 1300)
# rich's own template fetches fonts from the web; this one takes the reader's.
TEMPLATE = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> int:
    """Make every picture; return 0, or 1 if the report could not be photographed."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        terminal(place).save_svg(
            str(IMAGES / "terminal.svg"),
            title="mlpserve",
            theme=DIMMED_MONOKAI,
            code_format=TEMPLATE,
            unique_id="terminal",
        )
        return report(place / "models" / "mnist" / "1" / "report.html", IMAGES / "report.png")


def terminal(folder: Path) -> Console:
    """Record a first session: train, serve, predict, list."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    show(console, folder, "train --dataset digits", last=6)
    command = [str(BIN / "mlpserve"), "serve", "--listen", "127.0.0.1:0", "--log-format", "json"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            line = server.stderr.readline()
            address = line.split('"address": "')[1].split('"')[0]
            wait = [str(BIN / "mlpserve"), "health", "--target", address]
            while subprocess.run(wait, stdout=subprocess.DEVNULL).returncode:
                pass
            console.print(Text.assemble(("$ ", "green"), ("mlpserve serve &", "bold")))
            show(console, folder, "predict --demo", first=11, target=address)
            show(console, folder, "models list")
        finally:
            server.terminate()
    return console


def show(
    console: Console,
    folder: Path,
    command: str,
    first: int | None = None,
    last: int = 0,
    target: str = "",
) -> None:
    """Run a command and print what it prints to standard output, or some of its lines."""
    console.print(Text.assemble(("$ ", "green"), (f"mlpserve {command}", "bold")))
    environment = os.environ | ({"MLPSERVE_TARGET": target} if target else {})
    run = [str(BIN / "mlpserve"), *command.split()]
    done = subprocess.run(
        run, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    for line in done.stdout.rstrip().splitlines()[-last:first]:
        console.print(Text(line))
    console.print()


def report(page: Path, picture: Path) -> int:
    """Photograph the top of a report; return 1 where there is no Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        print("no chromium: the picture of the report stays as it is", file=sys.stderr)
        return 1
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    size = f"--window-size={REPORT_SIZE[0]},{REPORT_SIZE[1]}"
    shot = f"--screenshot={picture}"
    subprocess.run(
        [browser, *flags, size, shot, page.as_uri()], check=True, stderr=subprocess.DEVNULL
    )
    with Image.open(picture) as image:  # 64 colours: a third of the size
        image.convert("RGB").quantize(64).save(picture, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
