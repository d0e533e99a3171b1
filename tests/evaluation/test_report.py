"""Reports: the fields people know, all files, nothing a model wrote becomes markup, and a comparison in words."""

import csv
import json
import re

import jsonschema_rs
import pytest
from scripted import ASK, QUIET, TASK, Script, answer, manifest, prompts, single
from written_call import RIGHT, TOOL, call

from toolset_nb.evaluation import (
    MEASURES,
    EvaluationError,
    Journal,
    comparison,
    evaluate,
    judge,
    markdown,
    plots,
    read_reports,
    report,
    save,
    summarise,
    table,
)
from toolset_nb.paths import repo_root
from toolset_nb.servers import RequestFailed
from toolset_nb.settings import EvaluateSettings

SETTINGS = EvaluateSettings(slots=2)


@pytest.fixture
def records():
    """Two passed, one failed, one request error, in the set's order."""
    replies = {"q0": RIGHT, "q1": RequestFailed("refused"), "q2": "Shall I?", "q3": RIGHT}
    return evaluate(Script(replies), prompts(4), SETTINGS)


def made(replies: dict | None = None, label: str = "m", asked: list | None = None, **settings) -> dict:
    """A report on scripted replies."""
    asked = asked or prompts(4)
    script = Script(replies or {prompt["question"]: RIGHT for prompt in asked})
    return report(manifest(label, **settings), evaluate(script, asked, EvaluateSettings(slots=1, **settings)), 2.0)


def test_the_summary_has_the_predecessors_fields(records):
    summary = summarise(records)
    keys = {"total", "passed", "failed", "request_errors", "pass_rate", "by_tag", "top_failure_reasons"}
    assert summary.keys() >= keys
    assert (summary["total"], summary["passed"], summary["failed"], summary["request_errors"]) == (4, 2, 1, 1)
    assert summary["pass_rate"] == round(2 / 3, 4) and summary["measures"]["passed"]["total"] == 3
    assert summary["outcomes"] == {"call": 2, "infra": 1, "text": 1}
    assert summary["by_tag"]["single"] == {"total": 3, "passed": 2, "pass_rate": 0.6667}
    assert summary["top_failure_reasons"] == [[f"no call, expected {TOOL}", 1]]
    assert summary["failures"] == {"asked_needlessly": 1, "infra": 1}


def test_named_arguments_are_no_measure_where_no_prompt_names_any():
    unnamed = [{key: value for key, value in each.items() if key != "expected_arguments"} for each in prompts(2)]
    assert "arguments" not in made(asked=unnamed)["summary"]["measures"]
    named = [each | {"expected_arguments": {}} for each in unnamed]
    assert made(asked=named)["summary"]["measures"]["arguments"]["total"] == 2


def test_only_request_errors_still_make_a_summary_and_a_report():
    entry = made({"q0": RequestFailed("refused")}, asked=prompts(1))
    summary = entry["summary"]
    assert (summary["total"], summary["request_errors"], summary["pass_rate"]) == (1, 1, 0.0)
    assert "Request errors: **1**" in markdown([entry])


def test_the_summary_tells_what_was_due_from_what_was_done():
    replies = {"Make the folder Scores": call(path="Books"), "Delete it": RIGHT, "Thank you!": "You are welcome."}
    records = evaluate(Script(replies), [TASK, ASK, QUIET], EvaluateSettings(slots=1, max_turns=1))
    summary = summarise(records)
    assert summary["actions"] == {"call": {"call": 1}, "ask": {"call": 1}, "talk": {"talk": 1}}
    assert summary["confusion"] == {"ask": {TOOL: 1}, "talk": {"talk": 1}, TOOL: {TOOL: 1}}
    assert summary["by_level"] == {"explicit": {"total": 1, "passed": 0, "pass_rate": 0.0}}
    assert summary["collateral_changes"] == 2


def test_trials_give_pass_hat_and_intervals_by_task():
    turns = iter([RIGHT, "Shall I?"] * 2 + [RIGHT] * 4)
    entry = made(lambda chat: next(turns), asked=prompts(2), trials=4)
    assert entry["summary"]["pass_hat"] == {"1": 0.75, "2": round((1 / 6 + 1) / 2, 4), "3": 0.5, "4": 0.5}
    assert "| pass^4: passed every time | 50% |" in table([entry])
    assert "pass_hat" in plots.figures([entry])


def test_trials_are_shown_by_their_share_and_what_was_not_answered_as_that():
    turns = iter([RIGHT, RequestFailed("busy"), "Shall I?", RequestFailed("busy")])
    text = markdown([made(lambda chat: next(turns), asked=prompts(2), trials=2)])
    lines = [line for line in text.splitlines() if line.startswith("| q")]
    assert [line.split("|")[-2].strip() for line in lines] == [f"50% {TOOL}", "– not answered"]


def test_the_report_fits_its_schema(records):
    schema = json.loads((repo_root() / "schemas" / "report.json").read_text("utf-8"))
    found = jsonschema_rs.validator_for(schema)
    for entry in (made(), report(manifest(), records, 1.0)):
        assert [error.message for error in found.iter_errors(json.loads(json.dumps(entry)))] == []
    assert not found.is_valid({**made(), "records": [{"case_id": "x"}]})


FILES = {
    "report.md",
    "report.html",
    "records.csv",
    "model-index.yaml",
    "eval_results.yaml",
    "measures.png",
    "tools.png",
    "confusion.png",
    "failures.png",
    "slope.png",
    "base.json",
    "base.jsonl",
    "lora-tiny--1-.json",
    "lora-tiny--1-.jsonl",
}


def test_save_writes_all_files(records, tmp_path):
    hostile = judge(
        {**prompts(1)[0], "id": "full-9", "question": "a | b\nc"}, single(answer(call(path="\ud83d", note="|")))
    )
    reports = [report(manifest(name), [*records, hostile], 2.0) for name in ("base", "lora/tiny <1>")]
    path = save(reports, tmp_path / "new" / "folder")
    folder = path.parent
    assert {file.name for file in folder.iterdir()} == FILES
    assert json.loads((folder / "base.json").read_text("utf-8")) == json.loads(json.dumps(reports[0]))
    keys = {"backend", "model", "host", "prompt_file", "prompt_selected", "generated_at"}
    assert reports[0]["metadata"].keys() >= keys and reports[0]["metadata"]["host"] == Script.url
    rows = [json.loads(line) for line in (folder / "base.jsonl").read_text("utf-8").splitlines()]
    assert rows == json.loads(json.dumps(reports[0]["records"]))
    lines = list(csv.DictReader((folder / "records.csv").open(encoding="utf-8")))
    assert len(lines) == 10 and lines[0]["passed"] == "True" and lines[1]["outcome"] == "infra"
    text = path.read_text("utf-8")
    assert "- Request errors: **1**" in text and "| a / b c |" in text
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in FILES if name.endswith(".png"))
    assert read_reports(folder) == [
        json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("base", "lora-tiny--1-")
    ]


def test_a_journal_is_not_written_over(tmp_path):
    Journal(tmp_path / "m.jsonl", {"model": "m"})
    save([made()], tmp_path)
    assert (tmp_path / "m.jsonl").read_text() == '{"conditions": {"model": "m"}}\n'
    save([made(label="n")], tmp_path)
    save([made({"q0": "Shall I?"}, label="n", asked=prompts(1))], tmp_path)
    assert len((tmp_path / "n.jsonl").read_text().splitlines()) == 1


def test_87_nothing_a_model_wrote_is_markup_in_the_page(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \x1b[31m"
    entry = made({"q0": evil}, label="<b>m</b>", asked=prompts(1))
    page = (save([entry], tmp_path).parent / "report.html").read_text("utf-8")
    assert "alert(1)</script>" not in page and "<img" not in page and "<b>m</b>" not in page
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1)
    assert json.loads(data)["reports"][0]["records"][0]["transcript"][-1]["content"] == evil
    assert "http://" not in page.replace(entry["metadata"]["host"], "")  # one file, no network


def test_the_card_blocks_are_what_the_hub_reads(tmp_path):
    import yaml
    from huggingface_hub import ModelCardData, parse_eval_result_entries

    folder = save([made()], tmp_path).parent
    block = yaml.safe_load((folder / "model-index.yaml").read_text("utf-8"))
    card = ModelCardData(model_name="m", **block)
    assert {result.metric_type for result in card.eval_results} >= {"passed", "right_tool"}
    (entry,) = parse_eval_result_entries(yaml.safe_load((folder / "eval_results.yaml").read_text("utf-8")))
    assert entry.value == 100.0 and entry.task_id == "full_coverage"


def test_the_table_shows_share_count_and_interval(records):
    rows = table([report(manifest("base"), records, 1.0)]).splitlines()
    assert rows[0] == "| measure | base |"
    assert "| 2/3 = 67% (21% to 94%) |" in rows[2]
    assert rows[-1] == "| request errors | 1 |"


def test_a_comparison_says_what_was_fixed_what_broke_and_how_sure_that_is():
    before = made({f"q{n}": "Shall I?" if n < 3 else RIGHT for n in range(4)}, "base")
    after = made({f"q{n}": RIGHT if n < 3 else "Shall I?" for n in range(4)}, "tuned")
    text = comparison([before, after])
    assert "### base → tuned" in text and "3 won and 1 lost" in text and "chance alone could do this" in text
    assert "- Fixed: full-0, full-1, full-2" in text and "- Broke: full-3" in text
    assert "## Compared" in markdown([before, after])
    assert comparison([before]) == ""
    last = made(label="kto")
    titles = [line for line in comparison([before, after, last]).splitlines() if line.startswith("###")]
    assert titles == ["### base → tuned", "### tuned → kto", "### base → kto"]


def test_runs_on_different_prompts_are_not_compared():
    with pytest.raises(EvaluationError, match="not the same prompts"):
        comparison([made(), made(prompt_set="tasks")])


def test_the_figure_names_its_axis_and_its_models(records):
    figure = plots.measures([report(manifest("base"), records, 1.0)])
    (axis,) = figure.axes
    assert "%" in axis.get_ylabel() and "95%" in axis.get_ylabel()
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["base"]
    assert len(axis.get_xticklabels()) == len(MEASURES) - 2  # no task here whose calls are executed


WRONG = call("vaultManager_listDirectory", path="Scores")


@pytest.mark.parametrize("last", [RIGHT, RequestFailed("refused")], ids=["flawless", "not reached"])
def test_files_are_saved_where_only_an_earlier_target_called_wrong_tools(last, tmp_path):
    asked = prompts(2)
    reports = [
        made({p["question"]: reply for p in asked}, name, asked) for name, reply in (("base", WRONG), ("sft", last))
    ]
    folder = save(reports, tmp_path / "both").parent
    assert {"report.md", "report.html", "confusion.png"} <= {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 1}', None])
def test_what_is_no_report_is_named(content, tmp_path):
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(EvaluationError, match=re.escape(str(path))):
        read_reports(path)
