"""Put the tables of benchmarks/README.md anew from the JSON files in benchmarks/results.

    python -m benchmarks.tables
    python -m benchmarks.tables --check true

A table stands between `<!-- NAME -->` and `<!-- end -->`, NAME being a result file without its .json.
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import learning, load, startup, train
from benchmarks.record import RESULTS, table_of_rows
from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error


def answering_table(record: dict) -> str:
    """That of `benchmarks.evaluate`, which imports torch."""
    from benchmarks.evaluate import table_of

    return table_of(record["rows"])


def index_table(record: dict) -> str:
    """That of `benchmarks.index`, which imports torch."""
    from benchmarks.index import table

    return table(record)


PAGE = RESULTS.parent / "README.md"
PLACE = re.compile(r"<!-- (?P<name>[\w.-]+) -->\n.*?<!-- end -->", re.DOTALL)
TABLES: dict[str, Callable[[dict], str]] = {
    "train": train.table,
    "evaluate": answering_table,
    "load": load.table,
    "startup": startup.table,
    "learning": learning.table_of,
    "index": index_table,
    **dict.fromkeys(("padding", "memory", "waiting", "packing"), table_of_rows),
}
"""First word of a result's name -> its table."""


def rendered(name: str) -> str:
    """One table with how it was measured, or `Not measured.`; `UsageError` for a name of no known kind."""
    file = RESULTS / f"{name}.json"
    kind = re.split(r"[-_]", name)[0]
    if kind not in TABLES:
        raise UsageError(
            f"{PAGE.name} wants a table {name!r}; its name must begin with one of {', '.join(TABLES)}."
        )
    if not file.is_file():
        return f"<!-- {name} -->\nNot measured.\n<!-- end -->"
    record = json.loads(file.read_text(encoding="utf-8"))
    machine, versions = record["machine"], record["versions"]
    where = machine["gpu"] or f"{machine['processor']}, {record.get('threads') or machine['cores']} threads"
    packages = ", ".join(f"{package} {versions[package]}" for package in ("torch", "transformers"))
    source = f"`{record['command']}`\\\n{where}; {packages}; commit {record['commit']}, {record['date']}"
    return f"<!-- {name} -->\n{source}\n\n{TABLES[kind](record)}\n<!-- end -->"


def page_with_tables(text: str) -> str:
    """The page with all its tables rendered."""
    return PLACE.sub(lambda match: rendered(match["name"]), text)


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Render, or say that the page differs from the results."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--check", choices=("true", "false"), default="false", help="only compare")
    arguments = options.parse(argv)
    old = PAGE.read_text(encoding="utf-8")
    new = page_with_tables(old)
    if arguments.check == "true" and new != old:
        raise UsageError(f"{PAGE} has other tables than {RESULTS}; run python -m benchmarks.tables.")
    Path(PAGE).write_text(new, encoding="utf-8")
    sys.stdout.write(f"{len(PLACE.findall(new))} tables in {PAGE}\n")


if __name__ == "__main__":
    main()
