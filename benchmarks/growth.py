"""What a server costs as one thing grows: connections, rows, weights, versions, models, workers.

    python benchmarks/growth.py [--only NAME ...] [--seconds 5]

One worker on loopback, unless the curve says otherwise; the load runs on the same cores. Results
go to a file of JSON curve by curve, and curves that were not asked for stay as they are there. Then
the tables are printed and the figure is drawn.
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

# So that the parts can be imported however this file is run.
sys.path.insert(0, str(Path(__file__).parents[1]))

from matplotlib.figure import Figure
from matplotlib.style import context

from benchmarks.compare.report import machine
from benchmarks.growing.curves import CURVES, Curve, Point
from benchmarks.recipes import BLUE, STYLE

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "growth.json"
FIGURE = HERE.parent / "docs" / "images" / "growth.svg"
NAMES = [curve.name for curve in CURVES]


def main() -> None:
    """Measure, write the results, print the tables, and draw the figure."""
    options = _options()
    results = json.loads(options.json.read_text()) if options.json.exists() else {}
    for curve in CURVES:
        if curve.name in options.only:
            points = []
            with tempfile.TemporaryDirectory(prefix="growth-") as folder:
                for point in curve.points(Path(folder), options.seconds):
                    points.append({heading: _rounded(value) for heading, value in point.items()})
                    print(curve.name, points[-1], file=sys.stderr)
            results[curve.name] = {**machine(), "seconds": options.seconds, "points": points}
            options.json.write_text(json.dumps(results, indent=1) + "\n")
    known = [curve for curve in CURVES if curve.name in results]
    for curve in known:
        print(f"\n{curve.name}\n\n{table(results[curve.name]['points'])}")
    draw(known, results, FIGURE if options.json == RESULTS else options.json.with_suffix(".svg"))


def table(points: list[Point]) -> str:
    """Return the points of a curve in Markdown."""
    lines = [" | ".join(points[0]), " | ".join("---:" for _ in points[0])]
    lines += [" | ".join(f"{value:,}" for value in point.values()) for point in points]
    return "\n".join(f"| {line} |" for line in lines)


def draw(curves: list[Curve], results: dict[str, dict[str, list[Point]]], path: Path) -> None:
    """Draw a panel for each curve, with both axes logarithmic, over whole decades of the cost."""
    with context(STYLE):
        figure = Figure(figsize=(7.6, 4.6))
        for curve, panel in zip(curves, figure.subplots(2, 3).flat, strict=False):
            points = results[curve.name]["points"]
            across = [point[curve.grows] for point in points]
            cost = [point[curve.drawn] for point in points]
            panel.plot(across, cost, "o-", color=BLUE, ms=4)
            panel.set(xscale="log", yscale="log", xlabel=curve.grows, title=curve.drawn)
            low, high = math.floor(math.log10(min(cost))), math.ceil(math.log10(max(cost)))
            panel.minorticks_off()
            panel.set_yticks([10.0**n for n in range(low, high + 1)])
            panel.set_xticks([across[0], across[-1]])
            panel.xaxis.set_major_formatter("{x:,.0f}")
            panel.yaxis.set_major_formatter("{x:,g}")
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def _rounded(value: float) -> float:
    """Return three significant digits, and whole numbers from a hundred on."""
    return round(value) if value >= 100 or value == round(value) else float(f"{value:.3g}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME",
        help=f"curves that are measured: {', '.join(NAMES)}",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a measurement (5)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    return parser.parse_args()


if __name__ == "__main__":
    main()
