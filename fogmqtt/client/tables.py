"""Tables for terminals and notebooks, from the same cells. The HTML has no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import zip_longest

from fogmqtt.log import one_line

#: Cells of one row; a number is aligned to the right.
Row = Sequence[str | int]


def as_text(head: Row, rows: Sequence[Row]) -> str:
    """Return a table of lines with aligned columns."""
    cells = [[_shown(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    is_number = [isinstance(cell, int) for cell in rows[0]] if rows else [False] * len(head)
    lines = (
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def as_html(caption: str, head: Row, rows: Sequence[Row], remarks: Sequence[str] = ()) -> str:
    """Return a table with a caption, and a paragraph for each remark."""
    titles = "".join(f'<th scope="col">{_escaped(cell)}</th>' for cell in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    table = (
        f"<table><caption>{_escaped(caption)}</caption><thead><tr>{titles}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )
    return table + "".join(f"<p>{_escaped(remark)}</p>" for remark in remarks)


def _cell(cell: str | int) -> str:
    align = ' style="text-align: right"' if isinstance(cell, int) else ""
    return f"<td{align}>{_escaped(cell)}</td>"


def _escaped(cell: str | int) -> str:
    return escape(_shown(cell))


def _shown(cell: str | int) -> str:
    return f"{cell:,}" if isinstance(cell, int) else one_line(cell)
