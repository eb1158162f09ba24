"""Make the screenshots of the documents: a terminal as SVG, the report and the page as PNG.

`make pictures` runs it. The terminal is drawn by rich; report and page are photographed by
Chromium, headless, and left out where there is none. The page's versions are trained on MNIST
where MLPSERVE_DATA_DIR has it.
"""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

IMAGES = Path(__file__).parents[1] / "images"
BIN = Path(sys.executable).parent
WIDTH = 84
REPORT_SIZE = (1000, 1300)
PAGE_SIZE = (1200, 900)
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
        browser = shutil.which("chromium") or shutil.which("chromium-browser")
        if not browser:
            print("no chromium: report.png and page.png stay as they are", file=sys.stderr)
            return 1
        report(browser, place / "models" / "mnist" / "1" / "report.html", IMAGES / "report.png")
        page(browser, place / "page", IMAGES / "page.png")
        return 0


def terminal(folder: Path) -> Console:
    """Record a first session: train, serve, predict, list."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    show(console, folder, "train --dataset digits", last=6)
    with running(folder, "serve") as address:
        wait_until_ready(address)
        console.print(Text.assemble(("$ ", "green"), ("mlpserve serve &", "bold")))
        show(console, folder, "predict --demo", first=11, target=address)
        show(console, folder, "models list")
    return console


@contextmanager
def running(folder: Path, command: str) -> Iterator[str]:
    """Run a server until the block ends; give the address that it listens on."""
    name, *flags = command.split()
    program = [str(BIN / "mlpserve"), name, "--listen", "127.0.0.1:0", "--log-format", "json"]
    with subprocess.Popen(
        [*program, *flags], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr
            events = map(json.loads, server.stderr)
            yield next(e["address"] for e in events if e["event"] == "listening")
        finally:
            server.terminate()


def wait_until_ready(address: str) -> None:
    """Return as soon as the server has a model."""
    wait = [str(BIN / "mlpserve"), "health", "--target", address]
    while subprocess.run(wait, stdout=subprocess.DEVNULL).returncode:
        pass


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
    environment.pop("MLPSERVE_DATA_DIR", None)  # the terminal shows the digits that come along
    run = [str(BIN / "mlpserve"), *command.split()]
    done = subprocess.run(
        run, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    for line in done.stdout.rstrip().splitlines()[-last:first]:
        console.print(Text(line))
    console.print()


def report(browser: str, page: Path, picture: Path) -> None:
    """Photograph the top of a report."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    size = f"--window-size={REPORT_SIZE[0]},{REPORT_SIZE[1]}"
    shot = f"--screenshot={picture}"
    subprocess.run(
        [browser, *flags, size, shot, page.as_uri()], check=True, stderr=subprocess.DEVNULL
    )
    shrink(picture, 64)


def page(browser: str, folder: Path, picture: Path) -> None:
    """Photograph the page: two versions that explain a digit drawn by mouse, and live traffic."""
    folder.mkdir()
    for options in ("", " --seed 1 --epochs 3 --force --reason comparison"):
        command = [str(BIN / "mlpserve"), *f"train{options}".split()]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    metrics = f"127.0.0.1:{free_port()}"
    serve = f"serve --serve 1 --shadow 2 --metrics-listen {metrics}"
    with running(folder, serve) as target:
        wait_until_ready(target)
        load = [str(BIN / "mlpserve"), "bench", "--target", target, "--threads", "1"]
        gateway = f"web --target {target} --store models --metrics http://{metrics}/metrics"
        with (
            running(folder, gateway) as address,
            subprocess.Popen([*load, "--seconds", "600"], stdout=subprocess.DEVNULL) as bench,
            sync_playwright() as playwright,
        ):
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            width, height = PAGE_SIZE
            opened = chromium.new_page(viewport={"width": width, "height": height})
            opened.goto(address)
            opened.get_by_role("button", name="4", exact=True).click()
            opened.get_by_label("compared with").select_option("2")
            opened.wait_for_function(
                "document.querySelectorAll('#traffic-shadows li').length > 0", timeout=20_000
            )
            opened.wait_for_timeout(20_000)  # some points for the line of calls a second
            opened.screenshot(path=picture, full_page=True)
            chromium.close()
            bench.terminate()
    shrink(picture, 128)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def shrink(picture: Path, colours: int) -> None:
    """Keep this many colours: a third of the size."""
    with Image.open(picture) as image:
        image.convert("RGB").quantize(colours).save(picture, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
