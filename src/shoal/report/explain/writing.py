"""An explanation as files: text, JSON, pictures and the tree, in a folder of the run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from shoal.report.curves import png
from shoal.report.explain.figures import draw_critic, draw_importance, draw_saliency
from shoal.report.explain.text import as_table, as_text
from shoal.run.drafts import write_atomic
from shoal.run.reading import check_folder

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.report.explain.explain import Explanation

FOLDER = "explanation"
"""Of a run: what `shoal explain` writes, and what the report shows of it."""
DPI = 110


def write_explanation(found: Explanation, folder: Path) -> list[Path]:
    """Writes explanation.txt, explanation.json and pictures into a folder, each in one step; what was written.

    Raises:
        ConfigError: the folder is a link.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        "explanation.txt": ("\n".join(as_text(found)) + "\n").encode(),
        "explanation.json": json.dumps(as_table(found), indent=1).encode(),
    }
    if found.features.image is not None:
        written["saliency.png"] = png(draw_saliency(found), dpi=DPI)
    else:
        written["importance.png"] = png(draw_importance(found), dpi=DPI)
    if found.criticism is not None:
        written["critic.png"] = png(draw_critic(found), dpi=DPI)
    for name in ("saliency.png", "importance.png", "critic.png"):
        if name not in written:
            (folder / name).unlink(missing_ok=True)
    for name, data in written.items():
        write_atomic(folder / name, data)
    return [folder / name for name in written]
