"""Every command and example of the documentation runs, and every relative link leads somewhere.

Commands run in order, page by page, in an empty folder, at the small size that `SMALLER` makes of them.
Nothing is skipped silently: what cannot run stands in `NOT_RUN` with its reason, all else fails.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from doc_pages import ROOT, Block, anchors, blocks, links, pages, read

from ptycho.cli.main import main

#: what is made smaller, pattern to replacement, applied to shell commands and to Python and YAML text
SMALLER = {
    r"--nepochs \d+": "--nepochs 1",
    r"\bnepochs(=|: )\d+": r"nepochs\g<1>1",
    r"--n_positions \d+": "--n_positions 36",
    r"\bn_positions=\d+": "n_positions=36",
    r"--probe_from refine": "--probe_from refine --probe_refine_sweeps 1",
    r'\bprobe_from="refine"': 'probe_from="refine", probe_refine_sweeps=1',
    r"^probe_from: refine": "probe_from: refine\nprobe_refine_sweeps: 1",
    r"\bptycho reconstruct (\S+)": r"ptycho reconstruct \g<1> --sweeps 3",
    r"\bptycho train (\S+\.npz(?: \S+\.npz)*)": r"ptycho train \g<1> --probe_refine_sweeps 1",
    # a second epoch, so that a resumed run has something left to do
    r"(?<=ptycho train )(.*)--nepochs 1( .*--resume)": r"\g<1>--nepochs 2\g<2>",
    r"(ptycho view \w+)(?= +#|$)": r"\g<1> --seconds 0.1",
    r"\bmake demo\b": "ptycho demo --quick -o demo_out",
    r"ptycho demo -o demo_out": "ptycho demo --quick -o demo_out",
    r"(?<=siemens_star_velociprobe.npz -o star)$": " --n_subsample 36 --nepochs 1 --probe_refine_sweeps 1",
    r"(?<=-o star_refined)$": " --sweeps 1",
    r"\bptycho parity\b(?!.*--steps)": "ptycho parity --steps 2 --precisions float32",
    r"(?<=infer \.\./shared/data/siemens_star_velociprobe.npz)": " --n_subsample 36",
}

#: commands that no test may run, pattern to reason
NOT_RUN = {
    r"git clone ": "fetches the repository that is being tested",
    r"python3 -m venv ": "the environment of the tests is there already",
    r"\. \.venv/bin/activate": "the environment of the tests is active already",
    r"pip install ": "changes the environment of the tests; the clean install is checked by hand",
    r"make (test|lint|lint test)$": "would run these tests within themselves; .ci/run runs both",
    r"make bench$": "takes long; its figures are in docs/benchmarks.md",
    r"make docs$": "rewrites the pages that are being tested",
    r"mlflow (ui|models serve) ": "a server without an end; tests/core/test_mlflow.py starts one and asks it",
    r"curl 127.0.0.1": "asks that server, as tests/core/test_mlflow.py does",
    r"pytest ": "would run tests within a test",
    r"(\.venv/bin/)?python benchmarks/": "takes long; the output is shown beside the command",
}

#: what a page takes for granted
GIVEN = {
    "README.md": [
        "ptycho simulate --N 64 --n_positions 676 -o scan.npz",
        "ptycho simulate --N 64 --n_positions 676 -o truth.npz",
    ],
}

RUNNABLE = [page for page in pages() if any(b.language in ("bash", "python") for b in blocks(read(page)))]


def smaller(text: str) -> str:
    for pattern, replacement in SMALLER.items():
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def commands(text: str) -> list[list[str]]:
    """The simple commands of a shell block: continued lines joined, comments dropped, `&&` taken apart."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                found.append(words)
                words = []
    return found


def reason_not_to_run(words: list[str]) -> str | None:
    line = " ".join(words)
    return next((reason for pattern, reason in NOT_RUN.items() if re.match(pattern, line)), None)


def run_shell(text: str, where: str, shared: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(smaller(text)):
        if words[0] == "ptycho":
            code = main([word.replace("../shared", shared) for word in words[1:]])
            shown = capsys.readouterr()
            assert code == 0, f"{where}: {shlex.join(words)} ended with {code}: {shown.err}"
        elif words[0] == "cd":
            continue
        else:
            assert reason_not_to_run(words), f"{where}: no way to run {shlex.join(words)}: see NOT_RUN"


def run_block(
    block: Block, page: Path, names: dict[str, object], shared: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"{page}:{block.line}"
    if block.language == "bash":
        run_shell(block.text, where, shared, capsys)
    elif block.language == "python":
        exec(compile(smaller(block.text), where, "exec"), names)
    elif block.language == "yaml":
        named = re.match(r"# (\S+\.yaml)\n", block.text)
        assert named, f"{where}: the first line of a YAML block names its file, as in '# settings.yaml'"
        Path(named[1]).write_text(smaller(block.text), encoding="utf-8")
    else:
        assert block.language in ("text", "json"), f"{where}: no way to check a block of {block.language}"


@pytest.mark.parametrize("page", RUNNABLE, ids=str)
def test_what_a_page_shows_runs(
    page: Path, workshop: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    text = read(page)
    needs_data = any("../shared" in block.text for block in blocks(text))
    shared = str(request.getfixturevalue("shared_dir")) if needs_data else ""
    names: dict[str, object] = {"__name__": "example"}
    for line in GIVEN.get(page.as_posix(), []):
        run_shell(line, "given", shared, capsys)
    for block in blocks(text):
        run_block(block, page, names, shared, capsys)


@pytest.mark.parametrize("page", pages(), ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in links(read(page)):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    assert not broken, f"{page}: {broken}"


def test_every_page_of_the_documentation_is_on_the_map() -> None:
    reached, waiting = set(), [ROOT / "docs" / "index.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in reached or page.suffix != ".md" or not page.is_file():
            continue
        reached.add(page)
        waiting += [page.parent / link.partition("#")[0] for link in links(page.read_text(encoding="utf-8"))]
    wanted = {(ROOT / page).resolve() for page in pages() if page.parts[0] in ("docs", "specs")}
    assert wanted <= reached, sorted(str(page.relative_to(ROOT)) for page in wanted - reached)


def test_a_command_that_nobody_knows_is_not_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match="no way to run rm -r run"):
        run_shell("rm -r run  # tidy up", "page:1", "", capsys)
    with pytest.raises(AssertionError, match="ended with 2"):
        run_shell("ptycho simulate --no_such_flag", "page:1", "", capsys)


def test_a_resumed_command_is_given_an_epoch_more() -> None:
    made = smaller("ptycho train a.npz -o b --nepochs 60 --resume c.ckpt")
    assert made == "ptycho train a.npz --probe_refine_sweeps 1 -o b --nepochs 2 --resume c.ckpt"
