"""Bars as SVG. Knows nothing of what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_LINE, _LEFT, _WIDTH, _TOP = 26, 220, 720, 48


def bars(title: str, values: Mapping[str, float], ours: str = "") -> str:
    """A horizontal bar for each value, the largest first; names beginning with `ours` stand out."""
    ordered = sorted(values.items(), key=lambda item: -item[1])
    most = max(values.values(), default=1.0)
    room = _WIDTH - _LEFT - 90
    height = _TOP + _LINE * len(ordered) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' role="img" aria-label="{escape(title)}" font-family="system-ui, sans-serif">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="28" font-size="16" fill="#222">{escape(title)}</text>',
    ]
    for place, (name, value) in enumerate(ordered):
        y = _TOP + _LINE * place
        long = max(1.0, room * value / most)
        colour = "#0b7a75" if ours and name.startswith(ours) else "#b4bcc4"
        parts += [
            f'<text x="{_LEFT - 8}" y="{y + 16}" font-size="13" text-anchor="end" fill="#222">'
            f"{escape(name)}</text>",
            f'<rect x="{_LEFT}" y="{y + 3}" width="{long:.1f}" height="18" fill="{colour}"/>',
            f'<text x="{_LEFT + long + 6:.1f}" y="{y + 16}" font-size="13" fill="#222">'
            f"{value:,.0f}</text>",
        ]
    return "\n".join([*parts, "</svg>", ""])
