"""Run the programs of the README and of docs/; draw the README's picture and refill the outputs below the programs.

    python tools/terminal_shot.py

The picture, docs/images/explanation.svg, is what `cr.explain(loss, wrt=w1)` prints after the README's first program, as
a terminal. It carries its own background, so that it reads on a light page and on a dark one, and asks for no font from
a network. A ```text block that follows a ```python block is that block's output; the blocks of a page are one program.
"""

from __future__ import annotations

import contextlib
import html
import io
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

import chainrule as cr

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = (README, ROOT / "docs" / "reading_an_explanation.md")
PICTURE = ROOT / "docs" / "images" / "explanation.svg"
COMMAND = "cr.explain(loss, wrt=w1)"

# Contrast of text to background is at least 7 to 1.
_THEME = TerminalTheme(
    (22, 27, 34),
    (214, 221, 228),
    [(110, 118, 129)] + [(214, 221, 228)] * 7,
    [(139, 148, 158)] + [(255, 255, 255)] * 7,
)
_FONT = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
# Rich's own frame loads a font from a network; this one does not. SIZE is filled in here, the rest by Rich.
_FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 SIZE" role="img" aria-label="A terminal: the chain rule of a \
small net, from its loss back to its first weight, with formulas, shapes, numbers and checks">
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px FONT; font-variant-ligatures: none; }}
{styles}
</style>
<defs>
{lines}
</defs>
<rect fill="#161b22" stroke="#8b949e" stroke-opacity="0.6" x="1" y="1" width="99.8%" height="99.7%" rx="10"/>
<g class="{unique_id}-matrix" transform="translate(MARGIN, MARGIN)">
{matrix}
</g>
</svg>
"""
_MARGIN = 18
_CHARACTER, _LINE = 20 * 0.61, 20 * 1.22  # Rich's, in its units


_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
_MARK = "==== next block ===="


def blocks(text: str) -> list[tuple[str, str | None]]:
    """(code, the output shown below it) of each Python block of a page; None where none is shown."""
    return [(m["code"], m["output"]) for m in _BLOCK.finditer(text)]


def outputs(text: str) -> list[str]:
    """What each Python block of a page prints, all run as one program called page.py."""
    program = f"\nprint({_MARK!r})\n".join(code for code, _ in blocks(text))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.py"
        path.write_text(program, encoding="utf-8")
        run = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, encoding="utf-8", check=False)
    if run.returncode:
        raise RuntimeError(f"the page's program fails:\n{run.stderr}")
    return run.stdout.split(f"{_MARK}\n")


def refilled(text: str) -> str:
    """The page, with what its blocks print now."""
    found = iter(outputs(text))

    def fill(match: re.Match[str]) -> str:
        printed_now = next(found)
        if match["output"] is None:
            return match[0]
        return f"```python\n{match['code']}```\n\n```text\n{printed_now.rstrip()}\n```\n"

    return _BLOCK.sub(fill, text)


def printed() -> str:
    """What the picture's command prints after the README's first block."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.py"
        path.write_text(blocks(README.read_text(encoding="utf-8"))[0][0], encoding="utf-8")
        with contextlib.redirect_stdout(io.StringIO()):
            variables: dict[str, Any] = runpy.run_path(str(path), run_name="__main__")
        # Asked as the program itself would ask, whose variables name the values; printed while its source still exists.
        return str(eval(COMMAND, {**variables, "cr": cr}))


def picture() -> str:
    """The SVG."""
    lines = [f">>> {COMMAND}", *printed().split("\n")]
    console = Console(record=True, width=max(map(len, lines)) + 1, file=io.StringIO(), highlight=False)
    for number, line in enumerate(lines):
        console.print(Text(line, style="bold" if number == 1 else "bright_black" if number == 0 else ""))
    size = f"{console.width * _CHARACTER + 2 * _MARGIN:.0f} {len(lines) * _LINE + 2 * _MARGIN:.0f}"
    frame = _FRAME.replace("SIZE", size).replace("MARGIN", str(_MARGIN)).replace("FONT", _FONT)
    drawn = console.export_svg(title="", theme=_THEME, code_format=frame, unique_id="shot")
    return "\n".join(line.rstrip() for line in drawn.split("\n"))


def words(svg: str) -> str:
    """The text that a picture shows, a line of it a line."""
    rows: dict[float, list[str]] = {}
    for y, text in re.findall(r'<text [^>]*?\by="([\d.]+)"[^>]*>([^<]*)</text>', svg):
        rows.setdefault(float(y), []).append(html.unescape(text).replace("\xa0", " "))
    return "\n".join("".join(rows[y]).rstrip() for y in sorted(rows)).rstrip()


def main() -> None:
    """Write the picture and the outputs."""
    for page in PAGES:
        page.write_text(refilled(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"{page.relative_to(ROOT)}: refilled")
    drawn = picture()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(drawn, encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)}: {len(drawn):,} bytes")


if __name__ == "__main__":
    main()
