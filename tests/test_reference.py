"""The reference pages: committed as the schemas and settings have them, with a meaning for everything they list."""

import json

from toolset_nb import reference, rules, settings
from toolset_nb.__main__ import main
from toolset_nb.paths import repo_root
from toolset_nb.tools import catalogue

FOLDER = repo_root() / "docs" / "reference"


def classes(model=settings.Settings):
    return [model, *(found for child in model.__subclasses__() for found in classes(child))]


def test_the_committed_pages_are_what_the_command_writes(tmp_path, capsys, monkeypatch):
    made = reference.pages()
    assert {path.name for path in FOLDER.glob("*.md")} == made.keys()
    for name, text in made.items():
        assert (FOLDER / name).read_text("utf-8") == text, f"{name}: run `python -m toolset_nb reference`"
    monkeypatch.setattr(reference, "repo_root", lambda: tmp_path)
    monkeypatch.setattr(reference, "pages", lambda: made)
    assert main(["reference"]) == 0
    written = capsys.readouterr().out.splitlines()
    assert written == [f"written: {tmp_path / 'docs' / 'reference' / name}" for name in made]
    assert (tmp_path / "docs" / "reference" / "kto.md").read_text("utf-8") == made["kto.md"]


def test_every_parameter_has_its_meaning_at_the_class_that_declares_it():
    told = json.loads((repo_root() / "schemas" / "settings.json").read_text("utf-8"))
    declared = {
        kind.__name__: {name for name in kind.__annotations__ if not name.startswith("_")} for kind in classes()
    }
    again = {("SFTSettings", "dataset"), ("KTOSettings", "dataset")}  # another default, the same meaning
    wanted = {(kind, name) for kind, names in declared.items() for name in names} - again
    assert {(kind, name) for kind, names in told.items() for name in names} == wanted
    assert all(text.endswith(".") for names in told.values() for text in names.values())


def test_every_notebook_has_its_settings_on_the_page():
    page = reference.pages()["settings.md"]
    for path in (repo_root() / "notebooks").glob("*.ipynb"):
        assert any(line.startswith("## ") and path.name in line for line in page.splitlines()), path.name


def test_every_tool_and_parameter_is_on_the_page_with_its_meaning():
    page = reference.pages()["tools.md"]
    for tool in catalogue().tools.values():
        section = page.partition(f"### {tool.name}\n")[2].partition("\n##")[0]
        assert tool.description in section
        for name, rule, _ in reference.fields(tool.parameters):
            assert f"| `{name}` |" in section and rule["description"], (tool.name, name)


def test_rules_about_several_fields_are_told():
    tools = catalogue().tools
    told = list(reference.conditions(tools["memoryManager_updateSession"].parameters))
    assert told == [
        "At least one of `targetSessionId`, `sessionId`.",
        "At least one of `name`, `description`, `sessionGoal`.",
    ]
    told = list(reference.conditions(tools["contentManager_batchContent"].parameters))
    assert len(told) == 8
    assert told[1].startswith("Where `operations[].type` is `create`: `operations[].params.filePath`, `operations[].")


def test_every_field_of_a_row_and_of_run_json_says_what_it_means():
    for name in ("row", "run"):
        schema = json.loads((repo_root() / "schemas" / f"{name}.json").read_text("utf-8"))
        assert [path for path, rule, _ in reference.fields(schema) if not rule.get("description")] == []


def test_the_rows_on_the_pages_pass_the_validator(tmp_path):
    schema = json.loads((repo_root() / "schemas" / "row.json").read_text("utf-8"))
    right, *pair = schema["examples"]
    for rows in ([right], pair):
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        assert [str(finding) for finding in rules.validate(file)] == []
