"""Small charts as SVG inside the page: a line of numbers with what they say in words for who cannot see it."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 120, 28
_PAD = 2.0


def line(values: Sequence[float | None], title: str, *, width: int = WIDTH, height: int = HEIGHT) -> Markup:
    """A line over an area, oldest value at the left; from nought to the largest value."""
    known = [max(float(value or 0), 0.0) for value in values]
    label = escape(title)
    head = Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}" preserveAspectRatio="none">'
    ).format(width, height, label)
    if len(known) < 2 or not any(known):
        flat = Markup('<line class="flat" x1="0" x2="{}" y1="{}" y2="{}"/>').format(width, height - 1, height - 1)
        return head + Markup("<title>{}</title>").format(title) + flat + Markup("</svg>")
    highest = max(known)
    step = width / (len(known) - 1)
    points = [
        f"{place * step:.1f},{height - _PAD - value / highest * (height - 2 * _PAD):.1f}"
        for place, value in enumerate(known)
    ]
    shape = " ".join(points)
    body = Markup('<title>{}</title><polygon class="area" points="0,{} {} {},{}"/><polyline class="line" points="{}"/>')
    return head + body.format(title, height, Markup(shape), width, height, Markup(shape)) + Markup("</svg>")


def bars(stacks: Sequence[Sequence[float]], names: Sequence[str], title: str, *, width: int, height: int) -> Markup:
    """Stacked bars, oldest at the left; each stack has a value for each of `names`, which are its classes."""
    highest = max((sum(stack) for stack in stacks), default=0) or 1
    step = width / max(len(stacks), 1)
    parts = []
    for place, stack in enumerate(stacks):
        floor = float(height)
        for name, value in zip(names, stack, strict=True):
            tall = value / highest * (height - 1)
            if value and tall < 1:
                tall = 1.0
            floor -= tall
            if value:
                parts.append(
                    f'<rect class="{escape(name)}" x="{place * step:.2f}" y="{floor:.2f}" '
                    f'width="{max(step - 1, 0.5):.2f}" height="{tall:.2f}"/>'
                )
    head = Markup('<svg class="bars" viewBox="0 0 {} {}" role="img" aria-label="{}" preserveAspectRatio="none">')
    return (
        head.format(width, height, title)
        + Markup("<title>{}</title>").format(title)
        + Markup("".join(parts))
        + Markup("</svg>")
    )
