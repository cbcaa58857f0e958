"""Write the tables of docs/guide/presets.md: run this after a change of the data."""

import re
from pathlib import Path

from pyvirt.mmu import costs, presets
from pyvirt.mmu.exits import ExitCosts
from pyvirt.mmu.prices import Prices

PAGE = Path(__file__).parent / "guide" / "presets.md"
MARK = "<!-- Everything from here to the end is written by docs/presets_page.py. -->\n"
HEAD = ("structure", "level", "pages", "serves", "entries", "ways", "policy", "index")
ENTRIES = {"2": "PDEs", "3": "PDPTEs", "4": "PML4Es", "5": "PML5Es"}


class Marks:
    """Short marks for sources: numbers, and letters for what is recalled."""

    def __init__(self) -> None:
        self.sources: dict[tuple[bool, str], str] = {}

    def cell(self, source: presets.Source) -> str:
        """Show a value with the mark of its source."""
        key = (source.recalled, source.source)
        if key not in self.sources:
            same = sum(recalled == source.recalled for recalled, _ in self.sources)
            self.sources[key] = chr(ord("a") + same) if source.recalled else str(same + 1)
        value = source.value
        text = ", ".join(value) if isinstance(value, list) else str(value)
        return f"{text} [{self.sources[key]}]"

    def lines(self) -> list[str]:
        """List what the marks stand for."""
        result = []
        for (recalled, text), mark in sorted(self.sources.items(), key=lambda item: item[0][0]):
            result.append(f"- [{mark}] {'*recalled*: ' if recalled else ''}{text}")
        return result


def structure(path: str) -> str:
    """Name a structure in words."""
    if path.startswith("tlbs["):
        return path[5:-1]
    side = "guest" if path.startswith("guest") else "nested"
    if path == "nested_tlb":
        return "nested TLB"
    level = path.rpartition(".")[2]
    return f"{side} walk cache" + (f", {ENTRIES[level]}" if level in ENTRIES else "")


def preset(name: str) -> list[str]:
    """Write the section of a preset."""
    data = presets.read(name)
    marks = Marks()
    levels = {array.name: str(array.level) for array in data.geometry.tlbs}
    rows: dict[str, dict[str, str]] = {}
    single = []
    for source in data.sources:
        path, _, field = source.field.rpartition(".")
        if not path:
            single.append(f"`{source.field}`: {marks.cell(source)}")
        elif field == "kind":
            single.append(f"{structure(path)}: {marks.cell(source)}")
        else:
            rows.setdefault(path, {})[field] = marks.cell(source)
    lines = [f"### {name}", "", f"{data.title}.", ""]
    lines += ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for path, row in rows.items():
        pages = row.get("pages", "")
        if "smash" in row:
            pages += f"; larger ones in pieces {row['smash'].removeprefix('True ')}"
        title = structure(path)
        cells = [title, levels.get(title, ""), pages]
        cells += [row.get(key, "") for key in ("serves", "entries", "ways", "policy", "hash")]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "; ".join(single) + ".", ""]
    lines += marks.lines()
    if data.notes:
        lines += ["", *(f"{note}" for note in data.notes)]
    return [*lines, ""]


def cost_table(kind: type[Prices], name: str) -> list[str]:
    """Write the section of a cost table."""
    title, notes = kind.describe(name)
    marks = Marks()
    lines = [f"### {name}", "", f"{title}.", "", "| class | cycles |", "|---|---|"]
    lines += [f"| `{s.field}` | {marks.cell(s)} |" for s in kind(name).sources()]
    return [*lines, "", *marks.lines(), "", *notes, ""]


def tables() -> str:
    """Write everything below the mark."""
    lines = ["## Presets", ""]
    for name in presets.names():
        lines += preset(name)
    lines += ["## Cost tables", ""]
    for name in costs.names():
        lines += cost_table(costs.CostModel, name)
    lines += ["## Exit cost tables", ""]
    for name in ExitCosts.names():
        lines += cost_table(ExitCosts, name)
    return re.sub("\n{3,}", "\n\n", "\n".join(lines).rstrip() + "\n")


def page() -> str:
    """Give the page with tables that agree with the data."""
    head, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    return head + MARK + "\n" + tables()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
