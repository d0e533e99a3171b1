"""Do our verdicts agree with BFCL's own checkers and with inspect_ai? Prints a table and every kind of difference.

make peer, or: python benchmarks/peer.py PEER_PYTHON BFCL_FOLDER. The other side runs in an environment of its own (`theirs`):
the unpacked bfcl-eval wheel, whose model list is left out since it imports every provider's SDK, and inspect_ai.

1 arguments: BFCL's gold answers (Python calls, live ones too) and mutations of them, judged by `verdicts.literal` and by BFCL's
`simple_function_checker`; the same for our own 47 prompts. 2 final state: BFCL's file system tasks, executed as their gold
says and with one change left out, judged by `tasks.faults` on snapshots of the tree and by BFCL's `state_checker`. 3 pass^k
of both.
"""

import json
import random
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path

SETS = ("simple_python", "multiple", "live_simple", "live_multiple")
CHANGES = ("mkdir", "mv", "touch", "echo", "cp", "rm", "rmdir")
LOOKS = ("cd", "pwd", "ls", "cat", "grep", "sort", "tail", "diff", "wc", "find", "du")
EXPLAINED = {  # what BFCL's checker refuses and why; its own gold answers are among it
    "Flights_4_SearchOnewayFlight": "its gold answer leaves out a parameter that it requires",
    "Trains_1_FindTrains": "its gold answer names a parameter that its schema does not have",
    "transfer_to_human_agent": "its gold answer names a parameter that its schema does not have",
    "Hotels_4_SearchHotel": "'dontcare' for a number: taken as a variable's name, so its capitals count",
    "Music_3_LookupMusic": "'dontcare' for a number: taken as a variable's name, so its capitals count",
}


# theirs ------------------------------------------------------------------------------------------------------------------


def theirs() -> None:
    """Answers on standard output what BFCL and inspect_ai say of the cases on standard input."""
    sys.path.insert(0, sys.argv[2])
    stub = types.ModuleType("bfcl_eval.constants.model_config")
    stub.MODEL_CONFIG_MAPPING = {"peer": types.SimpleNamespace(underscore_to_dot=False)}
    sys.modules[stub.__name__] = stub
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import simple_function_checker

    given = json.load(sys.stdin)
    calls = [
        bool(
            simple_function_checker(
                each["function"],
                {each["name"]: each["arguments"]},
                {each["name"]: each["answer"]},
                Language.PYTHON,
                "peer",
            )["valid"]
        )
        for each in given["calls"]
    ]
    json.dump(
        {"calls": calls, "states": list(map(_state, given["states"])), "pass_k": _pass_k(given["trials"])}, sys.stdout
    )


def _state(task: dict) -> dict:
    """Trees before, after the gold calls and after the mutated ones, and whether BFCL takes the two outcomes as equal."""
    from bfcl_eval.eval_checker.multi_turn_eval.func_source_code.gorilla_file_system import GorillaFileSystem
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import state_checker

    made = {}
    for name, lines in (("before", []), ("gold", task["gold"]), ("again", task["gold"]), ("mutated", task["mutated"])):
        system = GorillaFileSystem()
        system._load_scenario(json.loads(json.dumps(task["config"])))
        for line in lines:
            eval(f"system.{line}", {"system": system})  # BFCL's own gold calls, as BFCL executes them
        made[name] = system
    verdict = lambda one, two: bool(state_checker({"fs": made[one]}, {"fs": made[two]})["valid"])  # noqa: E731
    trees = {name: _tree(made[name].root) for name in made}
    return {**trees, "same": verdict("again", "gold"), "same_mutated": verdict("mutated", "gold")}


def _tree(folder, path: str = "") -> dict:
    found = {}
    for name, entry in folder.contents.items():
        place = f"{path}{name}"
        found |= (
            {place: entry.content} if hasattr(entry, "content") else {f"{place}/": None, **_tree(entry, f"{place}/")}
        )
    return found


def _pass_k(trials: list) -> list[float]:
    from inspect_ai.scorer import Score, pass_k

    return [float(pass_k(k)([Score(value=int(flag)) for flag in flags]).as_float()) for flags, k in trials]


# ours --------------------------------------------------------------------------------------------------------------------


def cases(folder: Path) -> list[dict]:
    """Gold answers and mutations of them: {function, name, answer, arguments, kind}."""
    made, pick = [], random.Random(0)
    for name in SETS:
        data = folder / "bfcl_eval" / "data"
        functions = {row["id"]: row["function"] for row in _lines(data / f"BFCL_v4_{name}.json")}
        for row in _lines(data / "possible_answer" / f"BFCL_v4_{name}.json"):
            if len(row["ground_truth"]) == 1:
                ((tool, answer),) = row["ground_truth"][0].items()
                function = next(f for f in functions[row["id"]] if f["name"] == tool)
                made += _mutations(function, tool, answer, pick)
    return made


def own_cases() -> list[dict]:
    """The same of our own prompts; a schema as BFCL writes one."""
    from toolset_nb.evaluation import load_prompts
    from toolset_nb.tools import catalogue

    made, pick = [], random.Random(1)
    words = {
        "string": "string",
        "integer": "integer",
        "number": "float",
        "boolean": "boolean",
        "array": "array",
        "object": "dict",
    }
    for prompt in load_prompts("full_coverage"):
        (tool,) = prompt["expected_tools"]
        answer = prompt.get("expected_arguments", {})
        schema = catalogue().tools[tool].parameters["properties"]
        properties = {
            key: {"type": words[schema[key].get("type", "string")], "items": {"type": "string"}} for key in answer
        }
        function = {
            "name": tool,
            "parameters": {"properties": properties, "required": [k for k in answer if "" not in answer[k]]},
        }
        made += _mutations(function, tool, answer, pick)
    return made


def _mutations(function: dict, name: str, answer: dict, pick: random.Random) -> list[dict]:
    gold = {key: next(v for v in values if v != "") for key, values in answer.items() if any(v != "" for v in values)}
    if any(_nested(value) for value in gold.values()):
        return []  # BFCL writes allowed values inside objects, too: a notation that our prompts do not use
    wrong = {"gold": gold}
    if gold:
        key = pick.choice(sorted(gold))
        value = gold[key]
        other = (
            not value
            if isinstance(value, bool)
            else value + 1
            if isinstance(value, (int, float))
            else [*value, "x"]
            if isinstance(value, list)
            else f"{value} else"
        )
        wrong["another value"] = gold | {key: other}
        if isinstance(value, str) and value.upper() not in answer[key] and value.upper() != value:
            wrong["other capitals"] = gold | {key: value.upper()}
        if isinstance(value, str) and any(c in value for c in " ./-_,"):
            bare = "".join(c for c in value if c not in " ./-_,")
            if bare and bare not in answer[key]:
                wrong["no punctuation"] = gold | {key: bare}
        needed = [key for key in gold if "" not in answer[key] and key in function["parameters"]["required"]]
        if needed:
            left = pick.choice(needed)
            wrong["one left out"] = {key: value for key, value in gold.items() if key != left}
    return [
        {"function": function, "name": name, "answer": answer, "arguments": each, "kind": kind}
        for kind, each in wrong.items()
    ]


def _nested(value) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value)
    )


def states(folder: Path) -> list[dict]:
    """File system tasks: {config, gold calls, the same without the last change}."""
    data = folder / "bfcl_eval" / "data"
    gold = {
        row["id"]: [line for turn in row["ground_truth"] for line in turn]
        for row in _lines(data / "possible_answer" / "BFCL_v4_multi_turn_base.json")
    }
    made = []
    for row in _lines(data / "BFCL_v4_multi_turn_base.json"):
        if "GorillaFileSystem" in row["involved_classes"]:
            lines = [line for line in gold[row["id"]] if line.partition("(")[0] in CHANGES + LOOKS]
            changing = [at for at, line in enumerate(lines) if line.partition("(")[0] in CHANGES]
            if changing:
                left = [line for at, line in enumerate(lines) if at != changing[-1]]
                made.append(
                    {
                        "id": row["id"],
                        "config": row["initial_config"]["GorillaFileSystem"],
                        "gold": lines,
                        "mutated": left,
                    }
                )
    return made


def ours_of_state(before: dict, gold: dict, outcome: dict) -> bool:
    """Whether `tasks.faults` takes an outcome as what the gold calls leave."""
    from toolset_nb import tasks
    from toolset_nb.vault.snapshots import Snapshot

    def snapshot(tree: dict) -> Snapshot:
        files = {path: content.encode() for path, content in tree.items() if content is not None}
        return Snapshot(
            files, frozenset(path.rstrip("/") for path, content in tree.items() if content is None), {"ui": {}}
        )

    wanted = tasks.expectations(snapshot(before), snapshot(gold), "")
    done = tasks.Outcome([], [], "", snapshot(before), snapshot(outcome))
    return not [fault for fault in tasks.faults({"must_change": wanted}, done) if fault != "no call was made"]


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def main() -> int:
    """Asks the other side, compares, prints; exit code 1 for a difference that is not explained."""
    from toolset_nb.evaluation.statistics import pass_hat
    from toolset_nb.evaluation.verdicts import literal

    peer, folder = sys.argv[1], Path(sys.argv[2])
    pick = random.Random(2)
    trials = [([pick.random() < 0.6 for _ in range(n)], k) for n in range(1, 9) for k in range(1, n + 1)]
    calls, tasks_ = cases(folder) + own_cases(), states(folder)
    given = json.dumps({"calls": calls, "states": tasks_, "trials": trials})
    done = subprocess.run([peer, __file__, "theirs", str(folder)], input=given, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        return 2
    found = json.loads(done.stdout)

    counts, unexplained = Counter(), 0
    for case, valid in zip(calls, found["calls"], strict=True):
        counts[case["kind"], literal(case["answer"], case["arguments"]), valid] += 1
    print("arguments: kind, cases, ours and theirs agree, only ours refuses, only theirs refuses")
    for kind in dict.fromkeys(kind for kind, *_ in counts):
        both = counts[kind, True, True] + counts[kind, False, False]
        only_ours, only_theirs = counts[kind, False, True], counts[kind, True, False]
        print(f"  {kind:16} {both + only_ours + only_theirs:5} {both:5} {only_ours:5} {only_theirs:5}")
    loose = ("other capitals", "no punctuation")
    for case, valid in zip(calls, found["calls"], strict=True):
        mine = literal(case["answer"], case["arguments"])
        if mine != valid and not (case["kind"] in loose and valid):
            unexplained += case["name"] not in EXPLAINED
            print(
                f"  differs: {case['kind']}: {case['name']} {case['arguments']} for {case['answer']}: ours {mine}, BFCL {valid}"
            )
    table = Counter()
    for task, each in zip(tasks_, found["states"], strict=True):
        gold = ours_of_state(each["before"], each["gold"], each["again"]), each["same"]
        wrong = ours_of_state(each["before"], each["gold"], each["mutated"]), each["same_mutated"]
        table["gold", *gold] += 1
        table["one change left out", *wrong] += 1
        if gold[0] != gold[1] or wrong[0] != wrong[1]:
            unexplained += 1
            print(f"  differs: {task['id']}: gold {gold}, mutated {wrong} (ours, BFCL)")
    print("final state: (kind, ours passes, BFCL passes) tasks")
    for key, count in sorted(table.items()):
        print(f"  {key} {count}")
    equal = [
        round(pass_hat({"t": flags}, k), 9) == round(value, 9)
        for (flags, k), value in zip(trials, found["pass_k"], strict=True)
    ]
    print(f"pass^k: {sum(equal)} of {len(equal)} equal to inspect_ai's")
    return 1 if unexplained or not all(equal) else 0


if __name__ == "__main__":
    sys.exit(theirs() if sys.argv[1] == "theirs" else main())
