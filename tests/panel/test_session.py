"""What the panel's buttons do, without a browser: a scripted server over HTTP, real vault copies."""

import json
import time

import pytest
from written_call import CONTEXT, RIGHT, TOOL, call

from toolset_nb import evaluation, panel, rules
from toolset_nb.panel.playground import Playground
from toolset_nb.panel.results import transcript
from toolset_nb.paths import repo_root
from toolset_nb.settings import EvaluateSettings, SettingsError

BOOKS = call(path="Books")
PROMPTS = [
    {
        "id": f"mine-{number}",
        "question": f"Make Scores, {number}",
        "tags": ["t"],
        "expected_tools": [TOOL],
        "fixture": "music",
        "level": "explicit",
        "gold": [{"tool": TOOL, "arguments": {"path": "Scores"}}],
        "must_change": {"Scores/": {"folder": True}},
    }
    for number in range(3)
]


@pytest.fixture
def say(httpserver):
    """Sets what the server says: the words for each user's last message, then "Done." once a result stands there."""
    from werkzeug import Response

    def set_replies(*replies: str) -> str:
        httpserver.clear()

        def reply(request):
            chat = request.get_json()["messages"]
            question = next(m["content"] for m in reversed(chat) if m["role"] == "user")
            number = int(question[-1]) if question[-1].isdigit() else 0
            text = "Done." if chat[-1]["role"] == "tool" else replies[number % len(replies)]
            return Response(json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}))

        httpserver.expect_request("/v1/chat/completions").respond_with_handler(reply)
        httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": "m"}, {"id": "n"}]})
        return f"openai+http://127.0.0.1:{httpserver.port}"

    return set_replies


@pytest.fixture
def session(tmp_path, say):
    """A session on a prompt set of the user's own."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(PROMPTS))
    target = say(RIGHT, "Shall I?", RIGHT.replace("Scores", "Books"))
    return panel.Session(EvaluateSettings(targets=f"{target}#m", prompt_set=str(path), slots=2))


def run(session):
    seen, lines = [], []
    session.start(seen.append, lines.append, lambda: lines.append("ended"))
    session.wait(30)
    assert session.error == "" and lines[-1] == "ended"
    return seen


def test_a_run_in_the_background_gives_a_report_and_its_files(session):
    assert session.estimate() == "3 attempts, about 00:00:04"
    assert run(session)[-1].done == 3
    (report,) = session.reports
    assert report["summary"]["passed"] == 1
    assert (evaluation.report_folder(session.config) / "report.html").exists()
    before = report["metadata"]["seconds"]
    run(session)  # nothing is asked again
    assert session.reports[0]["metadata"]["seconds"] == before > 0
    assert session.estimate().startswith("3 attempts")


@pytest.fixture
def other(session, tmp_path):
    """Another prompt set: the last two of the session's."""
    path = tmp_path / "other.json"
    path.write_text(json.dumps(PROMPTS[1:]))
    return str(path)


def totals(folder):
    return [json.loads(file.read_text())["summary"]["total"] for file in folder.glob("*.json")]


def test_what_was_evaluated_last_is_shown_and_saved_where_its_set_belongs(session, other):
    first, mine = session.config.prompt_set, evaluation.report_folder(session.config)
    run(session)
    session.change(prompt_set=other)
    run(session)
    theirs = evaluation.report_folder(session.config)
    session.change(prompt_set=first)
    run(session)
    assert [entry["summary"]["total"] for entry in session.comparable()] == [3] and len(session.reports) == 2
    assert (totals(mine), totals(theirs)) == ([3], [2])
    session.change(prompt_set=other, targets=session.config.targets.replace("#m", "#n"))  # in the form, not started
    assert session.save().parent == mine


def test_a_form_that_is_changed_during_a_run_moves_no_report(session, other):
    mine = evaluation.report_folder(session.config)
    session.start(lambda now: session.change(prompt_set=other), lambda line: None, lambda: None)
    session.wait(30)
    assert totals(mine) == [3] and not evaluation.report_folder(session.config).exists()


def test_the_cells_below_the_panel_show_and_save_what_was_clicked(session, other, capsys):
    cells = json.loads((repo_root() / "notebooks" / "evaluate.ipynb").read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    opens = next(number for number, source in enumerate(code) if "panel.show(" in source)
    names = {"config": session.config.model_copy(update={"interactive": "yes"}), "evaluation": evaluation}
    exec(code[opens], names)
    clicked = names["session"]
    for prompt_set in (session.config.prompt_set, other):
        clicked.change(prompt_set=prompt_set)
        run(clicked)
    for source in code[opens + 1 :]:
        exec(source, names)
    shown = capsys.readouterr().out
    mine, theirs = (evaluation.report_folder(each.config) for each in (session, clicked))
    assert f"Report: {theirs / 'report.md'}" in shown and "| passed | 0/2 =" in shown and "/3 =" not in shown
    assert (totals(mine), totals(theirs)) == ([3], [2])


def test_an_error_of_a_run_is_kept_for_the_panel(session):
    session.change(targets="no-such-run")
    lines = []
    session.start(lambda p: None, lines.append, lambda: lines.append("ended"))
    session.wait(10)
    assert "no-such-run" in session.error and lines == ["ended"]


def test_settings_are_checked(session):
    with pytest.raises(SettingsError, match="trials"):
        session.change(trials=0)
    assert session.config.trials == 1


def test_records_are_filtered(session, say):
    run(session)

    def ids(**wanted):
        return [record["case_id"] for record in session.records(**wanted)]

    assert ids() == ["mine-0", "mine-1", "mine-2"]
    assert ids(status="passed") == ["mine-0"] and ids(status="failed") == ["mine-1", "mine-2"]
    assert ids(failure="collateral_change") == ["mine-2"] and ids(outcome="text") == ["mine-1"]
    assert ids(text="shall i") == ["mine-1"] and ids(agent="contentManager") == [] and len(ids(level="explicit")) == 3
    assert len(ids(tool=TOOL)) == 3

    target = say("Shall I?", RIGHT)
    session.change(targets=f"{target}#n")
    run(session)
    assert [entry["metadata"]["model"] for entry in session.comparable()] == ["m", "n"]
    assert ids(status="regressions") == ["mine-0"] and ids(status="fixes") == ["mine-1"]
    assert ids(status="differences") == ["mine-0", "mine-1"]

    session.reports[1]["records"][0] |= {"error": "HTTP 503", "passed": False, "failures": ["infra"]}
    assert ids(status="not answered") == ["mine-0"] and ids(status="regressions") == []
    assert ids(status="failed") == ["mine-2"] and ids(status="differences") == ["mine-1"]


def test_models_stand_in_the_order_of_the_last_run(session, say):
    run(session)
    session.change(targets=f"{say('Shall I?')}#n,{session.config.targets}")
    run(session)
    assert [entry["metadata"]["model"] for entry in session.comparable()] == ["n", "m"]


def test_what_differs_between_the_trials_of_one_model_is_no_regression(session, say):
    session.change(targets=f"{say(RIGHT)}#m", trials=2)
    run(session)
    session.reports[0]["records"][1] |= {"passed": False}
    session.add([{**session.reports[0], "metadata": {**session.reports[0]["metadata"], "model": "n"}}])
    assert session.records(status="regressions") == session.records(status="differences") == []


def test_nothing_is_started_with_a_setting_that_is_wrong(session):
    from toolset_nb.panel import form

    page, draw = form.form(session, lambda: None)
    draw()
    find(page, "FloatText", "temperature").value = 5
    find(page, "Button", "Start").click()
    shown = [child.value for child in page.children if type(child).__name__ == "HTML"]
    assert any("not started: " in text and "temperature" in text for text in shown)
    assert not session.running and session.reports == [] and not any("papermill" in text for text in shown)


def test_an_address_is_asked_as_it_is_typed_and_a_wrong_one_is_told(session):
    from toolset_nb.panel import window

    page, _ = window._endpoint(session, lambda: None)
    place, (address, model), buttons, status, card = page.children[0], page.children[1].children, *page.children[2:]
    place.value = "OpenAI-compatible server"
    address.value = session.config.targets.removeprefix("openai+http://").removesuffix("#m")
    find(buttons, "Button", "Detect").click()
    assert model.options == ("m", "n") and status.value == "2 models"
    find(buttons, "Button", "Check").click()
    assert "ready" in status.value and "answers" in card.value
    find(buttons, "Button", "Add it").click()
    assert evaluation.target_names(session.config)[1:] == [f"openai+{address.value}#m"]
    session.config = session.config.model_copy(update={"prompt_set": "none.json"})
    find(buttons, "Button", "Check").click()
    assert "no file none.json" in status.value


def test_reports_are_loaded_by_a_button(session, tmp_path):
    from toolset_nb.panel import window

    run(session)
    session.save(str(tmp_path / "out"))
    other = panel.Session(session.config)
    page, draw = window._compare(other, lambda: None)
    (path, load, note), words = page.children[0].children, page.children[1]
    for place, said in ((tmp_path / "none", "no report"), (tmp_path / "out", "1 reports loaded")):
        path.value = str(place)
        load.click()
        assert said in note.value
    draw()
    assert "request errors" in words.value


def test_a_prompt_is_asked_again_and_shown_as_curl(session, say):
    run(session)
    record = session.records()[1]
    say(RIGHT)
    made = session.ask_again(record, session.config.targets)
    assert made["passed"] and made["changes"] == "+ Scores/"
    assert session.reports[0]["summary"]["passed"] == 1  # the report stays as it is
    assert session.curl(record, session.config.targets).startswith("curl http://127.0.0.1:")


def test_a_button_asks_the_model_that_is_shown(session, monkeypatch):
    from toolset_nb.panel import results

    run(session)
    first = session.reports[0]
    first["metadata"] |= {"model": "an-sft-run", "target": "an-sft-run"}
    session.add([{**first, "metadata": {**first["metadata"], "model": "a-kto-run", "target": "a-kto-run"}}])
    session.change(targets="latest:sft,latest:kto")
    asked = []
    monkeypatch.setattr(session, "curl", lambda record, name: asked.append(name) or "curl")
    page, draw = results.results(session, lambda: None)
    draw()
    for name in ("an-sft-run", "a-kto-run"):
        find(page, "Dropdown", "model").value = name
        find(page, "Button", "Copy as curl").click()
    assert asked == ["an-sft-run", "a-kto-run"]


def find(widget, kind, words):
    """The first widget of a kind with this description, at any depth."""
    if type(widget).__name__ == kind and widget.description == words:
        return widget
    return next((found for child in getattr(widget, "children", ()) if (found := find(child, kind, words))), None)


def test_all_models_stand_side_by_side_under_the_same_filters(session, say):
    from toolset_nb.panel import results

    run(session)
    session.change(targets=f"{say('Shall I?', RIGHT)}#n")
    run(session)
    page, draw = results.results(session, lambda: None)
    draw()
    matrix, rows = page.children[0], page.children[2]
    assert [line.split(" ")[0] for line, _ in rows.options] == ["✓✗", "✗✓", "✗✗"] and "1/3" in matrix.value
    find(page, "Dropdown", "outcome").value = "text"
    assert [line.split(" ")[0] for line, _ in rows.options] == ["✓✗", "✗✗"]
    assert "0/1" in matrix.value and "0/2" in matrix.value


def test_an_own_run_as_curl_says_how_to_serve_it(session, monkeypatch, tmp_path):
    run(session)
    monkeypatch.setattr(evaluation, "target_gguf", lambda name: tmp_path / f"{name}.gguf")
    session.change(constrained=True, engine="transformers")
    first, command = session.curl(session.records()[0], "base").splitlines()
    assert f"llama-server -m {tmp_path / 'base.gguf'} --jinja -c 4096 --port 8080" in first
    assert command.startswith("curl http://127.0.0.1:8080/v1/") and '"response_format"' in command


def test_how_a_request_is_written_stays_open_until_it_is_chosen(session):
    session.change(limit=2, tool_exposure="")
    assert "tool_exposure" not in session.config.model_fields_set
    assert "tool_exposure" not in panel.papermill_command(session.config)
    session.change(tool_exposure="none")
    session.change(limit=1)
    assert "tool_exposure" in session.config.model_fields_set
    assert "-p tool_exposure none" in panel.papermill_command(session.config)
    session.change(tool_exposure="")
    assert "tool_exposure" not in session.config.model_fields_set


def test_a_server_that_is_not_there_costs_the_panel_no_report(session):
    session.change(targets=f"{session.config.targets},openai+http://127.0.0.1:9", retries=0)
    session.start(lambda p: None, lambda line: None, lambda: None)
    session.wait(30)
    assert "ConnectError" in session.error and [e["metadata"]["model"] for e in session.reports] == ["m"]


def test_a_pair_of_the_users_own_prompt_is_valid_and_one_of_ours_is_refused(session, tmp_path):
    run(session)
    target = session.keep_as_negative(session.records()[2], tmp_path / "pairs.jsonl")
    right, wrong = [json.loads(line) for line in target.read_text().splitlines()]
    assert (right["label"], wrong["label"]) == (True, False) and right["conversations"][0] == wrong["conversations"][0]
    assert '"Books"' in wrong["conversations"][1]["content"] and '"Scores"' in right["conversations"][1]["content"]
    assert [str(finding) for finding in rules.validate([target])] == []
    with pytest.raises(evaluation.EvaluationError, match="a call with a context"):
        session.keep_as_negative(session.records()[1], target)  # it asked: there is no context to take
    session.prompt_of = lambda record: PROMPTS[2]
    for name in ("tasks", "datasets/prompts/tasks.json", str(repo_root() / "datasets" / "prompts" / "tasks.json")):
        session.reports[0]["metadata"]["prompt_set"] = name
        with pytest.raises(evaluation.EvaluationError, match="is an evaluation set"):
            session.keep_as_negative(session.records()[2], target)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"passed": True}, "mine-2 passed"),
        ({"error": "HTTP 503", "failures": ["infra"], "transcript": []}, "mine-2 was not answered"),
        ({"first": RIGHT, "failures": ["loop"]}, "makes the right calls"),
        ({"first": RIGHT, "gold": PROMPTS[2]["gold"] * 2}, "makes the right calls"),  # as far as it goes
        ({"first": call(context={**CONTEXT, "sessionId": "mine"}, path="Books")}, "in the reply, both valid"),
        ({"first": call(path="Books <|im_end|>")}, "makes no row to train on"),
        ({"first": BOOKS.replace("}}", "},}"), "failures": ["malformed"]}, "makes no row to train on"),
        ({"first": BOOKS, "question": "Result: []"}, "makes no row to train on"),
    ],
)
def test_no_right_call_is_kept_as_a_negative(session, tmp_path, changed, words):
    target = tmp_path / "pairs.jsonl"
    with pytest.raises(evaluation.EvaluationError, match=words):
        keep(session, target, **changed)
    assert not target.exists()


@pytest.mark.parametrize(
    ("first", "failure", "defect"),
    [
        (call(path="Scores", colour="red"), "extra_arg", "unknown_argument"),
        (RIGHT + RIGHT, "loop", "wrong_tool"),
        (BOOKS + "And the", "truncated", "wrong_argument"),
        (call("vaultManager_makeIt"), "hallucinated_tool", "unknown_tool"),
    ],
)
def test_a_kept_negative_names_a_defect_that_it_has(session, tmp_path, first, failure, defect):
    target = keep(session, tmp_path / "pairs.jsonl", first=first, failures=[failure])
    right, wrong = [json.loads(line) for line in target.read_text().splitlines()]
    assert wrong["meta"]["defect"] == defect and right["conversations"][1] != wrong["conversations"][1]
    assert [str(finding) for finding in rules.validate([target])] == []
    with pytest.raises(evaluation.EvaluationError, match="holds a pair of mine-2 already"):
        keep(session, target, first=first, failures=[failure])


def keep(session, target, first="", gold=None, **changed):
    """The third record, which failed, kept as a negative with another first reply, other gold calls or a changed verdict."""
    run(session)
    record = session.records()[2] | changed
    if first:
        record["transcript"] = [record["transcript"][0], {"role": "assistant", "content": first}]
    if gold:
        session.prompt_of = lambda record: {**PROMPTS[2], "gold": gold}
    return session.keep_as_negative(record, target)


def test_reports_of_other_runs_can_be_loaded(session, tmp_path):
    run(session)
    session.save(str(tmp_path / "out"))
    other = panel.Session(session.config)
    assert other.load(str(tmp_path / "out")) == 1 and len(other.comparable()) == 1


def test_the_command_repeats_what_was_clicked(session):
    session.change(temperature=0.3, trials=2)
    words = panel.papermill_command(session.config).split()
    assert words[:3] == ["papermill", "notebooks/evaluate.ipynb", "out.ipynb"]
    given = {words[at + 1]: words[at + 2] for at, word in enumerate(words) if word == "-p"}
    assert given["temperature"] == "0.3" and given["trials"] == "2" and "max_tokens" not in given


def test_nothing_that_a_model_wrote_is_markup_in_a_transcript(session, say):
    say("<img src=x onerror=alert(1)>")
    run(session)
    shown = transcript(session.records()[0])
    assert "<img" not in shown and "&lt;img" in shown


def test_every_tab_is_drawn_with_and_without_reports(session):
    assert len(panel.panel(session).children) == 6
    run(session)
    tabs = panel.panel(session)
    assert len(tabs.children) == 6


def test_headless_the_evaluation_runs_with_its_settings(session):
    filled = panel.show(session.config.model_copy(update={"interactive": "no"}))
    assert [entry["summary"]["total"] for entry in filled.comparable()] == [3]
    assert filled.save().parent == evaluation.report_folder(session.config)


def test_a_chat_changes_its_own_copy_of_a_vault_and_can_be_taken_back(session):
    with Playground(session.config.targets, "music", session.config) as play:
        made = play.say("Make Scores, 0")
        assert made.stop == "words" and str(play.changes()) == "+ Scores/" and "Scores/" in play.tree()
        shown, *first = play.chat.messages
        assert len(first) == 4 and "contentManager_createContent(" in shown["content"]  # another program's model
        assert play.say("Make Scores, 1").stop == "words" and len(play.chat.messages) == 7
        assert play.undo() and play.chat.messages == [shown, *first] and str(play.changes()) == "+ Scores/"
        assert play.undo() and str(play.changes()) == "no changes" and not play.undo()
        play.say("Make Scores, 0")
        play.reset()
        assert play.chat.messages == [] and str(play.changes()) == "no changes"


def test_a_stopped_run_goes_on(session, say):
    say(RIGHT)
    seen = []

    def stop(progress):
        seen.append(progress.done)
        session.control.stop()

    session.change(slots=1)
    session.start(stop, lambda line: None, lambda: None)
    session.wait(20)
    assert seen[-1] < 3
    deadline = time.monotonic() + 5
    while session.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert run(session)[-1].done == 3
