"""Generated rows: executed, grounded in their requests, the same for the same seed, and apart from every evaluation prompt."""

import json
import re
from collections import Counter

import pytest

from toolset_nb import calls, rules, tasks
from toolset_nb.__main__ import main
from toolset_nb.paths import repo_root
from toolset_nb.synth import (
    balance,
    generate,
    negatives,
    plays,
    reports,
    scenarios,
    scenes,
    similarity,
    teacher,
    variety,
    views,
    wording,
    worlds,
)
from toolset_nb.synth import tasks as making
from toolset_nb.synth.languages import language
from toolset_nb.synth.plays.parts import _first
from toolset_nb.tools import catalogue
from toolset_nb.vault import fixtures

ROWS = 150
FIELDS = ("sessionDescription", "sessionMemory", "toolContext", "primaryGoal", "subgoal")
BARE = {"context": {"sessionId": "session_1", "workspaceId": "default", **dict.fromkeys(FIELDS, "rehearsal")}}


@pytest.fixture(scope="module")
def made():
    funnel = generate.Funnel()
    return list(generate.sft(ROWS, seed=3, funnel=funnel)), funnel


@pytest.fixture(scope="module")
def pairs():
    return list(generate.kto(ROWS, seed=4))


@pytest.fixture
def played(monkeypatch):
    """Rows (or pairs) of single plays: (behaviour, variant) of each, and how many of it."""

    def make(each, *keys, maker=generate.sft):
        monkeypatch.setattr(generate, "PLAYS", {key: (1 / len(keys), plays.PLAYS[key][1]) for key in keys})
        return list(maker(each * len(keys) * (2 if maker is generate.kto else 1), seed=6))

    return make


# voices ---------------------------------------------------------------------------------------------------------------


def test_every_tool_has_forty_requests_of_its_own():
    counts = {tool: sum(map(len, wording.voices()[tool]["requests"].values())) for tool in catalogue().tools}
    assert {tool: count for tool, count in counts.items() if count < 40} == {}


def test_every_behaviour_has_sixty_requests():
    for behaviour, variants in wording.behaviours().items():
        parts = [variant.get("requests") or variant.get("pairs") or variant["replies"] for variant in variants.values()]
        assert sum(map(len, parts)) >= 60, behaviour


def variants_of_wordings():
    """(name, wordings) of every variant, pairs as what is said."""
    for tool, voice in wording.voices().items():
        yield from ((f"{tool} {variant}", texts) for variant, texts in voice["requests"].items())
    for behaviour, variants in wording.behaviours().items():
        for variant, parts in variants.items():
            if texts := parts.get("requests") or parts.get("pairs"):
                yield f"{behaviour} {variant}", texts


def said(texts):
    return [text if isinstance(text, str) else text["say"] for text in texts]


def test_no_wording_stands_twice_or_names_a_tool():
    requests = [text for _, texts in variants_of_wordings() for text in said([*texts, *texts.training])]
    assert [text for text, count in Counter(requests).items() if count > 1] == []
    named = re.compile("|".join(name for name in catalogue().tools if name != "get_tools"))
    assert [text for text in requests if named.search(text)] == []


def test_wordings_for_training_alone_say_what_the_others_say():
    extended = {name: texts for name, texts in variants_of_wordings() if texts.training}
    assert extended
    for name, texts in extended.items():
        slots = {frozenset(wording.SLOT.findall(text)) for text in said(texts)}
        other = [text for text in said(texts.training) if frozenset(wording.SLOT.findall(text)) not in slots]
        assert other == [], name
        assert not set(map(str, wording.Speaker(0, "evaluation").mine(texts))) & set(map(str, texts.training)), name


def test_the_splits_share_no_wording():
    texts = wording.Wordings(f"wording {number}" for number in range(14))
    one, two = wording.Speaker(0, "training").mine(texts), wording.Speaker(0, "evaluation").mine(texts)
    assert sorted(one + two) == sorted(texts) and len(two) == 2 and not set(one) & set(two)


def test_wordings_for_training_alone_are_taken_as_often_as_the_others():
    texts = wording.Wordings(f"wording {number}" for number in range(6))
    texts.training = ("later",)
    speaker = wording.Speaker(0, "training")
    taken = [speaker.request(texts, {}) for _ in range(12)]
    assert Counter(map(str, taken)) == dict.fromkeys(["later", *texts[:5]], 2)
    asked = wording.Speaker(0, "evaluation")
    assert {str(asked.request(texts, {})) for _ in range(9)} == {"wording 5"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Read {note} to me.", "en"),
        ("{command_id}, now", "en"),
        ("Lies mir {note} bitte vor.", "de"),
        ("Montre-moi le contenu de cette page.", "fr"),
        ("Borra la carpeta {folder}.", "es"),
        ("Crea la cartella {folder}, per favore.", "it"),
        ("Verwijder de map {folder} graag.", "nl"),
        ("Apaga a nota {note}.", "pt"),
        ("Usuń folder {folder}, proszę.", "pl"),
        ("Retoma la sesión {session_id}.", "es"),
        ("Necesito encontrar algo que escribí hace tiempo.", "es"),
        ("In {path} c'è scritto {old}, ma è sbagliato: correggilo.", "it"),
        ("Ersetze in {path} die Zeile {line} durch: {new}", "de"),
        ("Il y a déjà un fichier {path}. Ajoute donc ceci à la fin : {text}", "fr"),
        ("No particular workspace. {request}", "en"),
        ("{memory}. Fine so far. {request}", "en"),
    ],
)
def test_the_language_of_a_wording_is_told_by_its_small_words(text, expected):
    assert language(text) == expected


MISJUDGED = {  # wordings that were once taken for another language
    "en": [
        "Via {provider}, model {model}: {prompt}",
        "done = {memory}; todo = {request}",
        "start line {start}, end line {end}, file {note}, overwrite w/ {new}",
        "{agent_id}, agent, prompt, overwrite w/ {value}",
    ],
    "de": [
        "Frag {agent}: {prompt}",
        "Guten Morgen zusammen",
        "Hallo?",
        "Na, was machst du so?",
        "Tausch in {path} die Stelle {old} gegen {new}",
        "Was bedeutet Zettelkasten?",
        "bild generieren, {prompt}",
        "letzte {limit} arbeitsbereiche",
        "workspace {workspace_id} beschreibung neu: {value}",
        "zweck {workspace_id} = {value}",
        "{note} einmal kopieren",
    ],
    "fr": [
        "Charge l'espace {workspace_id}.",
        "Comment met-on un texte en italique ?",
        "Décris l'état {state_id} ainsi : {new_description}",
        "Exécute {command_id}.",
        "Merci beaucoup, c'est parfait.",
        "On reprend. Fait : {memory}. À faire : {request}",
        'Reformule plus poliment : "Répondez vite"',
        "Renomme {path}.",
        "Restaure l'état enregistré {state_id}.",
        "t'es trop fort",
    ],
    "es": [
        "Hazme una copia de {note}.",
        "Las líneas {start} a {end} de {path} pasan a ser {new}",
        "Manda estos dos prompts juntos a {model} de {provider}. Uno: {prompt} Dos: {prompt2}",
        "Manda un mensaje de voz a Leo",
        "Mueve {note} a otro sitio.",
        "Ordena {folder}, que está hecho un desastre.",
        "Ponle otro nombre a {path}.",
        "Pregúntale a {model} de {provider}: {prompt}",
        "Sobra una de estas dos: {note} o {note2}. Bórrala.",
    ],
    "it": [
        "Allega {path} e chiedi a {model} presso {provider}: {prompt}",
        "Apri {note} affiancata a quella che sto guardando, a schermo diviso.",
        "Cerca {query} nelle note e fermati a {limit} risultati.",
        "Chi ha scritto I promessi sposi?",
        "Ciao, come stai?",
        "Come si dice 'Feierabend' in italiano?",
        "Come si fa un elenco puntato?",
        "In cima a {note} metti: {text}",
        "In fondo a {note} aggiungi: {text}",
        "In un colpo solo, in fondo a {path}: {text}\ne in fondo a {path2}: {text2}",
        "Manda {note} via mail al commercialista.",
        "Riprendiamo da qui: {memory}. Adesso: {request}",
        "Scrivi un haiku sul mare d'inverno.",
        "Torniamo al punto salvato {state_id}.",
        "buona sera",
    ],
    "nl": [
        "Alles over {query} mag de prullenbak in.",
        "Doe even {command_id}, dank je.",
        "Goedemorgen! Lekker geslapen?",
        "Is het 'hun hebben' of 'zij hebben'?",
        "Kijk eerst of {path} al bestaat, anders aanmaken met: {content}",
        "Kijk of {note} leeg is. Zo ja, verwijderen maar.",
        "Pas de omschrijving van stand {state_id} aan: {new_description}",
        "Vraag even aan {model} ({provider}): {prompt}",
    ],
    "pt": [
        "Apague {folder} se estiver vazia, senão deixe como está.",
        "Continuando. Já está: {memory}. Agora {request}",
        "Envia {note} por correio registado",
        'Substitui "{find}" por "{replace}" em toda a nota {note}, só quando for a palavra inteira.',
    ],
    "sv": [
        "Sök efter {query} bara i anteckningarna under {folder}.",
        "Sök efter {query} i texten i anteckningarna under {folder}.",
    ],
    "da": [
        "Find mapper under {folder} med {query} i navnet.",
        "Hej hej, så er jeg tilbage",
        "Slet mappen {folder} for mig.",
        'Udskift alle "{find}" i {note} med "{replace}", store eller små bogstaver er ligegyldigt.',
    ],
    "pl": [
        "Ile minut ma doba?",
        "Uruchom {command_id}.",
        "Wróćmy do sesji {session}.",
    ],
}


@pytest.mark.parametrize(
    ("text", "expected"), [(text, tongue) for tongue, texts in MISJUDGED.items() for text in texts]
)
def test_no_wording_is_taken_for_one_of_another_language(text, expected):
    assert language(text) == expected


def test_rows_of_talk_tell_the_language_of_the_request(played):
    tongues = {}
    for key in (("small_talk", "talk"), ("unable", "cannot"), ("execute_prompt", "own")):
        pairs = wording.Speaker(0).mine(wording.behaviours()[key[0]][key[1]]["pairs"])
        patterns = [(re.sub(r"\\{\w+\\}", ".+", re.escape(pair["say"])), language(pair["say"])) for pair in pairs]
        for row in played(60, key):
            request = row["conversations"][0]["content"]
            told = {tongue for pattern, tongue in patterns if re.fullmatch(pattern, request, re.DOTALL)}
            assert row["meta"]["language"] in told, request
            tongues.setdefault(row["meta"]["behaviour"], set()).add(row["meta"]["language"])
    assert len(tongues) == 3 and all(len(each) > 2 for each in tongues.values()), tongues


def test_what_stands_inside_a_request_is_of_its_language():
    frames = wording.Wordings(["In {workspace_id}, please: {request}", "Im Arbeitsbereich {workspace_id}: {request}"])
    slots = {"workspace_id": "ws_1", "request": "Lies das."}
    assert wording.Speaker(0).request(frames, slots, "de") == "Im Arbeitsbereich ws_1: Lies das."


def test_every_tool_has_needless_questions_and_every_look_up_has_closing_words_and_memories():
    answers = wording.answers()
    assert answers["questions"].keys() - {"longer"} == set(catalogue().tools)
    looks = {name for name in catalogue().tools if re.match(r"(list|search|read)", name.partition("_")[2])}
    assert looks <= answers["closings"].keys() & answers["memory"].keys()
    words = [text for texts in answers["memory"].values() for text in texts]
    assert [text for text in words if re.match("Showed|Read out|Answered|Gave|Quoted", text)] == []


def test_training_calls_give_no_reason_that_nobody_gave(made):
    reasons = wording.answers()["reasons"]
    assert reasons.keys() == set(catalogue().tools)
    assert all(len(each[kind]) >= 2 for each in reasons.values() for kind in ("why", "goal"))
    ends = [text for variants in wording.answers()["goals"].values() for texts in variants.values() for text in texts]
    for row in made[0]:
        for call in (turn := calls.parse(row["conversations"][1]["content"]).calls):
            goals = [*reasons[turn[0].name]["goal"], *ends]
            for texts, field in ((reasons[call.name]["why"], "toolContext"), (goals, "primaryGoal")):
                patterns = ["(.+)".join(map(re.escape, wording.SLOT.sub("\0", text).split("\0"))) for text in texts]
                said = call.arguments["context"][field]
                joined = "(, and .+)?" if len(turn) > 1 else ""
                assert any(re.fullmatch(each + joined, said, re.DOTALL) for each in patterns), (row["id"], said)


def test_who_asks_in_another_language_is_asked_back_in_it():
    speaker, behaviours, own = wording.Speaker(0), wording.behaviours(), wording.answers()["replies"]
    for behaviour, keys in (("ask_first", ["asks"]), ("ask_missing", ["replies"]), ("verify", ["done", "kept"])):
        for variant, given in behaviours[behaviour].items():
            for tongue in {language(text) for text in speaker.mine(given["requests"])} - {"en"}:
                for key in keys:
                    known = {name for text in [*given[key], *given["requests"]] for name in wording.names(text)}
                    assert all(wording.names(text) <= known for text in own[tongue][key][variant]), (tongue, variant)


@pytest.mark.parametrize("tongue", ["de", "fr", "es", "it", "nl", "pt", "da"])
def test_no_request_in_another_language_is_answered_in_english(tongue):
    scene = scenes.Scene(None, wording.Speaker(0), "session", "default", variant="find_append", language=tongue)
    scene.tools = ["contentManager_appendContent"]
    english = wording.behaviours()["multi_step"]["find_append"]["replies"]
    assert not set(scene.replies("multi_step")) & set(english)
    assert bool(scene.replies("multi_step")) == bool(scene.done(scene.tools[0], {"note": "A"})) == (tongue != "da")
    for _ in range(40):
        scene.narrate("before_act")
    assert scene.blocks == []
    task = scenes.Scene(
        None, wording.Speaker(0, "evaluation"), "session", "default", variant="find_append", language=tongue
    )
    assert task.replies("multi_step") == english


def test_who_asks_first_asks_for_the_decision_and_for_no_leave_to_look(played):
    leave = re.compile(
        r"(may|should|shall|can|could) I (first )?(list|search|look|check|show|compare|propose|read)", re.I
    )
    for variant, texts in wording.behaviours()["ask_first"].items():
        assert len(set(texts["asks"])) >= 8 and [text for text in texts["asks"] if leave.search(text)] == [], variant
    rows = played(6, *(key for key in plays.PLAYS if key[0] == "ask_first"))
    assert len(rows) > 20 and not any(leave.search(row["conversations"][1]["content"]) for row in rows)


def test_closing_words_report_what_a_look_up_found():
    hits = [{"title": name} for name in ("Soup", "Stew", "Bread", "Salad")]
    found, none = {"results": hits}, {"results": []}
    facts = reports.facts("vaultLibrarian_searchContent", found)
    assert facts == {"count": "4", "hits": "4 notes", "first": "Soup", "names": "Soup, Stew, Bread, Salad"}
    many = {"results": [{"title": f"N{number}"} for number in range(reports.NAMED + 1)]}
    assert reports.facts("vaultLibrarian_searchContent", many)["names"].endswith("N8, N9, ...")
    assert reports.facts("vaultLibrarian_searchMemory", found)["names"] == "Soup, Stew, Bread, ..."
    about = {"id": "state_1", "content": "readContent Read it", "context": {"sessionId": "session_1"}}
    records = {"results": [about | {"tool": "contentManager_readContent"}, about | {"tool": "state"}]}
    named = reports.facts("vaultLibrarian_searchMemory", records)["names"]
    assert named == "contentManager_readContent (session_1), state_1"
    own = {"data": {"prompts": [{"id": "prompt_1", "name": "Editor", "description": "Cuts"}]}}
    assert (
        reports.facts("agentManager_listAgents", own, "the ids and descriptions?")["names"] == "Editor (prompt_1; Cuts)"
    )
    slots = [wording.names(text) for text in reports.closings("vaultLibrarian_searchContent", found, "en", {})]
    assert all(each & {"hits", "first", "names"} for each in slots)
    assert "Aucun résultat." in reports.closings("vaultLibrarian_searchContent", none, "fr", {})
    assert "I found no note with" in str(reports.closings("vaultLibrarian_searchContent", none, "en", {}))
    assert reports.closings("vaultLibrarian_searchContent", none, "da", {}) == []


def test_a_narrowed_look_up_says_nothing_of_what_it_left_out():
    def said(tool, result, language="en", **arguments):
        return reports.closings(tool, result, language, arguments)

    none, agents = {"results": []}, {"data": {"prompts": [{"name": "Editor"}], "totalCount": 4}}
    assert "There is no record of {query}." in said("vaultLibrarian_searchMemory", none, workspaceId="default")
    for narrowing in ({"memoryTypes": ["states"]}, {"dateRange": {}}, {"workspaceId": "ws_1"}):
        assert "There is no record of {query}." not in said("vaultLibrarian_searchMemory", none, **narrowing)
    assert "You have {hits}: {names}" in said("agentManager_listAgents", agents)
    assert "Switched on: {names}" in said("agentManager_listAgents", agents, enabledOnly=True)
    assert "Aucun résultat." not in said("vaultLibrarian_searchContent", none, "fr", paths=["Recipes"])
    for name, own in wording.answers()["closings"].items():
        parameters = catalogue().tools[name].parameters["properties"] if name != "languages" else {}
        assert set(own.get("narrowed_by", [])) <= parameters.keys(), name
        assert {"narrowed", "narrowed_empty"} <= own.keys() or "narrowed_by" not in own, name


def test_all_that_was_found_is_counted_where_a_limit_shows_less():
    hits = [{"title": name} for name in ("Soup", "Stew", "Bread")]
    search = reports.facts("vaultLibrarian_searchContent", {"results": hits, "totalResults": 29})
    assert (search["hits"], search["names"]) == ("29 notes", "Soup, Stew, Bread, ...")
    sessions = {"data": {"sessions": [{"name": "Monday"}, {"name": "Tuesday"}], "total": 7, "filtered": 2}}
    listed = reports.facts("memoryManager_listSessions", sessions)
    assert (listed["hits"], listed["names"]) == ("7 sessions", "Monday, Tuesday, ...")
    both = {"merged": {"totalQueries": 2, "totalResults": 1, "combinedCategories": {"content": hits[:1]}}}
    assert reports.facts("vaultLibrarian_batch", both)["hits"] == "1 hit"


@pytest.mark.parametrize(
    ("tool", "result", "told"),
    [
        ("agentManager_executePrompt", {"data": {"response": "Seven."}}, "Seven."),
        (
            "agentManager_batchExecutePrompt",
            {"data": {"results": [{"response": "Seven."}, {"response": "Blue."}]}},
            "1. Seven.\n2. Blue.",
        ),
        (
            "memoryManager_loadSession",
            {"data": {"name": "S", "sessionContext": {"summary": "All counted."}}},
            "All counted.",
        ),
        (
            "memoryManager_loadState",
            {"data": {"name": "S", "restoredContext": {"activeTask": "Sum it up", "nextSteps": ["Print", "File"]}}},
            "Sum it up\n- Print\n- File",
        ),
        ("memoryManager_loadWorkspace", {"data": {"context": {"name": "W", "purpose": "All of it"}}}, "All of it"),
        (
            "contentManager_batchContent",
            {
                "data": {
                    "results": [{"type": "read", "filePath": "A/B.md", "data": {"content": "---\na: 1\n---\nOne\ntwo"}}]
                }
            },
            "- B: One two",
        ),
        (
            "get_tools",
            {"tools": [{"name": "x", "inputSchema": {"properties": {"path": {}, "depth": {}}, "required": ["path"]}}]},
            "- x: path; optional: depth",
        ),
        ("get_tools", {"tools": [], "overview": {"agent": ["a", "b", "c", "d"]}}, "- agent (4): a, b, c, ..."),
    ],
)
def test_closing_words_hold_what_was_answered_read_or_restored(tool, result, told):
    assert reports.tells(tool, result) and reports.facts(tool, result)["text"] == told
    for tongue in ("en", "de", "fr", "es", "it", "nl", "pt", "sv", "pl"):
        assert all("{text}" in text for text in reports.closings(tool, result, tongue, {})), tongue


def test_nothing_is_told_of_notes_that_were_written():
    written = {"data": {"results": [{"type": "append", "filePath": "A.md", "data": {"totalLength": 3}}]}}
    assert not reports.tells("contentManager_batchContent", written)


def test_a_short_text_is_read_whole_and_a_long_one_begun():
    note = {"data": {"content": "---\ntags: [a]\n---\nOne line.\n"}}
    assert reports.facts("contentManager_readContent", note) == {"text": "---\ntags: [a]\n---\nOne line."}
    long = "A sentence of some length.\n" * 30
    begun = reports.beginning(long.strip())
    assert long.startswith(begun) and begun.endswith("length.") and len(begun) <= reports.WHOLE


def test_worlds_of_the_splits_share_no_text():
    said = {}
    for name in fixtures.names():
        values = worlds.values(name)
        texts = [text for kind in ("titles", "lines", "contents", "prompts", "themes") for text in values[kind]]
        texts += [change["old"] for change in values["changes"]]
        for text in texts:
            other = said.setdefault(text.strip().casefold(), name)
            assert other == name or fixtures.load(other)["split"] == fixtures.load(name)["split"], (text, name, other)


# rows -----------------------------------------------------------------------------------------------------------------


def test_rows_pass_the_validator_and_come_from_training_vaults(made, pairs, tmp_path):
    for name, rows in (("sft", made[0]), ("kto", pairs)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        assert [str(finding) for finding in rules.validate([path])] == []
        assert {row["meta"]["scenario"] for row in rows} <= set(fixtures.names("training"))


def test_every_tool_and_behaviour_gets_its_rows(made):
    rows, funnel = made
    assert {tool for row in rows for tool in row["meta"]["tools"]} == set(catalogue().tools), str(funnel)
    assert {row["meta"]["behaviour"] for row in rows} == {behaviour for behaviour, _ in plays.PLAYS}


def test_searches_of_memory_find_what_a_named_workspace_has_on_record():
    shown, found, named = 0, 0, 0
    for row in generate.sft(1500, seed=6):
        if row["meta"]["tools"] == ["vaultLibrarian_searchMemory"]:
            blocks = calls.parse(row["conversations"][1]["content"], rescue=False).blocks
            home = blocks[0].arguments["workspaceId"]
            named += home != "default"
            assert home == "default" or home in row["conversations"][0]["content"]
            if len(blocks) > 1:
                shown, found = shown + 1, found + bool(blocks[1].value["results"])
                assert blocks[1].value["results"] or home == "default"
    assert named >= 4 and found >= shown / 4, (shown, found, named)


def test_the_same_seed_gives_the_same_rows(made):
    assert list(generate.sft(ROWS, seed=3)) == made[0]
    assert list(generate.sft(20, seed=4)) != list(generate.sft(20, seed=5))


def test_the_funnel_adds_up(made):
    rows, funnel = made
    assert funnel.seen == len(rows) + sum(funnel.rejected.values())
    assert funnel.rejected["execution"] == 0 and funnel.rejected["schema"] == 0 and funnel.rejected["grounding"] == 0
    lines = dict(line.split(maxsplit=1) for line in funnel.by_stage() if line[0] != " ")
    counts = Counter(tool for row in rows for tool in row["meta"]["tools"])
    assert all(int(lines[tool].split()[0]) == count for tool, count in counts.items())
    assert "execution" in str(funnel) and sum(kept for _, _, kept, _, _ in funnel.table()) == len(rows)


def test_rows_execute_again_with_the_recorded_results(made, pairs):
    assert list(generate.verify(made[0])) == []
    assert list(generate.verify(pairs)) == []


@pytest.mark.parametrize("broken", ["argument", "result", "hash"])
def test_verification_notices_a_changed_row(made, broken):
    at = next(n for n, row in enumerate(made[0]) if "Result:" in row["conversations"][1]["content"])
    rows = json.loads(json.dumps(made[0]))
    turn = rows[at]["conversations"][1]
    if broken == "argument":
        call = calls.parse(turn["content"]).calls[0]
        turn["content"] = turn["content"].replace(call.name, "vaultLibrarian_nothing", 1)
    elif broken == "result":
        turn["content"] = turn["content"].replace('"success": true', '"success": true, "more": 1', 1)
    else:
        rows[at]["meta"]["result"] = "0" * 12
    assert any(fault.startswith(rows[at]["id"]) for fault in generate.verify(rows))


BY_WORKSPACE = re.compile(r"memoryManager_(create|list|load|update)(Session|State)s?$")


def test_a_request_names_the_workspace_that_its_call_depends_on(played, monkeypatch):
    monkeypatch.setattr(generate, "IN_NO_WORKSPACE", 0)
    tools = ("loadSession", "updateState", "listStates", "createSession")
    keys = [("single_call", f"memoryManager_{tool}") for tool in tools] + [("sibling_choice", "state")]
    keys += [("recover_from_error", "again"), ("continue_from_memory", "memory"), ("several_calls", "join")]
    named = Counter()
    for row in played(40, *keys):
        request, answer = (turn["content"] for turn in row["conversations"])
        for call in calls.parse(answer, rescue=False).calls:
            workspace = call.arguments["context"]["workspaceId"]
            if BY_WORKSPACE.match(call.name) and workspace != "default":
                assert workspace in request, row["id"]
                named[row["meta"]["behaviour"]] += 1
    assert {"single_call", "sibling_choice", "recover_from_error", "several_calls"} <= named.keys()


def test_a_call_is_in_the_workspace_that_the_request_names_as_where_one_works_and_else_in_none(played, monkeypatch):
    monkeypatch.setattr(generate, "IN_NO_WORKSPACE", 0)
    single = [("single_call", f"memoryManager_{mode}Workspace") for mode in ("load", "update")]
    for row in played(10, *single, ("workspace_awareness", "by_name"), ("single_call", "vaultManager_openNote")):
        for call in calls.parse(row["conversations"][1]["content"]).calls:
            assert call.arguments["context"]["workspaceId"] == "default", row["id"]
    for row in played(6, ("workspace_awareness", "inside"), ("multi_step", "load_state"), ("several_calls", "join")):
        homes = [
            call.arguments["context"]["workspaceId"] for call in calls.parse(row["conversations"][1]["content"]).calls
        ]
        assert len(set(homes)) == 1 and (homes[0] == "default" or homes[0] in row["conversations"][0]["content"])
        assert homes[0] != "default" or row["meta"]["behaviour"] == "several_calls"


@pytest.mark.parametrize("name", ["tasks", "behavior", "baseline", "tool_combos"])
def test_a_task_names_its_workspace(name):
    assert [task["id"] for task in tasks.load(name) if task.get("workspace", "") not in task["question"]] == []


def test_the_failed_call_once_more_is_of_the_workspace_that_the_request_names(played):
    homes = 0
    pairs = played(60, ("recover_from_error", "again"), maker=generate.kto)
    for true, false in zip(pairs[::2], pairs[1::2], strict=True):
        if false["meta"]["defect"] == "missing_argument":
            right, wrong = (
                calls.parse(row["conversations"][1]["content"], rescue=False).calls[0] for row in (true, false)
            )
            assert right.arguments["context"]["workspaceId"] == wrong.arguments["context"]["workspaceId"]
            homes += right.name == "memoryManager_loadState"
    assert homes


@pytest.mark.parametrize("split", ["training", "evaluation"])
def test_a_call_that_is_said_to_have_failed_fails(split, played, monkeypatch):
    tried = Counter()

    def once_more(scene, tool, slots, arguments, *_):
        [call] = negatives.called(scene, tool, slots, arguments)
        assert not scene.world.vault.rehearse(tool, call.arguments)["success"]
        tried[scene.variant] += 1

    monkeypatch.setattr(plays.parts, "once_more", once_more)
    keys = [("recover_from_error", variant) for variant in ("not_found", "exists", "no_match", "again")]
    if split == "training":
        played(10, *keys)
    else:
        monkeypatch.setattr(making, "PLAYS", {key: plays.PLAYS[key] for key in keys})
        list(making.make())
    assert tried.keys() == {key[1] for key in keys} and tried["no_match"] > 1


def test_half_of_the_calls_in_training_name_no_option_and_a_task_takes_every_form(tmp_path):
    original, forms = worlds.build("novel", tmp_path / "v"), ("files", "folders", "both", "dates")
    for run, least, most in (("novel-0", 0.5, 0.6), ("", 0.2, 0.3)):
        world = worlds.World(original, "novel", 0, run=run)
        drawn = Counter(world.form(*forms, plain="both") for _ in range(2000))
        assert least < drawn["both"] / 2000 < most and all(drawn[form] > 200 for form in forms), run


def test_what_a_request_tells_of_was_done_and_is_done_again_by_verify(played, monkeypatch):
    rows, done, call = played(8, ("continue_from_memory", "memory")), [], generate.Vault.call
    monkeypatch.setattr(generate.Vault, "call", lambda self, name, given: done.append(name) or call(self, name, given))
    assert list(generate.verify(rows)) == []
    rows = sorted(rows, key=lambda row: (row["meta"]["run"], row["id"]))
    texts = [text for row in rows for text in (row["meta"]["before"], row["conversations"][1]["content"])]
    assert done == [each.name for text in texts for each in calls.parse(text).calls] and len(done) >= 2 * len(rows)


def test_a_session_is_about_its_first_call(made, played):
    keys = [key for key in plays.PLAYS if key[0] in ("verify_before_acting", "recover_from_error")]
    for row in [*made[0], *played(4, *keys, maker=generate.kto)]:
        called = calls.parse(row["conversations"][1]["content"]).calls
        if row["label"] and called:
            said = {call.arguments["context"]["sessionDescription"] for call in called}
            assert len(said) == 1 and said <= set(wording.answers()["reasons"][called[0].name]["session"]), row["id"]


def test_short_rows_in_english_come_first():
    def row(number, language, text):
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "tool_call: x"}]
        meta = {"behaviour": "single_call", "tools": ["x"], "language": language}
        return {"id": f"sft-{number}", "conversations": turns, "meta": meta}

    made = [row(1, "de", "a"), row(2, "en", "b" * 99), row(3, "en", "c"), row(4, "de", "d"), row(5, "en", "e")]
    assert [each["id"][-1] for each in generate.in_order(made)] == ["3", "5", "1", "4", "2"]


def test_a_call_remembers_all_that_was_told_and_done(made):
    scene = scenes.Scene(None, wording.Speaker(0), "session", "default", memory=["Read A", "Moved B", "Listed C"])
    assert {scene.remembered() for _ in range(6)} == {"Read A; Moved B; Listed C"}
    for row in made[0]:
        first, *later = calls.parse(row["conversations"][1]["content"]).calls or [None]
        if row["meta"]["behaviour"] == "continue_from_memory":
            told = first.arguments["context"]["sessionMemory"]
            assert told in row["conversations"][0]["content"]
            before = calls.parse(row["meta"]["before"]).calls
            assert 1 <= len(before) <= 2
            assert not [each for call in before for each in catalogue().check(call.name, call.arguments)]
        else:
            assert "before" not in row["meta"]


def test_a_failed_call_is_remembered_only_where_the_request_tells_of_it():
    untold = wording.answers()["untold"]
    given = {text: variant for variant, each in wording.behaviours()["recover"].items() for text in each["requests"]}
    given |= {t: name for name, each in wording.behaviours()["recover"].items() for t in each["requests"].training}
    assert set(untold) <= given.keys()
    assert [text for text in untold if re.search(r"(?i)error|fail|refused|not.found|no_match|exists", text)] == []
    slots = dict.fromkeys(("wrong", "path", "note", "error"), "X")
    for text, variant in given.items():
        scene = scenes.Scene(None, wording.Speaker(0), "session", "default", wording=text)
        plays.parts.tried(scene, "recover", variant, **slots)
        assert bool(scene.tried) == (text not in untold)


def test_words_between_calls_fit_any_next_call():
    scene = scenes.Scene(None, wording.Speaker(0), "session", "default")
    for _ in range(60):
        scene.narrate("before_act")
    said = set(scene.blocks)
    assert said and not said & {
        "The id is there, so I go ahead.",
        "Fine, on to the action itself.",
        "Now the second part.",
    }


@pytest.mark.parametrize(
    ("tool", "narrowing"),
    [
        ("vaultLibrarian_searchContent", "paths"),
        ("vaultLibrarian_searchDirectory", "dateRange"),
        ("vaultLibrarian_searchMemory", "workspaceId"),
    ],
)
def test_most_narrowed_searches_find_something(tool, narrowing, tmp_path):
    world = worlds.World(worlds.build("novel", tmp_path / "v"), "novel", 0, run="novel-0")
    found = Counter()
    while found.total() < 40:
        try:
            made = scenarios.make(world, tool)
        except LookupError:
            continue
        if narrowing in made.arguments and made.variant != "inside":
            given = {key: value for key, value in made.arguments.items() if key != "_workspace"}
            result = world.vault.rehearse(tool, BARE | given)
            found[bool((result.get("data") or result)["results"])] += 1
    assert 18 <= found[True] < 40, found


def test_what_is_replaced_in_training_is_of_the_kind_of_what_replaces_it(tmp_path):
    world = worlds.World(worlds.build("novel", tmp_path / "v"), "novel", 0, run="novel-0")
    kinds = [{word.lower() for word in kind} for name in ("alike", "instead") for kind in wording.answers()[name]]
    for _ in range(40):
        made = scenarios.make(world, "contentManager_findReplaceContent").slots
        find, replace = made["find"].lower(), made["replace"].lower()
        assert (find[0].isdigit() and replace[0].isdigit()) or any({find, replace} <= kind for kind in kinds), made
        assert made["find"] != made["replace"] and made["find"][0].isupper() == made["replace"][0].isupper()


def test_what_is_looked_for_is_no_front_matter_but_words_that_tell_something(tmp_path):
    original = worlds.build("cooking", tmp_path / "cooking")
    world = worlds.World(variety.fresh(original, tmp_path / "fresh", "cooking-0"), "cooking", 0, "cooking-0")
    note = "---\nrating: '3'\nmood: quite meh\n---\nIt was so there.\nSimmer lentils slowly.\n"
    for _ in range(20):
        assert {"lentils", "Simmer", "slowly"} & set(world.phrase(note, 2, 3).split())
    with pytest.raises(LookupError):
        world.phrase("---\nrating: very good bread\n---\nIt was so there.\n", 2, 3)


def test_a_note_is_the_first_hit_only_where_no_other_fits_as_well(tmp_path):
    original = worlds.build("cooking", tmp_path / "cooking")
    world = worlds.World(variety.fresh(original, tmp_path / "fresh", "cooking-0"), "cooking", 0, "cooking-0")
    scene = scenes.Scene(world, wording.Speaker(0), "session_1", "default")
    world.vault.tree.write("One.md", "quokka stew")
    world.vault.tree.commit()
    assert _first(scene, "quokka stew") == "One.md"
    world.vault.tree.write("Two.md", "quokka stew")
    world.vault.tree.commit()
    assert _first(scene, "quokka stew") == ""


def test_no_task_looks_for_a_field_of_front_matter():
    field = re.compile(r"(?:something on|note on|dropped|alles, was mit) \S+: ")
    asked = [task for name in ("tasks", "behavior") for task in tasks.load(name)]
    assert [task["id"] for task in asked if field.search(task["question"])] == []


def test_a_note_that_was_found_elsewhere_is_said_to_lie_there(played):
    rows = played(8, ("recover_from_error", "not_found"), ("recover_from_error", "in_turn"))
    for row in rows:
        blocks = calls.parse(row["conversations"][1]["content"], rescue=False).blocks
        read = [block for block in blocks if isinstance(block, calls.Call)][-1]
        assert read.arguments["filePath"] in blocks[-1]
    assert len(rows) > 8


def test_no_look_for_one_note_is_limited_that_nobody_limits(played):
    chains = [("multi_step", variant) for variant in ("find_read", "find_append", "find_move")]
    rows = played(5, *chains, ("recover_from_error", "not_found"), ("verify_before_acting", "exists"))
    looks = [calls.parse(row["conversations"][1]["content"], rescue=False).calls[0] for row in rows]
    assert len(looks) > 15 and all(look.name.startswith("vaultLibrarian") for look in looks)
    assert [look for look in looks if "limit" in look.arguments] == []


@pytest.mark.parametrize("apart", [worlds.BETWEEN_CHANGES, 0])
def test_the_newest_note_is_one(apart, played, monkeypatch):
    """Also where several notes were changed at once: such a folder is not asked about."""
    monkeypatch.setattr(worlds, "BETWEEN_CHANGES", apart)
    rows = played(20, ("multi_step", "list_read"))
    for row in rows:
        answer = calls.parse(row["conversations"][1]["content"], rescue=False)
        listed = answer.results[0]
        files = listed.get("data", listed)["files"]
        notes = sorted((file["modified"], file["path"]) for file in files if file["path"].endswith(".md"))
        assert answer.calls[1].arguments["filePath"] == notes[-1][1]
        assert len(notes) == 1 or notes[-2][0] < notes[-1][0]
    assert len(rows) > 5


def test_an_unsaid_value_is_noticed():
    blocks = [calls.Call("contentManager_readContent", {"context": {}, "filePath": "Recipes/Soup.md"})]
    assert scenes.ungrounded("read Recipes/Soup to me", blocks) == ""
    assert "Soup" in scenes.ungrounded("read my stew recipe", blocks)
    listed = [
        calls.Call("vaultManager_listDirectory", {"context": {}, "path": ""}),
        calls.Result({"files": ["Recipes/Soup.md"]}),
    ]
    assert scenes.ungrounded("read my stew recipe", listed + blocks) == ""


def test_the_command_line_makes_and_verifies_rows(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    assert main(["generate", "sft", "--rows", "60", "-o", str(path)]) == 0
    assert "kept" in capsys.readouterr().out
    assert main(["verify", str(path)]) == 0
    assert "0 differ" in capsys.readouterr().out
    path.write_text(re.sub(r'"result": "\w+"', '"result": "000000000000"', path.read_text(), count=1))
    assert main(["verify", str(path)]) == 1
    assert main(["generate", "sft", "--rows", "10", "-o", str(tmp_path / "no" / "rows.jsonl")]) == 2


# pairs ----------------------------------------------------------------------------------------------------------------


def test_pairs_differ_in_the_answer_alone(pairs):
    for true, false in zip(pairs[::2], pairs[1::2], strict=True):
        assert (true["label"], false["label"]) == (True, False) and true["id"][:-1] == false["id"][:-1]
        assert true["conversations"][0] == false["conversations"][0] and true["conversations"] != false["conversations"]


def test_the_defects_are_many(pairs):
    used = Counter(row["meta"]["defect"] for row in pairs[1::2])
    assert used.keys() >= {
        "wrong_tool",
        "missing_argument",
        "wrong_argument",
        "invented_path",
        "call_without_asking",
        "needless_question",
    }
    assert used.keys() >= {
        "repeated_call",
        "destructive_unasked",
        "empty_session_memory",
        "malformed_call",
        "foreign_ids",
    }


def test_wrong_answers_are_those_that_the_behaviour_is_there_to_avoid():
    pairs = map(json.loads, (repo_root() / "datasets" / "kto.jsonl").read_text("utf-8").splitlines())
    wrong = [row for row in pairs if not row["label"]]

    def share(behaviour, *defects):
        found = [row["meta"]["defect"] for row in wrong if row["meta"]["behaviour"] == behaviour]
        return sum(defect in defects for defect in found) / len(found)

    assert share("verify_before_acting", "unchecked", "destructive_unasked") > 0.3  # of conditions that do not hold
    assert share("verify_before_acting", "wrong_tool") == 0
    assert share("workspace_awareness", "foreign_ids") > 0.3
    assert share("limit_reading", "wrong_argument") > 0.4
    assert share("recover_from_error", "repeated_call", "missing_argument") > 0.3
    assert share("sibling_choice", "wrong_tool") > 0.7
    assert share("continue_from_memory", "empty_session_memory") > 0.7
    assert share("several_calls", "repeated_call", "wrong_argument", "text_without_call") == 1


VERIFIED = [("verify_before_acting", variant) for variant in ("empty_folder", "has_text", "exists", "blank")]


def test_acting_without_the_look_that_was_asked_for_is_called_unchecked(played):
    """Only where the look speaks against the call: elsewhere the right answer ends with that call, too."""
    unchecked = 0
    pairs = played(15, *VERIFIED, maker=generate.kto)
    for true, false in zip(pairs[::2], pairs[1::2], strict=True):
        right, wrong = (calls.parse(row["conversations"][1]["content"], rescue=False).calls for row in (true, false))
        if wrong and catalogue().tools[wrong[0].name].mutates:
            assert false["meta"]["defect"] == "unchecked"
            assert not any(catalogue().tools[call.name].mutates for call in right)
            unchecked += 1
    assert unchecked > 5


def test_no_single_call_is_asked_for_on_a_condition():
    """What `verify_before_acting` looks up first would be right without a look here."""
    condition = re.compile(r"^if |[.,] if |\bunless\b|\bin case\b|, is there\? Then", re.I)
    acts = ("vaultManager_deleteFolder", "vaultManager_deleteNote")
    acts += ("contentManager_createContent", "contentManager_replaceContent")
    for tool in acts:
        for texts in wording.voices()[tool]["requests"].values():
            assert [text for text in [*texts, *texts.training] if condition.search(text)] == []


def test_the_defect_that_a_behaviour_is_about_stays_the_common_one():
    options = [(f"defect {letter}", "right", f"wrong {letter}") for letter in "abcdefghijklmn"]
    balanced, liked = balance.Balance(0), {"wrong b", "wrong c"}
    used = Counter(balanced.choose(options, "sibling_choice", liked)[2] for _ in range(200))
    assert used == {"wrong b": 100, "wrong c": 100}


def test_a_style_is_what_is_seen():
    text = 'tool_call: get_tools\narguments: {"tools": []}\n\nResult: {"success": true}\n\nThat is all.'
    assert balance.style(text) == balance.Style(len(text), 1, 3, 1)


# evaluation -----------------------------------------------------------------------------------------------------------


def test_reserved_prompts_are_refused():
    reserved = similarity.Reserved(["one two three four five six seven eight nine", "short prompt of the set"])
    assert "eight words" in reserved.near("well, two three four five six seven eight nine!")
    assert "near copy" in reserved.near("short prompt of the set")
    assert reserved.near("something else altogether") == ""


def test_minhash_estimates_the_overlap():
    one = "could you put the soup recipe into the winter folder for me before dinner"
    two = "could you put the soup recipe into the winter folder for me before lunch"
    signatures = [similarity.minhash(text) for text in (one, two, "list every command that the palette has")]
    assert 0.6 < (signatures[0] == signatures[1]).mean() < 1
    assert (signatures[0] == signatures[2]).mean() < 0.2


@pytest.fixture(scope="module")
def vaults(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vaults")
    return {name: worlds.build(name, folder / name) for name in fixtures.names("evaluation")}


@pytest.mark.parametrize("name", ["tasks", "behavior", "baseline", "tool_combos"])
def test_every_gold_solution_passes_and_every_mutation_fails(name, vaults, tmp_path):
    narrowed = 0
    for task in tasks.load(name):
        vault = vaults[task["fixture"]]
        made, text = making.gold(task)
        gold = tasks.perform(vault.copy(tmp_path / task["id"]), made, text)
        assert tasks.faults(task, gold) == [], task["id"]
        mutations = list(making.mutations(task, vault))
        assert len(mutations) in (5, 6)
        narrowed += len(mutations) == 6
        for number, (what, wrong, words) in enumerate(mutations):
            outcome = tasks.perform(vault.copy(tmp_path / f"{task['id']}-{number}"), wrong, words)
            assert tasks.faults(task, outcome), (task["id"], what)
    assert narrowed == {"tasks": 51, "behavior": 34, "baseline": 7, "tool_combos": 17}[name]


def test_the_newest_note_of_a_task_is_one(vaults):
    asked = [
        task for name in ("tasks", "behavior") for task in tasks.load(name) if "was edited last" in task["question"]
    ]
    for task in asked:
        look, read = task["gold"]
        notes = [
            entry for entry in vaults[task["fixture"]].tree.children(look["arguments"]["path"]) if not entry.is_folder
        ]
        *others, newest = sorted(notes, key=lambda entry: entry.modified)
        assert newest.path == read["arguments"]["filePath"]
        assert newest.modified > max((entry.modified for entry in others), default=0)
    assert len(asked) == 4


def test_a_call_that_is_accepted_instead_finds_the_same_notes(vaults):
    found = 0
    for task in tasks.load() + tasks.load("behavior"):
        for needed in task.get("must_call", []):
            for other in needed.get("or", []):
                results = []
                for call in (needed, other):
                    given = {"context": making.context(task), **call["arguments"], "limit": 50}
                    hits = vaults[task["fixture"]].call(call["tool"], given)["results"]
                    results.append({hit.get("filePath") or hit["path"] for hit in hits if hit.get("type") != "folder"})
                assert results[0] == results[1] != set(), task["id"]
                found += 1
    assert found == 6


@pytest.mark.parametrize("name", ["tasks", "behavior", "baseline", "tool_combos"])
def test_the_tasks_are_made_again_byte_for_byte(name):
    makers = {"tasks": making.make, "behavior": lambda: making.make(1, None, making.BEHAVIOUR, "behavior")}
    made = makers[name]() if name in makers else making.written(name)
    text = json.dumps(list(made), indent=1, ensure_ascii=False) + "\n"
    assert text == tasks.path(name).read_text(encoding="utf-8")


def test_a_written_task_that_the_vault_refuses_is_named(tmp_path, monkeypatch):
    folder = tmp_path / "datasets" / "prompts" / "written"
    folder.mkdir(parents=True)
    (folder / "baseline.yaml").write_text(
        "- {fixture: law, question: Read it, gold: [{contentManager_readContent: {filePath: Nowhere.md}}]}\n"
    )
    monkeypatch.setattr(making, "repo_root", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"baseline.yaml, task 1: contentManager_readContent: .*Nowhere.md"):
        list(making.written("baseline"))


# teacher and views ----------------------------------------------------------------------------------------------------


class Echo:
    """Stands in for a server where only what is done with its words is tested; the real one is tested in the notebook."""

    def __init__(self, words):
        self.words, self.asked = words, 0

    def ask(self, messages, **_):
        self.asked += 1
        text = self.words(messages[-1]["content"]) if callable(self.words) else self.words
        return type("Answer", (), {"text": text, "tool_calls": None})()


def test_a_paraphrase_keeps_what_the_call_needs(made, tmp_path):
    rows = [row for row in made[0] if row["meta"]["behaviour"] == "single_call"][:20]
    polite = Echo(lambda prompt: "Be so kind: " + prompt.split("\n\n", 1)[1])
    target = tmp_path / "runs" / "teacher.jsonl"  # a fresh clone has no runs/
    funnel = teacher.paraphrase(rows, polite, target)
    kept = list(teacher.rows(target))
    assert sum(funnel.kept.values()) == len(kept) > 10 and polite.asked == 20
    assert all(row["conversations"][0]["content"].startswith("Be so kind") for row in kept)
    teacher.paraphrase(rows, polite, target)
    assert polite.asked == 20  # nothing is asked twice
    silly = teacher.paraphrase(rows, Echo("Please do it."), tmp_path / "other.jsonl")
    assert sum(silly.kept.values()) < 8 and silly.rejected["grounding"] > 10
    trained_on = views.write(teacher.rows(target), tmp_path / "new" / "teacher_rows.jsonl")
    assert [str(finding) for finding in rules.validate([trained_on])] == []


def test_interrupted_work_is_taken_up(made, tmp_path):
    rows, target = made[0][:6], tmp_path / "teacher.jsonl"

    def fails(prompt):
        if endpoint.asked == 4:
            raise teacher.RequestFailed("no answer")
        return "Now: " + prompt.split("\n\n", 1)[1]

    endpoint = Echo(fails)
    with pytest.raises(teacher.RequestFailed):
        teacher.paraphrase(rows, endpoint, target)
    with target.open("a") as out:
        out.write('{"id": "torn')
    teacher.paraphrase(rows, endpoint, target)
    assert len(list(teacher._entries(target))) == 6


def test_self_play_goes_through_the_funnel(tmp_path):
    context = {key: "as asked" for key in scenes.catalogue().context["required"]}
    context |= {"sessionId": "session_1731571200000_abcdefghi", "workspaceId": "default"}
    call = calls.render([calls.Call("agentManager_listAgents", {"context": context})], "text")
    talk = Echo(
        lambda prompt: (
            f"Which assistants do I have? {Echo.__name__} {talk.asked}" if "You are this person" in prompt else call
        )
    )
    target = tmp_path / "play.jsonl"
    funnel = teacher.self_play(talk, 5, target)
    assert sum(funnel.kept.values()) == 5
    for row in teacher.rows(target):
        assert (
            len(calls.parse(row["conversations"][1]["content"]).calls) == teacher.MOST_STEPS and "result" in row["meta"]
        )
    broken = teacher.self_play(Echo("tool_call: nonsense\narguments: {"), 3, tmp_path / "broken.jsonl")
    assert broken.rejected["schema"] + broken.rejected["duplicate"] == 3


def test_views(made, tmp_path):
    rows = made[0]
    assert views.heat_map(rows).axes and "150" not in views.show(rows[0])[:3]
    assert views.select(rows, behaviour="unable") and not views.select(rows, words="no such words at all")
    assert views.findings(str(tmp_path / "none.jsonl")) and views.nearest(rows)[0][0] <= 1


def test_thumbs_write_rows_and_pairs_that_can_be_trained_on(made, pairs, tmp_path):
    folder = tmp_path / "runs"  # a fresh clone has none
    sft, (true, false) = made[0][0], pairs[:2]
    page = views.browser([sft, true, false], folder)
    filters, table, text, _, other, below = page.children
    up, down, defect, status = below.children

    def press(button, at, written=None):
        table.index = at
        if written is not None:
            other.value = written
        button.click()
        return status.value

    assert len(table.options) == 3 and sft["id"] in text.value
    assert "my_rows.jsonl" in press(up, 0) and "already" in press(up, 0)
    assert "write the right answer" in press(down, 0)
    assert "not written" in press(down, 0, "tool_call: vaultManager_makeIt\narguments: {}")
    assert "my_pairs.jsonl" in press(down, 2)  # of a made pair the other answer and the defect stand there
    assert "already" in press(up, 1)  # the same pair from its other side
    for name in ("my_rows", "my_pairs"):
        assert views.findings(str(folder / f"{name}.jsonl")).startswith("0 problems")
    filters.children[3].value = "no such words at all"
    assert table.options == () and text.value == "no row fits"


@pytest.mark.parametrize("kind", ["sft", "kto"])
def test_the_dataset_notebook_writes_what_the_command_line_does(tmp_path, kind):
    maker, command_line = getattr(generate, kind), tmp_path / "command.jsonl"
    in_notebook = views.write(generate.in_order(maker(60, 42)), tmp_path / "notebook.jsonl")
    assert main(["generate", kind, "--rows", "60", "--seed", "42", "-o", str(command_line)]) == 0
    assert in_notebook.read_bytes() == command_line.read_bytes()


def test_diversity_of_copies_is_low(made):
    rows = made[0]
    same = [rows[0]] * 20
    assert similarity.diversity(same)["distinct_2"] < 0.1 < similarity.diversity(rows)["distinct_2"]
    assert similarity.diversity(same)["unique"] == 0 and similarity.diversity(rows)["unique"] > 0.9
    assert similarity.diversity(same)["wording"] == 0 < similarity.diversity(rows)["wording"]


def test_a_wording_in_another_is_told_from_the_others():
    speaker = wording.Speaker(1)
    inside = speaker.request(
        wording.voices()["vaultManager_createFolder"]["requests"]["new"], {"folder": "A/B", "name": "B", "parent": "A"}
    )
    texts = wording.behaviours()["workspace"]["inside"]["requests"]
    said = speaker.request(texts, {"workspace_id": "ws_1", "request": inside}, inside.language)
    assert inside.wording in said.whole and "{workspace_id}" in said.whole and said.wording in texts


def test_what_the_person_wants_in_the_end_is_the_same_in_all_calls_of_a_turn(made):
    turns = [calls.parse(row["conversations"][1]["content"]).calls for row in made[0]]
    several = [[call.arguments["context"]["primaryGoal"] for call in turn] for turn in turns if len(turn) > 1]
    assert several and all(len(set(goals)) == 1 for goals in several)
