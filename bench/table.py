"""A row of figures, and the table that prints them."""

from typing import NamedTuple


class Row(NamedTuple):
    """A figure of the product, its reference and the obvious stack, all in `unit`."""

    part: str
    figure: str
    unit: str
    product: float
    reference: float | None = None
    obvious: float | None = None


def table(rows: list[Row]) -> str:
    """Return `rows` as aligned text. A ratio divides the product's figure by the one to its left."""
    heading = ("part", "figure", "unit", "product", "reference", "ratio", "obvious", "ratio")
    cells = [heading, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def _cells(row: Row) -> tuple[str, ...]:
    reference = _number(row.reference), _ratio(row.product, row.reference)
    obvious = _number(row.obvious), _ratio(row.product, row.obvious)
    return (row.part, row.figure, row.unit, _number(row.product), *reference, *obvious)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def _ratio(value: float, other: float | None) -> str:
    if not other:
        return ""
    return f"{value / other:.1f} x" if value >= other else f"{value / other:.1%}"
