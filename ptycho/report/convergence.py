"""Curves of a training: the losses together, each term of them, the learning rate, and any other series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ptycho.report.charts import Chart, line_chart

_MAX_CHARTS = 9
_SKIPPED = ("epoch", "step")


def history_charts(history: Mapping[str, Sequence[float]]) -> list[Chart]:
    """Charts of the series (name -> one value an epoch), the total loss first, at most nine.

    A name under `val/` or `val_` is the validation value of the same quantity and shares its chart. A term
    that equals the total is not drawn twice.
    """
    step = "sweep" if "r_factor" in history else "epoch"
    groups: dict[str, dict[str, Sequence[float]]] = {}
    for name, values in history.items():
        if name in _SKIPPED:
            continue
        side, quantity = _split(name)
        groups.setdefault(quantity, {})[side] = values
    total = groups.get("loss")
    order = sorted(groups, key=lambda quantity: (quantity != "loss", not _falls(quantity)))
    charts = []
    for quantity in order:
        lines = groups[quantity]
        if total is not None and lines is not total and lines == total:
            continue
        title = _title(quantity)
        named = {
            f"{side} {title}" if side else title: (list(range(1, len(values) + 1)), values)
            for side, values in lines.items()
        }
        chart = line_chart(named, step, "", title=title, log=_falls(quantity))
        if chart is not None:
            charts.append(chart)
    return charts[:_MAX_CHARTS]


def _split(name: str) -> tuple[str, str]:
    """Whether a name is a training or validation value, and its quantity."""
    for prefix, side in (
        ("val/", "validation"),
        ("val_", "validation"),
        ("train/", "training"),
        ("train_", "training"),
    ):
        if name.startswith(prefix):
            return side, name.removeprefix(prefix)
    return ("training" if name.startswith("loss/") else "", name)


def _falls(quantity: str) -> bool:
    """Whether a run lowers this quantity by factors."""
    return quantity == "r_factor" or "loss" in quantity or "rate" in quantity


def _title(quantity: str) -> str:
    if quantity == "r_factor":
        return "R"
    return quantity.removeprefix("loss/").replace("_", " ").replace("/", " · ")
