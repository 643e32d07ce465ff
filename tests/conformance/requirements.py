"""The clauses of the specification that a server must keep, and the test that proves each: `make conformance`.

`conformance/requirements.csv`: a row is a clause; `test` is `file::Class::function`, or empty where none proves it.
"""

import ast
import csv
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "conformance" / "requirements.csv"
COLUMNS = ["id", "link", "level", "test"]


@dataclass(frozen=True, slots=True)
class Requirement:
    """id: page and what it asks for; test: the name of a test, or empty.

    level: SHALL, SHALL NOT or SHOULD where the page says so, rule where it says what is done without such a word.
    """

    id: str
    link: str
    level: str
    test: str


def requirements() -> list[Requirement]:
    """All rows, in order. Raises ValueError when the columns are not COLUMNS."""
    with FILE.open(newline="") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames != COLUMNS:
            raise ValueError(f"{FILE.name} has the columns {', '.join(COLUMNS)}")
        return [Requirement(**row) for row in rows]


def exists(test: str) -> bool:
    """Whether there is a test of this name."""
    file, _, name = test.partition("::")
    return name in _tests(ROOT / file)


@cache
def _tests(file: Path) -> frozenset[str]:
    """The tests of a file: `Class::function` and `function`."""
    if not file.is_file():
        return frozenset()
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return frozenset(name for name in names if name.rpartition("::")[2].startswith("test_"))


def main() -> int:
    """Print what is not proven; 1 when a row names a test that is not there."""
    rows = requirements()
    open_rows = [row for row in rows if not row.test]
    broken = [row for row in rows if row.test and not exists(row.test)]
    lines = [f"no test     {row.id}  {row.link}" for row in open_rows]
    lines += [f"lost test   {row.id}  {row.test}" for row in broken]
    lines.append(f"{len(rows) - len(open_rows) - len(broken)} of {len(rows)} clauses have a test")
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
