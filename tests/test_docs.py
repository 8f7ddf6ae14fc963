"""The texts keep their word: programs run and print what is shown, what is named exists, links lead somewhere."""

import ast
import difflib
import html
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.main import get_command

import chainrule as cr
from chainrule.cli import app
from chainrule.ops.catalogue import CATALOGUE

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "chainrule"
TEXTS = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

TOUR = "python3 -m venv .venv && .venv/bin/pip install -e '.[demo]' && .venv/bin/chainrule tour"
TESTS = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest"


@pytest.fixture(scope="module")
def shot():
    """The tool that fills the pages' outputs and draws the picture."""
    spec = importlib.util.spec_from_file_location("terminal_shot", ROOT / "tools" / "terminal_shot.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steady(text):
    """What is said, less the last digits: another BLAS rounds differently, and a column is as wide as its numbers."""
    text = re.sub(r"(ok|error:?) \d(\.\d+)?e[+-]\d+", r"\1 #", text)
    text = re.sub(r"-?\d+\.\d+(e-?\d+)?", lambda m: f"{float(m.group()):.3g}", text)
    return re.sub(r"(?<=\S) {2,}", "  ", text).strip()


def same(shown, printed):
    """Nothing, or how they differ and what to do."""
    shown, printed = steady(shown).split("\n"), steady(printed).split("\n")
    if shown == printed:
        return ""
    difference = "\n".join(difflib.unified_diff(shown, printed, "shown", "printed", lineterm="", n=1))
    return f"read the difference; if it is for the better: python tools/terminal_shot.py\n{difference}"


# --- programs


@pytest.mark.parametrize("page", ["README.md", "docs/reading_an_explanation.md"])
def test_programs_print_what_is_shown(page, shot):
    text = (ROOT / page).read_text(encoding="utf-8")
    found = shot.outputs(text)
    shown = [output for _, output in shot.blocks(text)]
    assert len(found) == len(shown) > 1
    assert any(output is not None for output in shown)
    for output, printed in zip(shown, found, strict=True):
        difference = "" if output is None else same(output, printed)
        assert not difference, difference


def test_the_picture_shows_what_is_printed(shot):
    picture = (ROOT / "docs/images/explanation.svg").read_text(encoding="utf-8")
    rows = {}
    for y, text in re.findall(r'<text [^>]*?\by="([\d.]+)"[^>]*>([^<]*)</text>', picture):
        rows.setdefault(float(y), []).append(html.unescape(text).replace("\xa0", " "))
    shown = "\n".join("".join(rows[y]).rstrip() for y in sorted(rows))
    printed = "\n".join([f">>> {shot.COMMAND}", *filter(None, shot.printed().split("\n"))])
    difference = same("\n".join(filter(None, shown.split("\n"))), printed)
    assert not difference, difference


def test_the_picture_asks_for_nothing_from_a_network():
    picture = (ROOT / "docs/images/explanation.svg").read_text(encoding="utf-8")
    assert re.findall(r"https?://[^\"'\s]+", picture) == ["http://www.w3.org/2000/svg"]


def edits(page):
    """(path, the line after which, the lines added) of each ```diff block."""
    for block in re.findall(r"^```diff\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        head, anchor, *added = block.rstrip("\n").split("\n")
        assert head.startswith("+++ "), head
        assert anchor.startswith(" "), anchor
        assert added, block
        assert all(line.startswith("+") for line in added), block
        yield head[4:], anchor[1:], [line[1:] for line in added]


def test_the_edits_that_add_an_op_to_the_repository_pass_its_contract(tmp_path):
    for folder in ("src", "tests/contract"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    changes = list(edits((ROOT / "docs/adding_an_op.md").read_text(encoding="utf-8")))
    assert len(changes) == 7
    for path, anchor, added in changes:
        lines = (tmp_path / path).read_text(encoding="utf-8").split("\n")
        places = [i for i, line in enumerate(lines) if line.startswith(anchor)]
        assert len(places) == 1, f"{path} has {len(places)} lines that begin {anchor!r}"
        lines[places[0] + 1 : places[0] + 1] = added
        (tmp_path / path).write_text("\n".join(lines), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "tests/contract", "-k", "squareplus"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed, run.stdout[-500:]
    assert 70 <= int(passed[1]) <= 120, "the page says: some eighty"


# --- commands


def shell_blocks(text):
    return [block.strip() for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def test_the_two_commands():
    assert shell_blocks(README) == [TOUR, TESTS]


def test_each_command_makes_its_own_environment_and_asks_for_extras_that_exist():
    extras = PROJECT["project"]["optional-dependencies"]
    for command in (TOUR, TESTS):
        make, install, run = command.split(" && ")
        assert make == "python3 -m venv .venv"
        wanted = re.search(r"\.\[(\w+)\]", install)
        assert wanted
        assert wanted[1] in extras
        assert shlex.split(run)[0].startswith(".venv/bin/")
    assert set(re.findall(r"uv run --extra (\w+)", README)) == {"demo", "test"}
    assert "chainrule" in PROJECT["project"]["scripts"]


def chainrule_commands():
    """(text, command line) of each use of the command line that a text shows in backticks or a block."""
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        for found in re.findall(r"`([^`\n]*\bchainrule (?:tour|explain)\b[^`\n]*)`", text):
            yield pytest.param(found[found.index("chainrule ") :], id=f"{path.name}: {found}")


@pytest.mark.parametrize("line", list(chainrule_commands()))
def test_commands_and_options_exist(line):
    _, name, *rest = shlex.split(line)
    command = get_command(app).commands[name]
    options = {opt for parameter in command.params for opt in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= options


def test_every_import_is_a_declared_dependency():
    # README's commands install what pyproject.toml declares; what happens to be there besides proves nothing.
    declared = [Requirement(d).name for d in PROJECT["project"]["dependencies"]]
    pending, installed = list(declared), set()
    while pending:
        name = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if name in installed:
            continue
        installed.add(name)
        needs = [Requirement(r) for r in importlib.metadata.requires(name) or ()]
        pending += [r.name for r in needs if r.marker is None or r.marker.evaluate({"extra": ""})]
    owners = importlib.metadata.packages_distributions()
    missing = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"chainrule"}:
                brings = {re.sub(r"[-_.]+", "-", d).lower() for d in owners.get(top, ())}
                if not brings & installed:
                    missing.add(f"{path.relative_to(ROOT)} imports {top}")
    assert not missing, "\n".join(sorted(missing))


# --- what is named


SUFFIXES = "py|md|toml|txt|svg|css|js|j2"
PATH = re.compile(rf"`(\.?[\w./-]+(?:/|\.(?:{SUFFIXES})))`")
# A user's files, which the texts give names to; and the places that the first design foresaw and that do not exist yet.
NOT_OURS = {"page.py", "train.py", ".npz", "parallel/"}


def named_paths():
    for path in TEXTS:
        for found in dict.fromkeys(PATH.findall(path.read_text(encoding="utf-8"))):
            if found not in NOT_OURS and not found.startswith("chainrule-tour/"):
                yield pytest.param(path, found, id=f"{path.name}: {found}")


@pytest.mark.parametrize(("text", "named"), list(named_paths()))
def test_named_files_exist(text, named):
    places = [ROOT, SOURCE, ROOT / "tests" / "contract", *(p for p in SOURCE.iterdir() if p.is_dir())]
    assert any((place / named).exists() for place in places), f"{text.name} names {named}"


def test_places_said_to_be_missing_are():
    assert not (SOURCE / "parallel").exists()
    assert not (SOURCE / "interop").exists()
    missing = ("vmap", "diagnose", "watch", "why_none", "stepper", "rules")
    assert [name for name in missing if hasattr(cr, name)] == []


def attribute(dotted):
    value = cr
    for part in dotted.split("."):
        value = getattr(value, part)
    return value


def named_attributes():
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        for found in dict.fromkeys(re.findall(r"\bcr\.([a-zA-Z_]\w*(?:\.[a-zA-Z_]\w*)*)", text)):
            yield pytest.param(found, id=f"{path.name}: {found}")


@pytest.mark.parametrize("dotted", list(named_attributes()))
def test_named_functions_exist(dotted):
    assert attribute(dotted) is not None


def glossary():
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| .+? \| (.+?) \|$", text, re.MULTILINE)
    return [pytest.param(term, place, id=term) for term, place in rows if term != "term"]


@pytest.mark.parametrize(("term", "lives_in"), glossary())
def test_each_term_lives_where_the_glossary_says(term, lives_in):
    places = re.findall(r"`([^`]+)`", lives_in)
    files = [SOURCE / place for place in places if re.fullmatch(r"[\w/]+(/|\.py)", place)]
    assert files
    assert all(file.exists() for file in files)
    code = "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    for name in (place for place in places if re.fullmatch(r"(?!cr\.)\w+(\.(?!py$)\w+)?", place)):
        for part in name.split("."):
            assert re.search(rf"^\s*(def|class) {part}\b|^\s*{part}\b *[:=]", code, re.MULTILINE), name


def test_the_map_is_the_order_of_the_layers():
    spec = importlib.util.spec_from_file_location("layers", ROOT / "tests" / "test_layers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text[text.index("## The map") : text.index("## What always holds")]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    written = [frozenset(re.findall(r"`(\w+)(?:\.py|/)`", row)) for row in rows]
    assert written == list(module.LAYERS)


# --- links


def links():
    for path in TEXTS:
        text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in dict.fromkeys(re.findall(r"\]\(([^)\s]+)\)", text)):
            yield pytest.param(path, target, id=f"{path.name}: {target}")


def anchors(page):
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize(("text", "target"), list(links()))
def test_links_lead_somewhere(text, target):
    if target.startswith("https://"):
        return
    file, _, anchor = target.partition("#")
    page = (text.parent / file).resolve() if file else text
    assert page.exists()
    assert page.is_relative_to(ROOT)
    assert not anchor or anchor in anchors(page)


# --- numbers


def test_what_the_readme_counts():
    assert 90 <= len(CATALOGUE) <= 105  # nearly 100
    coverage = (ROOT / "tests/outside/opinfo_coverage.txt").read_text(encoding="utf-8")
    entries, calls = re.search(r"^Total: (\d+) entries, (\d+) samples run$", coverage, re.MULTILINE).groups()
    assert int(entries) > 250
    assert int(calls) > 30_000
    lowest, highest = re.search(r"Python (3\.\d+) to (3\.\d+)", README).groups()
    assert PROJECT["project"]["requires-python"] == f">={lowest}"
    assert f"Programming Language :: Python :: {highest}" in PROJECT["project"]["classifiers"]
