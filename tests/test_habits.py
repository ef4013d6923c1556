"""The image's build steps, the citation and the commit hooks say what the Makefile and the project do."""

import re

import yaml

from conftest import ROOT


def test_the_image_is_built_by_make():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    runs = [rest for word, rest in steps if word == "RUN"]
    assert [run for run in runs if not run.startswith("apt-get")] == ["make install"]
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^install:", makefile, re.M)
    copied = next(rest for word, rest in steps if word == "COPY").split()[:-1]
    needed = re.search(r"^\$\(VENV\)/\.installed:(.*)$", makefile, re.M)[1].split()
    assert set(needed) <= set(copied)  # what `make install` reads is there when it runs
    demo = re.search(r"^\t\$\(RUN\) demo\.py (.*)$", makefile, re.M)[1]
    command = next(rest for word, rest in steps if word == "CMD")
    assert yaml.safe_load(command) == demo.split()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv", "examples/outputs", "train_sppe/data", "train_sppe/exp"} <= set(ignored)


def test_the_citation_is_whole():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["authors"] == [{"name": "the 106 facial landmarks developers"}]


def test_hooks_are_the_projects_own_tools():
    hooks = [
        hook
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
    ]
    requirements = (ROOT / "requirements.txt").read_text()
    for tool in (hook["entry"].split(" -m ")[1].split()[0] for hook in hooks):
        assert re.search(rf"^{tool}\b", requirements, re.M), f"{tool} is not in requirements.txt"
