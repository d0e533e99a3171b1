"""The panel of evaluate.ipynb as a person uses it: JupyterLab in headless Chromium, the real embedded model, real clicks.

SCREENSHOTS=folder keeps pictures of every step; TARGET evaluates another model than the untuned one.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolset_nb.paths import repo_root

pytestmark = [
    pytest.mark.notebooks,
    pytest.mark.skipif(
        not (shutil.which("chromium") or shutil.which("google-chrome")),
        reason="no Chromium here (apt install chromium)",
    ),
]
SETTINGS = {
    "prompt_set": "tasks",
    "tags": "explicit,sibling_choice",
    "limit": "5",
    "max_tokens": "220",
    "slots": "5",
    "interactive": "yes",
}
FLAGS = "--no-sandbox --disable-gpu --disable-quic --disable-background-networking --disable-component-update --disable-sync"

CONNECTED = (
    "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.connectionStatus === 'connected'"
)


@pytest.fixture
def lab(tmp_path):
    """(address, folder) of a JupyterLab that serves a folder with the prepared notebook."""
    target = os.environ.get("TARGET", "base")
    options = [part for name, value in {"targets": target, **SETTINGS}.items() for part in ("-p", name, value)]
    folder = tmp_path / "lab"
    folder.mkdir()
    notebook = repo_root() / "notebooks" / "evaluate.ipynb"
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(notebook),
        str(folder / "evaluate.ipynb"),
        "--prepare-only",
        *options,
    ]
    subprocess.run(command, check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(repo_root()), "JUPYTER_CONFIG_DIR": str(tmp_path / "config")}
    if target == "base":
        environment["TOOLSET_NB_RUNS"] = str(tmp_path / "runs")
    else:
        environment.pop("TOOLSET_NB_RUNS", None)
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--expose-app-in-browser",
    ]
    command += [
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.news_url=",
        "--ServerApp.port_retries=0",
    ]
    with (tmp_path / "lab.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/lab/tree/evaluate.ipynb", tmp_path
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def page(lab):
    """The notebook, open and run in Chromium."""
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=FLAGS.split())
        made = browser.new_page(viewport={"width": 1400, "height": 1500})
        made.goto(lab[0], wait_until="domcontentloaded")  # the Colab badge never loads offline
        made.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
        made.add_style_tag(content=".Toastify {display: none}")  # "get notified about Jupyter news?"
        made.wait_for_function(CONNECTED, timeout=90_000)
        made.evaluate("() => void window.jupyterapp.commands.execute('notebook:run-all-cells')")
        if folder := os.environ.get("SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            made.wait_for_timeout(5000)
            made.screenshot(path=Path(folder) / "notebook.png")
        yield made
        browser.close()


def picture(page, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.locator(".widget-tab").screenshot(path=Path(folder) / f"{name}.png")


def tab(page, title: str) -> None:
    page.locator(".widget-tab .lm-TabBar-tab", has_text=title).click()


def button(page, title: str):
    return page.locator(".widget-tab button.jupyter-button", has_text=title)


def test_five_prompts_by_clicks_from_the_endpoint_to_the_export(page, lab):
    tabs = page.locator(".widget-tab")
    tabs.wait_for(timeout=180_000)  # the embedded model is converted on its first use
    tabs.scroll_into_view_if_needed()
    target = os.environ.get("TARGET", "base")
    page.locator(".widget-tab .widget-dropdown select").first.select_option(label=target)
    button(page, "Use it").click()
    page.get_by_text(f"targets: {target}").wait_for(timeout=20_000)
    picture(page, "endpoint")

    tab(page, "Run")
    page.get_by_text("5 attempts, about").wait_for(timeout=20_000)
    assert "papermill notebooks/evaluate.ipynb" in tabs.inner_text()
    button(page, "Start").click()
    for press, words in (("Pause", "· paused"), ("Pause", "· goes on"), ("Stop", "· stopping")):
        button(page, press).click()
        page.get_by_text(words, exact=False).first.wait_for(timeout=20_000)
    page.get_by_text("stopped, Start goes on", exact=False).wait_for(timeout=600_000)
    button(page, "Start").click()
    page.get_by_text("5 of 5", exact=False).first.wait_for(timeout=600_000)
    page.get_by_text("· done", exact=False).wait_for(timeout=60_000)
    picture(page, "run")

    tab(page, "Results")
    page.get_by_text("5 shown").wait_for(timeout=20_000)
    rows = page.locator(".widget-tab .widget-select select option")
    assert rows.count() == 5
    lines = rows.all_inner_texts()
    mark = next((number for number, line in enumerate(lines) if line.startswith("✓")), 0)
    page.locator(".widget-tab .widget-select select").last.select_option(index=mark)
    page.locator(".widget-tab b", has_text="vault").first.wait_for()
    assert "assistant" in tabs.inner_text()
    picture(page, "results")
    button(page, "Copy as curl").click()
    page.get_by_text("as a shell command, below").wait_for(timeout=60_000)
    command = page.locator(".widget-tab textarea").first.input_value()
    assert "llama-server -m " in command and "\ncurl http://127.0.0.1:8080/" in command
    button(page, "Ask again").click()
    page.get_by_text("asked again: ", exact=False).wait_for(timeout=120_000)
    button(page, "Keep as negative").click()
    page.get_by_text("tasks is an evaluation set", exact=False).wait_for(timeout=20_000)

    tab(page, "Compare")
    page.locator(".widget-tab img[alt=measures]").wait_for(timeout=20_000)
    picture(page, "compare")

    tab(page, "Playground")
    request = "Start a note Scores/Advent 2026.md with the text: Rehearsals begin on Monday."
    page.get_by_placeholder("what shall the model do?").fill(request)
    button(page, "Send").click()
    page.get_by_text("ended:", exact=False).wait_for(timeout=240_000)
    picture(page, "playground")

    tab(page, "Export")
    button(page, "Export").click()
    page.get_by_text("report.html", exact=False).wait_for(timeout=60_000)
    picture(page, "export")
    if not os.environ.get("TARGET"):
        folder = lab[1] / "runs" / "evaluations" / "tasks-base"
        report = json.loads((folder / "base.json").read_text("utf-8"))
        assert report["summary"]["total"] == 5 and report["summary"]["request_errors"] == 0
