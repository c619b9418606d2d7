import doctest
import re
from pathlib import Path

import pytest

from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.update_rules import RULES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def row_of(name):
    return next((line for line in README.splitlines() if line.startswith(f"| `{name}`")), "")


@pytest.mark.parametrize(
    ("registry", "definition"),
    [(registry, d) for registry in (ACTIVATIONS, COSTS, RULES) for d in registry.definitions()],
    ids=lambda x: getattr(x, "name", getattr(x, "kind", "")),
)
def test_the_readme_shows_every_definition_with_its_formula_aliases_and_source(registry, definition):
    row = row_of(definition.name)
    assert definition.formula.replace("|", "\\|") in row
    assert definition.source in row
    for alias in registry.aliases(definition.name.partition("(")[0]):
        assert f"`{alias}`" in row


@pytest.mark.parametrize(
    "code",
    re.findall(r"```python\n(.*?)```", README, re.DOTALL),
    ids=["training", "saving", "exchange", "tuning", "own formula", "sweep"],
)
def test_the_code_of_the_readme_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        exec(compile(code, "README.md", "exec"), {})
    finally:
        if "wave" in ACTIVATIONS:
            ACTIVATIONS.remove("wave")


def test_the_sessions_of_the_readme_answer_as_they_are_printed():
    """All of them in one go, as a reader types them."""
    sessions = re.findall(r"```pycon\n(.*?)```", README, re.DOTALL)
    assert sessions
    text = "\n".join(sessions)
    example = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
    told = []
    assert doctest.DocTestRunner(verbose=False).run(example, out=told.append).failed == 0, "".join(told)


def test_the_readme_links_to_files_that_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make_demo_and_make_test_come_first_in_the_readme():
    first = README.index("make demo")
    assert first < README.index("pip install")
    assert README.index("make test") < README.index("pip install")
