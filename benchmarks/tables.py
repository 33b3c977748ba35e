"""Puts the results into README.md, RESULTS.md and deploy/RUNBOOK.md, so that no number there is typed by hand.

Between ``<!-- table: NAME -->`` and ``<!-- end -->`` stands what results/NAME.json says. Knows: which numbers a reader
wants first. Does not know: how they were measured.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.capacity import LOADS, PEAK, SECONDS_PER_DAY, replicas_needed
from benchmarks.report import RESULTS, load, markdown

README = Path(__file__).parents[1] / "README.md"
PAGES = (README, README.parent / "benchmarks" / "RESULTS.md", README.parent / "deploy" / "RUNBOOK.md")
PLACE = re.compile(r"(<!-- table: (?P<name>[\w.-]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)

Values = Mapping[str, Any]


def engine(values: Values) -> str:
    columns = {
        "precision": "precision",
        "threads": "threads",
        "num_sentences": "sentences",
        "num_beams": "beams",
        "sentences_per_s": "sentences/s",
        "tokens_per_s": "tokens/s",
        "step_ms": "ms a step",
        "products_ms": "its products alone, ms",
        "step_to_products": "step / products",
    }
    return markdown(values["rows"], columns)


def quality(values: Values) -> str:
    columns = {"test": "test set", "precision": "precision", "num_beams": "beams", "bleu": "BLEU", "chrf": "chrF"}
    rows = [row | {"bleu": f"{row['bleu']:.2f}", "chrf": f"{row['chrf']:.2f}"} for row in values["rows"]]
    signatures = (values["rows"][0]["bleu_signature"], values["rows"][0]["chrf_signature"])
    return f"{markdown(rows, columns)}\n\nsacreBLEU `{signatures[0]}`, chrF `{signatures[1]}`."


def peers(values: Values) -> str:
    columns = {
        "num_sentences": "sentences at once",
        "num_beams": "beams",
        "system": "system",
        "settings": "its fastest settings",
        "sentences_per_s": "sentences/s",
        "ms": "ms",
        "speedup": "Dragoman is faster by",
        "bleu": "BLEU",
    }
    has_bleu = any("bleu" in row for row in values["rows"])
    rows = [row | {"speedup": speedup(row)} for row in values["rows"]]
    return markdown(rows, {key: head for key, head in columns.items() if key != "bleu" or has_bleu})


def speedup(row: Values) -> str:
    if row["system"].startswith("dragoman") or "ratio" not in row:
        return ""
    low, high = row["ratio_quartiles"]
    return f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"


def scaling(values: Values) -> str:
    columns = {"what": "what grows", "first": "from", "last": "to", "cost": "cost at either end", "factor": "factor"}
    rows = []
    for what in dict.fromkeys(row["what"] for row in values["rows"]):
        own = [row for row in values["rows"] if row["what"] == what]
        unit = "mib" if "mib" in own[0] else "ms"
        first, last = own[0], own[-1]
        name = {"mib": "MiB", "ms": "ms"}[unit]
        cost = f"{first[unit]:.3g} to {last[unit]:.4g} {name}"
        factor = last[unit] / first[unit]
        rows.append({"what": what, "first": first["value"], "last": last["value"], "cost": cost, "factor": factor})
    return markdown(rows, columns)


def load_test(values: Values) -> str:
    columns = {
        "system": "system",
        "best_rate": f"calls/s with 99 % within {values['objective_ms']:.0f} ms",
        "ratio": "Dragoman's / its",
        "peak_goodput": "most in time/s",
        "overload_share": "share of that left at twice the rate",
    }
    parts = [markdown(values["summary"], columns), objectives(values), " ".join(values.get("doubts", []))]
    return "\n\n".join(part for part in parts if part)


def objectives(values: Values) -> str:
    """Best rates for shorter objectives, of the same run."""
    rows = values.get("by_objective", [])
    systems = list(dict.fromkeys(entry["system"] for entry in values["summary"]))
    first = min(row["rate"] for row in values["rows"]) if rows else 0.0
    shown = [row | {name: row[name] or f"below {first:g}" for name in systems} for row in rows]
    heads = {"objective_ms": "calls/s with 99 % within, ms"} | {name: name for name in systems}
    return markdown(shown, heads) if rows else ""


def replicas(values: Values) -> str:
    columns = {
        "beams": "beams",
        "replicas": "replicas of one core",
        "tokens_per_s": "target tokens/s",
        "speedup": "beside one",
        "tokens_per_cpu_s": "tokens per CPU second",
        "characters_per_cpu_s": "characters per CPU second",
        "rss_mib": "MiB of a replica",
    }
    calls = {"phase": "calls while", "calls": "calls", "failed": "failed", "p50_ms": "p50 ms", "p99_ms": "p99 ms"}
    needs = [
        {"load": f"{load:,.0f} characters a day", "peak": load / SECONDS_PER_DAY * PEAK}
        | {str(beams): replicas_needed(load, speed) for beams, speed in speeds(values).items()}
        for load in LOADS
    ]
    heads = {"load": "load", "peak": "characters/s at the peak"}
    heads |= {str(beams): f"replicas of one core, beam {beams}" for beams in speeds(values)}
    machine = values["machine"]
    busy = f"Load average of the machine at the end: {machine['load_average']}; above {machine['cores']}"
    tables = (markdown(values["rows"], columns), markdown(values["replacement"], calls), markdown(needs, heads))
    return "\n\n".join([*tables, f"{busy} other work took its share of the time."])


def multi30k(values: Values) -> str:
    columns = {
        "run": "run",
        "averaged": "checkpoints averaged",
        "length_penalty": "length penalty",
        "torch": "BLEU, PyTorch",
        "graphs": "BLEU, graphs",
        "equal": "equal token ids",
    }
    rows = [
        row
        | {"averaged": len(row["checkpoints"]), "equal": f"{row['num_equal']} of {row['num_sentences']}"}
        | {"torch": f"{row['bleu_pytorch']:.2f}", "graphs": f"{row['bleu_graphs']:.2f}"}
        for row in values["rows"]
    ]
    known = f"Beam {values['num_beams']}; published: {values['published_bleu']:.2f}."
    return f"{markdown(rows, columns)}\n\n{known} sacreBLEU `{values['rows'][0]['signature']}`."


def marian(values: Values) -> str:
    columns = {
        "num_beams": "beams",
        "sentences": "sentences",
        "equal": "same ids as generate()",
        "ties": "ties",
        "score_difference": "scores differ by at most",
        "ctranslate2_equal": "CTranslate2: same ids as ours",
        "ctranslate2_lower": "others: its score is lower",
    }
    rows = [row | {"score_difference": f"{row['score_difference']:.0e}"} for row in values["rows"]]
    bleu = ", ".join(f"{row['precision']} {row['bleu']:.2f}" for row in values["bleu"])
    cut = values["tokenization"]
    ids = f"{cut['other_ids']} of {cut['lines']:,} lines have other token ids than its own tokenizer gives"
    return f"{markdown(rows, columns)}\n\nBLEU, greedy: {bleu}. {ids}."


def overhead(values: Values) -> str:
    columns = {
        "num_clients": "clients",
        "num_beams": "beams",
        "graphs_ms": "graphs, ms",
        "search_ms": "search and scheduler, ms",
        "front_ms": "gRPC, tokenizer and the rest, ms",
    }
    return markdown(values["rows"], columns)


def batch(values: Values) -> str:
    columns = {
        "engine_wall_s": "engine alone, s",
        "job_wall_s": "job, s",
        "wall_ratio": "job's speed / the engine's",
        "cpu_ratio": "the same by CPU time",
    }
    medians = {key: statistics.median(row[key] for row in values["rows"]) for key in columns}
    return (
        markdown([medians], columns) + f"\n\n{values['num_sentences']:,} sentences, medians of {len(values['rows'])}."
    )


def training(values: Values) -> str:
    columns = {
        "what": "what is compared",
        "ratio": "times as fast",
        "between": "quartiles",
        "tokens_per_s": "target tokens/s",
        "other_tokens_per_s": "beside",
    }
    rows = [row | {"between": "{:.2f} to {:.2f}".format(*row["ratio_quartiles"])} for row in values["rows"]]
    gap = rows[0]["largest_loss_difference"]
    below = f"Losses beside the plain loop, ten steps at a time, differ by at most {gap:.1%}."
    return f"{markdown(rows, columns)}\n\n{below}"


def out_of_core(values: Values) -> str:
    columns = {
        "pairs": "pairs",
        "text_mb": "text, MB",
        "before_mb": "MB before",
        "preparing_mb": "at most while preparing",
        "reading_mb": "at most while reading batches",
        "pairs_per_cpu_s": "pairs per CPU second",
    }
    return markdown([row | {"pairs": f"{row['pairs']:,}"} for row in values["rows"]], columns)


def batch_memory(values: Values) -> str:
    columns = {
        "texts": "texts",
        "rows": "rows",
        "peak_mib": "MiB at most",
        "input_mib": "input, MiB",
        "output_mib": "output, MiB",
        "wall_s": "seconds",
    }
    return markdown([row | {"rows": f"{row['rows']:,}"} for row in values["rows"]], columns)


def speeds(values: Values) -> dict[int, float]:
    """Beam width -> source characters a core translates in a second."""
    return {row["beams"]: row["characters_per_cpu_s"] for row in values["rows"] if row["replicas"] == 1}


TABLES: Mapping[str, Callable[[Values], str]] = {
    "quality": quality,
    "engine": engine,
    "peers": peers,
    "scaling": scaling,
    "load": load_test,
    "replicas": replicas,
    "multi30k": multi30k,
    "marian": marian,
    "overhead": overhead,
    "batch": batch,
    "batch_memory": batch_memory,
    "out_of_core": out_of_core,
    "training": training,
}


def rendered(values: Values) -> str:
    """The table of one result, with the command and the machine below it.

    Raises:
        ValueError: it was measured with --quick, or not to its end. KeyError: something is not in it.
    """
    if "--quick" in values["command"].split() or not values.get("complete", True):
        raise ValueError("measured with --quick, or not to its end")
    machine = values["machine"]
    flags = ", ".join(machine["flags"])
    where = f"{machine['cores']} cores of {machine['cpu']} ({flags})"
    table = TABLES[values["benchmark"]](values)
    return f"{table}\n\n`{values['command']}`, {values['date']}, {where}.\n"


def updated(text: str, results: Path) -> str:
    """``text`` with every table anew.

    Raises:
        ValueError: a place names a result that is not there or cannot be used, or a place has no end.
    """
    begun, ended, places = text.count("<!-- table:"), text.count("<!-- end -->"), len(PLACE.findall(text))
    if not begun == ended == places:
        raise ValueError(f"{begun} tables begin and {ended} end, which makes {places} places for tables")

    def replace(place: re.Match[str]) -> str:
        path = results / f"{place['name']}.json"
        if not path.exists():
            raise ValueError(f"a page wants the table {place['name']!r}, but there is no {path.name}")
        try:
            return f"{place[1]}\n{rendered(load(path))}\n{place[4]}"
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"no table can be made of {path.name}: {type(error).__name__}: {error}") from error

    return PLACE.sub(replace, text)


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    arguments.add_argument("--check", action="store_true", help="change nothing; fail where a table is out of date")
    given = arguments.parse_args()
    old = {page: page.read_text(encoding="utf-8") for page in PAGES}
    new: dict[Path, str] = {}
    for page, text in old.items():  # all of them before one is written
        try:
            new[page] = updated(text, RESULTS)
        except ValueError as error:
            sys.exit(f"{page.name}: {error}")
    if given.check:
        outdated = [page.name for page in PAGES if old[page] != new[page]]
        print(f"out of date: {', '.join(outdated)}" if outdated else "every table is current")
        return int(bool(outdated))
    for page, text in new.items():
        page.write_text(text, encoding="utf-8")
        print(f"{len(PLACE.findall(text))} tables in {page.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
