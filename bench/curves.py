"""The growth of the ledger as a picture."""

from collections.abc import Mapping
from pathlib import Path

from bench.load import Run

_COST = "CPU seconds per 1000 requests, server and PostgreSQL"
_LATENCY = "p99, ms, at 32 connections"


def draw(figures: Mapping[int, Mapping[str, Run]], file: Path) -> None:
    """Two plots beside each other, processor time and p99 by number of price rows, a curve for each operation."""
    import matplotlib

    matplotlib.use("agg")
    # The same picture for the same figures.
    matplotlib.rcParams.update({"svg.hashsalt": "growth", "svg.fonttype": "none"})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    sizes = sorted(figures)
    for axis, title in zip(axes, (_COST, _LATENCY), strict=True):
        for name in figures[sizes[0]]:
            runs = [figures[size][name] for size in sizes]
            values = [run.cpu if title == _COST else run.p99_milliseconds for run in runs]
            axis.plot(sizes, values, marker="o", label=name)
        axis.set(title=title, xlabel="price rows", xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    # Outside, where no curve can come.
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(figures[sizes[0]]))
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
