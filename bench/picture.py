"""Curves as SVG, with both axes logarithmic."""

import math
from collections.abc import Mapping
from html import escape

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, LEGEND = 900, 460, 60, 40, 40, 320
_COLOURS = ("#1b6ca8", "#c2410c", "#2e7d32", "#7b1fa2", "#00838f", "#ad1457", "#5d4037", "#455a64", "#9e9d24")


def curves(title: str, series: Mapping[str, Mapping[int, float]]) -> str:
    """An SVG document: a curve a series, its values by their places on the horizontal axis."""
    places = sorted({at for points in series.values() for at in points})
    values = [max(value, 0.01) for points in series.values() for value in points.values()]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    right, bottom = WIDTH - LEGEND, HEIGHT - BOTTOM

    def x(at: int) -> float:
        span = math.log10(places[-1] / places[0]) or 1.0
        return LEFT + math.log10(at / places[0]) / span * (right - LEFT)

    def y(value: float) -> float:
        return bottom - (math.log10(max(value, 0.01)) - low) / (high - low) * (bottom - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
    ]
    for power in range(low, high + 1):
        height = y(10.0**power)
        parts.append(f'<path d="M{LEFT} {height:.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for at in places:
        parts.append(f'<text x="{x(at):.1f}" y="{bottom + 20}" text-anchor="middle">{at:,}</text>')
    for number, (name, points) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = "" if number < len(_COLOURS) else ' stroke-dasharray="5 3"'
        line = " ".join(f"{x(at):.1f},{y(points[at]):.1f}" for at in sorted(points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        at = TOP + 21 * number
        parts.append(f'<path d="M{right + 20} {at}h24" stroke="{colour}" stroke-width="1.8"{dash}/>')
        parts.append(f'<text x="{right + 50}" y="{at + 4}" fill="#333">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])
