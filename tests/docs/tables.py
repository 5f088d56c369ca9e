"""Tables of the pages, cell by cell."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def read_rows(page: str, width: int) -> list[list[str]]:
    """The cells of every row of a page's tables of this width, without their heads; generated tables are left out."""
    text = re.sub(r"<!-- (\S+):start -->.*?<!-- \1:end -->", "", (DOCS / page).read_text("utf-8"), flags=re.DOTALL)
    rows: list[list[str]] = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in table.splitlines()]
        rows += [cells for cells in lines[2:] if len(cells) == width]
    return rows


def read_code(cell: str) -> list[str]:
    """What stands between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)
