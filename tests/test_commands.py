"""The evaluation commands in a terminal: what they print, write and return, and the questions they ask."""

import json
import sys

import pytest

from toolset_nb import runs
from toolset_nb.__main__ import main
from toolset_nb.paths import repo_root

CALL = (
    '<tool_call>\n{"name": "vaultManager_createFolder", "arguments": {"context": {"sessionId": '
    '"session_1732300800000_a1b2c3d4e", "workspaceId": "default", "sessionDescription": "Sorting", "sessionMemory": "Two '
    'are done.", "toolContext": "Asked for.", "primaryGoal": "Order", "subgoal": "A folder"}, "path": "Scores"}}\n</tool_call>'
)


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "mine.json"
    prompt = {"question": "Make Scores", "tags": ["t"], "expected_tools": ["vaultManager_createFolder"]}
    path.write_text(json.dumps([{"id": f"mine-{number}", **prompt} for number in range(3)]))
    return str(path)


def serve(httpserver, text: str) -> str:
    """A server that always says the same, as a target."""
    reply = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    httpserver.expect_request("/v1/chat/completions").respond_with_json(reply)
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": "one"}, {"id": "two"}]})
    return f"http://127.0.0.1:{httpserver.port}"


@pytest.mark.parametrize(("text", "code"), [(CALL, 0), ("Shall I?", 2)])
def test_evaluate_returns_0_when_all_passed_and_2_when_not(text, code, httpserver, prompts, tmp_path, capsys):
    target, out = f"{serve(httpserver, text)}#one", tmp_path / "out"
    assert main(["evaluate", "--target", target, "--prompt-set", prompts, "--output", str(out)]) == code
    printed = capsys.readouterr().out
    assert f"| passed | {3 if code == 0 else 0}/3" in printed and str(out / "report.md") in printed
    assert (out / "report.html").exists() and (out / "one.json").exists()


def test_the_predecessors_output_and_markdown_files(httpserver, prompts, tmp_path):
    files = ["--output", str(tmp_path / "run.json"), "--markdown", str(tmp_path / "run.md")]
    assert main(["evaluate", "--target", f"{serve(httpserver, CALL)}#one", "--prompt-set", prompts, *files]) == 0
    assert json.loads((tmp_path / "run.json").read_text("utf-8"))["summary"]["passed"] == 3
    assert (tmp_path / "run.md").read_text("utf-8").startswith("# Evaluator run (3 prompts)")


def test_a_dry_run_asks_nothing(prompts, tmp_path, capsys):
    arguments = ["evaluate", "--target", "http://127.0.0.1:9#m", "--prompt-set", prompts, "--dry-run"]
    assert main(arguments) == 0
    assert "3 prompts for http://127.0.0.1:9#m" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--prompt-set", "no_such_set"], 1, "full_coverage"),
        (["--targets", "no-such-run"], 1, "no-such-run"),
        (["--temperature", "warm"], 1, "temperature"),
        (["--trials", "0"], 1, "trials"),
        (["--temprature", "1"], 1, "unrecognized arguments: --temprature 1"),
        (["--limit"], 1, "--limit: expected one argument"),
        (["--target", "http://127.0.0.1:9", "--retries", "0"], 3, "ConnectError"),
    ],
)
def test_what_cannot_be_is_said_with_its_exit_code(arguments, code, words, capsys):
    try:
        found = main(["evaluate", *arguments])
    except SystemExit as ended:  # argparse's way
        found = ended.code
    assert found == code and words in capsys.readouterr().err


def test_the_table_of_those_that_answered_is_shown_beside_the_error(httpserver, prompts, tmp_path, capsys):
    targets = f"{serve(httpserver, CALL)}#one,http://127.0.0.1:9"
    options = ["--targets", targets, "--prompt-set", prompts, "--retries", "0", "--output", str(tmp_path / "out")]
    assert main(["evaluate", *options]) == 3
    captured = capsys.readouterr()
    assert "| passed | 3/3" in captured.out and "ConnectError" in captured.err and "The reports of" in captured.err


def test_two_evaluations_are_compared(httpserver, prompts, tmp_path, capsys):
    for name, text in (("before", "Shall I?"), ("after", CALL)):
        httpserver.clear()
        target = f"{serve(httpserver, text)}#{name}"
        main(["evaluate", "--target", target, "--prompt-set", prompts, "--output", str(tmp_path / name)])
    capsys.readouterr()
    files = [str(tmp_path / name / f"{name}.json") for name in ("before", "after")]
    assert main(["compare", *files]) == 0
    printed = capsys.readouterr().out
    assert "### before → after" in printed and "- Fixed: mine-0, mine-1, mine-2" in printed
    assert main(["compare", str(tmp_path / "nothing"), files[0]]) == 1
    assert main(["compare", str(tmp_path / "before"), str(tmp_path / "after")]) == 0  # folders of reports


def test_the_model_in_the_box_is_compared_by_its_name_in_the_projects_folder_too(monkeypatch, capsys):
    monkeypatch.chdir(repo_root())
    assert main(["compare", "finished", "finished"]) == 0
    assert "### finished → finished" in capsys.readouterr().out


def test_models_of_one_server_and_of_all(httpserver, monkeypatch, capsys):
    address = serve(httpserver, CALL)
    assert main(["list-models", address]) == 0
    assert capsys.readouterr().out.split() == ["one", "two"]
    for name in ("LLAMACPP", "LMSTUDIO"):
        monkeypatch.setenv(f"{name}_PORT", "9")
    monkeypatch.setenv("OLLAMA_PORT", "10")
    for name in ("VLLM", "TRANSFORMERS", "OPENAI"):  # one port for all three, as by default
        monkeypatch.setenv(f"{name}_PORT", str(httpserver.port))
    httpserver.expect_request("/version").respond_with_json({"version": "0.11"})
    assert main(["list-models"]) == 0
    printed = capsys.readouterr().out
    assert "here\n  base\n" in printed and "  finished\n" in printed
    assert printed.count("  vllm#one\n") == printed.count("#one") == 1
    assert "Ollama at http://127.0.0.1:10: nothing answers" in printed
    assert "llama.cpp server, LM Studio at http://127.0.0.1:9: nothing answers" in printed
    assert main(["list-models", "http://127.0.0.1:9"]) == 3
    assert main(["list-models", "olama"]) == 1
    assert "'olama' is no server: expected llamacpp, ollama, " in capsys.readouterr().err


def test_check_endpoint_says_what_to_do(httpserver, capsys):
    assert main(["check-endpoint", f"{serve(httpserver, CALL)}#one", "--context", "8192"]) == 0
    assert "✓ model: one" in capsys.readouterr().out
    assert main(["check-endpoint", "ollama+http://127.0.0.1:9#m"]) == 3
    assert "ollama serve" in capsys.readouterr().out


def test_two_runs_are_compared_although_both_reports_lie_with_one(httpserver, prompts, capsys):
    made = [runs.Run.start("sft", "tiny", name, parameters={}) for name in ("first", "second")]
    for run, text in zip(made, ("Shall I?", CALL), strict=True):
        httpserver.clear()
        target = f"{serve(httpserver, text)}#{run.folder.name}"
        main(
            [
                "evaluate",
                "--target",
                target,
                "--prompt-set",
                prompts,
                "--output",
                str(made[1].path("evaluation", "mine")),
            ]
        )
    capsys.readouterr()
    assert main(["compare", "first", "second", "--prompt-set", prompts]) == 0
    assert "### first → second" in capsys.readouterr().out


def test_a_server_without_models_is_not_asked_about(httpserver, monkeypatch, capsys):
    httpserver.expect_request("/v1/models").respond_with_json({"data": []})
    answers = iter(["8", f"http://127.0.0.1:{httpserver.port}"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    assert main(["evaluate"]) == 1
    assert "has no model: load one there first" in capsys.readouterr().err


def test_without_arguments_a_terminal_is_asked(httpserver, monkeypatch, capsys, prompts):
    address = serve(httpserver, CALL)
    answers = iter(["wrong", "8", address, "2", "3"])  # another address, its second model, the third prompt set
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    seen = {}

    def run(config, folder=None):
        seen.update(targets=config.targets, prompt_set=config.prompt_set)
        raise KeyboardInterrupt

    monkeypatch.setattr("toolset_nb.evaluation.run", run)
    assert main(["evaluate"]) == 130
    captured = capsys.readouterr()
    assert seen == {"targets": f"{address}#two", "prompt_set": "full_coverage"}
    assert "'wrong' is none of 1 to 8" in captured.out and "goes on with it" in captured.err
