"""Vendor KaTeX from the npm registry into src/chainrule/explain/assets.

Knows which KaTeX release the pages use, which of its fonts they need, and how its stylesheet becomes one file without
links. Refuses to know how a page is put together. Needs `npm` on the path and nothing beyond the standard library.

Run from anywhere:  python tools/vendor_katex.py
To move to another release, change VERSION and INTEGRITY (`npm view katex@VERSION dist.integrity`) and run it again.
"""

import base64
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "0.19.1"
# The registry's own digest of the tarball: a release that was replaced after review does not get in.
INTEGRITY = "sha512-jG8uKntjSEcm2EpQOh0XturpPuuC9r3Sq5HLHdsFdWZT27E672SF19QEi+of0/YeOy15lDgRhKvr5614uRrEfA=="
ASSETS = Path(__file__).resolve().parent.parent / "src" / "chainrule" / "explain" / "assets"
SIZE_LIMIT = 650_000  # bytes, all files together; an explanation page has to stay under a megabyte

# Main and Math set the formulas, AMS the extra symbols, Size1-4 the tall brackets, Caligraphic \mathcal,
# Typewriter \mathtt, SansSerif \mathsf. Left out: \mathfrak, \mathscr and the bold and slanted cuts of \mathcal and
# \mathsf, which no notation of ours uses; a page that asks for one falls back to the browser's own font.
FONTS = (
    "KaTeX_AMS-Regular",
    "KaTeX_Caligraphic-Regular",
    "KaTeX_Main-Bold",
    "KaTeX_Main-BoldItalic",
    "KaTeX_Main-Italic",
    "KaTeX_Main-Regular",
    "KaTeX_Math-BoldItalic",
    "KaTeX_Math-Italic",
    "KaTeX_SansSerif-Regular",
    "KaTeX_Size1-Regular",
    "KaTeX_Size2-Regular",
    "KaTeX_Size3-Regular",
    "KaTeX_Size4-Regular",
    "KaTeX_Typewriter-Regular",
)

README = """\
# KaTeX, vendored

KaTeX {version} from the npm registry (package `katex`, https://katex.org), MIT licence: `KATEX_LICENSE`.
The explanation pages carry these files inside them, so that they open without a network. The page must be UTF-8.

| file | bytes | what |
|---|---:|---|
{rows}

Not edited by hand: `python tools/vendor_katex.py` (needs `npm`) writes this whole folder, this page included.
To move to another release, change `VERSION` and `INTEGRITY` in that script.

Fonts inlined: {fonts}.
Left out: `\\mathfrak`, `\\mathscr`, and the bold and slanted cuts of `\\mathcal` and `\\mathsf`.
"""


class VendorError(RuntimeError):
    """The package that arrived is not what this script was written for. Nothing has been written."""


def fetch(folder: Path) -> Path:
    """Download the pinned tarball with npm into `folder`, and check its digest."""
    command = ["npm", "pack", f"katex@{VERSION}", "--silent", "--ignore-scripts", "--pack-destination", str(folder)]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    tarball = folder / f"katex-{VERSION}.tgz"
    digest = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if digest != INTEGRITY:
        raise VendorError(f"katex {VERSION}: expected {INTEGRITY}, the registry sent {digest}; review it")
    return tarball


def inline_stylesheet(css: str, fonts: dict[str, bytes]) -> str:
    """Return `css` with each wanted font as a base64 data URI, and the rules of every other font dropped.

    Args:
        css: the minified stylesheet of the package.
        fonts: WOFF2 bytes by font name, such as `KaTeX_Main-Regular`.
    Raises: VendorError: a wanted font has no rule in `css`, or a link to a file is left over.
    """
    inlined: set[str] = set()

    def face(rule: re.Match[str]) -> str:
        link = re.search(r"url\(fonts/([\w-]+)\.woff2\)", rule[0])
        if link is None or link[1] not in fonts:
            return ""
        inlined.add(link[1])
        source = f'src:url(data:font/woff2;base64,{base64.b64encode(fonts[link[1]]).decode()}) format("woff2")'
        return re.sub(r"src:[^}]*", lambda _: source, rule[0])

    result = re.sub(r"@font-face\{[^}]*\}", face, css)
    if missing := fonts.keys() - inlined:
        raise VendorError(f"no @font-face rule for {', '.join(sorted(missing))}; did the package change its names?")
    if "url(fonts/" in result:
        raise VendorError("a link to a font file is left in the stylesheet; did the package change its layout?")
    return result


def build(tarball: Path) -> dict[str, bytes]:
    """Return the files to vendor, by name, made from the npm package `tarball`."""
    with tarfile.open(tarball) as package:

        def member(name: str) -> bytes:
            stream = package.extractfile(f"package/{name}")
            if stream is None:
                raise VendorError(f"the package holds no file {name}")
            return stream.read()

        css = member("dist/katex.min.css").decode()
        fonts = {name: member(f"dist/fonts/{name}.woff2") for name in FONTS}
        files = {
            "KATEX_LICENSE": member("LICENSE"),
            "katex.inline.css": inline_stylesheet(css, fonts).encode(),
            "katex.min.js": member("dist/katex.min.js"),
        }
    if b"</script" in files["katex.min.js"] or b"</style" in files["katex.inline.css"]:
        raise VendorError("a closing tag inside the files would end the element that carries them")
    return files


def describe(files: dict[str, bytes]) -> bytes:
    """Return the folder's README for `files`."""
    what = {
        "KATEX_LICENSE": "the licence text",
        "katex.inline.css": "the stylesheet, its WOFF2 fonts inside it as data URIs",
        "katex.min.js": "the renderer, as published",
    }
    rows = "\n".join(f"| `{name}` | {len(data):,} | {what[name]} |" for name, data in files.items())
    fonts = ", ".join(name.removeprefix("KaTeX_") for name in FONTS)
    return README.format(version=VERSION, rows=rows, fonts=fonts).encode()


def main() -> int:
    """Write the assets; return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        files = build(fetch(Path(folder)))
    files["README.md"] = describe(files)
    total = sum(map(len, files.values()))
    if total > SIZE_LIMIT:
        raise VendorError(f"{total:,} bytes, the limit is {SIZE_LIMIT:,}; drop a font or raise the limit knowingly")
    ASSETS.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (ASSETS / name).write_bytes(data)
        print(f"{len(data):>9,}  {name}")
    print(f"{total:>9,}  in {ASSETS.name}/, KaTeX {VERSION}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
