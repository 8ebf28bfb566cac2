"""Charts as SVG: a page of panels, each with an axis and its unit, on a white background, which is
readable in light and in dark mode."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LEFT, _RIGHT = 720, 224, 96
_BAR, _GAP, _HEAD, _FOOT = 18, 8, 40, 44
_INK, _SOFT, _GRID = "#222", "#5c6670", "#e3e7ea"
_OURS = "#0b7a75"
# The colours differ in lightness too, for readers who do not see the hues.
_OTHERS = ("#b4bcc4", "#d98324", "#3f51b5", "#8e3b46")
_MORE = ("#7a9e1f", "#5c6670", "#c2478f", "#2a9fd6")
# Names in a row of a legend, where there are many.
_IN_LEGEND = 3

Series = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of a page, drawn from its own upper edge."""

    title: str
    height: float
    parts: tuple[str, ...]


def page(*panels: Panel) -> str:
    """The panels, one below the other."""
    height = sum(panel.height for panel in panels)
    title = "; ".join(panel.title for panel in panels)
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}"'
        f' role="img" aria-label="{escape(title)}" font-family="system-ui, sans-serif">',
        f'<rect width="{_WIDTH}" height="{height:g}" fill="#fff"/>',
    ]
    top = 0.0
    for panel in panels:
        drawn += [f'<g transform="translate(0 {top:g})">', *panel.parts, "</g>"]
        top += panel.height
    return "\n".join([*drawn, "</svg>", ""])


def bars(title: str, values: Series, unit: str, ours: str = "") -> Panel:
    """A horizontal bar for each value, the largest first; names beginning with `ours` stand out."""
    ordered = sorted(values.items(), key=lambda item: -item[1])
    rows = [(name, [(value, _OURS if _is(name, ours) else _OTHERS[0])]) for name, value in ordered]
    return _rows(title, rows, unit, ())


def groups(title: str, values: Mapping[str, Series], unit: str, ours: str = "") -> Panel:
    """A bar for each series in each group, in the order given."""
    colours = _colours([name for series in values.values() for name in series], ours)
    rows = [
        (group, [(value, colours[name]) for name, value in series.items()])
        for group, series in values.items()
    ]
    return _rows(title, rows, unit, colours.items())


def spans(title: str, values: Mapping[str, Series], unit: str, ours: str = "") -> Panel:
    """In each row a mark for each value (such as quantiles), over a logarithmic axis."""
    colours = _colours([name for series in values.values() for name in series], ours)
    if len(colours) == 1:
        colours = dict.fromkeys(colours, _OURS)
    every = [value for series in values.values() for value in series.values()]
    scale = _Scale(_LEFT, _WIDTH - _RIGHT - 60, *_decades(every), logarithmic=True)
    legend = colours if len(colours) > 1 else {}
    top = _HEAD + (22 if legend else 0)
    bottom = top + len(values) * (_BAR + _GAP)
    parts = [*_heading(title, legend.items()), *_across(scale, top, bottom, unit)]
    for place, (row, series) in enumerate(values.items()):
        y = top + place * (_BAR + _GAP) + _GAP / 2 + _BAR / 2
        at = [scale.at(value) for value in series.values()]
        parts.append(_text(_LEFT - 8, y + 4, row, anchor="end"))
        parts.append(
            f'<line x1="{min(at):.1f}" x2="{max(at):.1f}" y1="{y:g}" y2="{y:g}"'
            f' stroke="{_SOFT}" stroke-width="2"/>'
        )
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:g}" r="6" fill="{colours[name]}"/>'
            for x, name in zip(at, series, strict=True)
        ]
        told = " / ".join(number(value) for value in series.values())
        parts.append(_text(_WIDTH - 12, y + 4, told, anchor="end"))
    return Panel(title, bottom + _FOOT, tuple(parts))


def lines(
    title: str, series: Mapping[str, Mapping[float, float]], across: str, up: str, ours: str = ""
) -> Panel:
    """A line for each series: a logarithmic axis across, and a linear one up from zero."""
    colours = _colours(series, ours, _OTHERS[1:])
    points = [point for line in series.values() for point in line.items()]
    top, bottom = _HEAD + 40.0, _HEAD + 250.0
    decades = _decades([x for x, _ in points])
    x_scale = _Scale(84, _WIDTH - 60, *decades, logarithmic=True)
    y_scale = _Scale(bottom, top, 0.0, max(y for _, y in points) * 1.1 or 1.0)
    parts = [*_heading(title, colours.items()), *_upwards(y_scale, up)]
    parts += _across(x_scale, top, bottom, across)
    for name, line in series.items():
        at = [(x_scale.at(x), y_scale.at(y)) for x, y in sorted(line.items())]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        colour = colours[name]
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in at]
        for x, value in line.items():
            # Of points at one position the lowest has its value below it, the others above.
            beside = [other[x] for other in series.values() if x in other]
            below = len(beside) > 1 and value == min(beside)
            y = y_scale.at(value) + (18 if below else -9)
            parts.append(_text(x_scale.at(x), y, number(value), anchor="middle"))
    return Panel(title, bottom + _FOOT, tuple(parts))


def course(
    title: str, series: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str
) -> Panel:
    """A line for each series of points, over linear axes from zero. The last value of each is in
    the legend."""
    names = {name: f"{name} ({number(line[-1][1])})" for name, line in series.items() if line}
    colours = dict(zip(names, itertools.cycle((_OURS, *_OTHERS[1:], *_MORE)), strict=False))
    points = [point for line in series.values() for point in line]
    top, bottom = _HEAD + 40.0, _HEAD + 250.0
    # The legend has a row for each few of them.
    rows = -(-len(names) // _IN_LEGEND)
    top, bottom = top + 18 * (rows - 1), bottom + 18 * (rows - 1)
    x_scale = _Scale(84, _WIDTH - 60, 0.0, max((x for x, _ in points), default=0.0) or 1.0)
    y_scale = _Scale(bottom, top, 0.0, max((y for _, y in points), default=0.0) * 1.1 or 1.0)
    parts = [_text(12, 26, title, size=16)]
    for place, (name, told) in enumerate(names.items()):
        x, y = 12 + 232 * (place % _IN_LEGEND), 40 + 18 * (place // _IN_LEGEND)
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colours[name]}"/>')
        parts.append(_text(x + 17, y + 11, told))
    parts += [*_upwards(y_scale, up), *_across(x_scale, top, bottom, across)]
    for name in names:
        path = "L".join(f"{x_scale.at(x):.1f} {y_scale.at(y):.1f}" for x, y in series[name])
        parts.append(f'<path d="M{path}" fill="none" stroke="{colours[name]}" stroke-width="1.5"/>')
    return Panel(title, bottom + _FOOT, tuple(parts))


def number(value: float) -> str:
    """The number with its significant digits."""
    size = abs(value)
    return f"{value:,.{0 if size >= 100 or size == 0 else 1 if size >= 10 else 2}f}"


@dataclass(frozen=True, slots=True)
class _Scale:
    """A mapping from values to pixels."""

    start: float
    end: float
    least: float
    most: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        if self.logarithmic:
            part = math.log(value / self.least) / math.log(self.most / self.least)
        else:
            part = (value - self.least) / (self.most - self.least)
        return self.start + (self.end - self.start) * part

    def ticks(self) -> list[float]:
        if self.logarithmic:
            first, last = (round(math.log10(edge)) for edge in (self.least, self.most))
            # From six decades on there is no room for all labels.
            return [10.0**power for power in range(first, last + 1, 2 if last - first > 5 else 1)]
        rough = (self.most - self.least) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
        return [step * place for place in range(int(self.most / step + 1e-9) + 1)]


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten around all values. Raises ValueError for values that are not positive."""
    first = math.floor(math.log10(min(values)))
    last = math.ceil(math.log10(max(values)))
    return 10.0**first, 10.0 ** max(last, first + 1)


def _rows(
    title: str,
    rows: Sequence[tuple[str, Sequence[tuple[float, str]]]],
    unit: str,
    legend: Iterable[tuple[str, str]],
) -> Panel:
    most = max((value for _, row in rows for value, _ in row), default=1.0) or 1.0
    scale = _Scale(_LEFT, _WIDTH - _RIGHT, 0.0, most)
    legend = tuple(legend)
    top = _HEAD + (22 if legend else 0)
    bottom = top + sum(_BAR * len(row) + _GAP for _, row in rows)
    parts = [*_heading(title, legend), *_across(scale, top, bottom, unit)]
    y = top + _GAP / 2
    for name, row in rows:
        parts.append(_text(_LEFT - 8, y + _BAR * len(row) / 2 + 4, name, anchor="end"))
        for value, colour in row:
            end = scale.at(value)
            parts.append(
                f'<rect x="{_LEFT}" y="{y + 0.5:g}" width="{max(1.0, end - _LEFT):.1f}"'
                f' height="{_BAR - 1}" fill="{colour}"/>'
            )
            parts.append(_text(end + 6, y + 13, number(value)))
            y += _BAR
        y += _GAP
    return Panel(title, bottom + _FOOT, tuple(parts))


def _heading(title: str, legend: Iterable[tuple[str, str]]) -> list[str]:
    parts = [_text(12, 26, title, size=16)]
    x = 12.0
    for name, colour in legend:
        parts.append(f'<rect x="{x:g}" y="40" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(x + 17, 51, name))
        x += 36 + 7.2 * len(name)
    return parts


def _upwards(scale: _Scale, unit: str) -> list[str]:
    parts = []
    for tick in scale.ticks():
        y = scale.at(tick)
        parts.append(f'<path d="M84 {y:.1f}H{_WIDTH - 60}" stroke="{_GRID}"/>')
        parts.append(_text(76, y + 4, _tick(tick), anchor="end", colour=_SOFT))
    middle = (scale.start + scale.end) / 2
    parts.append(
        f'<g transform="translate(22 {middle:g}) rotate(-90)">'
        f"{_text(0, 0, unit, anchor='middle', colour=_SOFT)}</g>"
    )
    return parts


def _across(scale: _Scale, top: float, bottom: float, unit: str) -> list[str]:
    parts = []
    for tick in scale.ticks():
        x = scale.at(tick)
        parts.append(f'<path d="M{x:.1f} {top:g}V{bottom:g}" stroke="{_GRID}"/>')
        parts.append(_text(x, bottom + 15, _tick(tick), size=12, anchor="middle", colour=_SOFT))
    middle = (scale.start + scale.end) / 2
    parts.append(_text(middle, bottom + 33, unit, anchor="middle", colour=_SOFT))
    return parts


def _text(
    x: float, y: float, text: str, *, size: int = 13, anchor: str = "start", colour: str = _INK
) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {where}>{escape(text)}</text>"


def _tick(value: float) -> str:
    return f"{value:,.10g}"


def _is(name: str, ours: str) -> bool:
    return bool(ours) and name.startswith(ours)


def _colours(names: Iterable[str], ours: str, others: Sequence[str] = _OTHERS) -> dict[str, str]:
    left = iter(others)
    return {name: _OURS if _is(name, ours) else next(left) for name in dict.fromkeys(names)}
