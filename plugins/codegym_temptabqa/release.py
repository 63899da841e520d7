"""Load TEMPTABQA-C as it was released: questions, dirty answers and the two databases rebuilt from its infoboxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from codegym import ConfigError, Database, Dataset, Entity, Example, Finding
from codegym_temptabqa.databases import build_database, infoboxes
from codegym_temptabqa.files import EXTRA_FILES, FILES, find_folder, read_rows
from codegym_temptabqa.parse import parse
from codegym_temptabqa.prompts import DEFAULT_PROMPT, DEFAULT_SYSTEM, build_prompt

Rows = tuple[dict[str, str], ...]
COUNTERFACTUAL = "counterfactual"


@dataclass
class Temptabqa(Dataset):
    """TEMPTABQA-C: questions about athletes' medals, their answers, and two databases to ask.

    Splits: `train`, `dev`, `original`, `counterfactual`, `easy`, `medium`, `hard`, and `large_table` and `small_table`
    if their files are there. Example ids are `<split>/<row>`, rows counted from 0 in the file.

    `root` is the folder of the release; by default `$CODEGYM_DATA/temptabqa-c`, then the user's cache folder.
    `prompt` is the template of the prompt, with `{schema}` and `{question}`. `chat` makes the prompt chat messages,
    `system` (empty for none) and then the template's text. `drop_dev_seen_in_train` leaves out the questions of `dev`
    that also stand in `train`. `check_counts` refuses a file with another number of rows than the release's.
    """

    root: Path = Path()
    prompt: str = DEFAULT_PROMPT
    chat: bool = False
    system: str = DEFAULT_SYSTEM
    drop_dev_seen_in_train: bool = True
    check_counts: bool = True

    @property
    def folder(self) -> Path:
        """The folder of the release."""
        return find_folder(self.root)

    def splits(self) -> Sequence[str]:
        """Return the splits of the release, and the two that may be there if they are."""
        return [*FILES, *(split for split, file in EXTRA_FILES.items() if (self.folder / file.path).exists())]

    def load(self, split: str) -> list[Example]:
        """Return the examples of one split, in the file's order and with its answers as they stand there."""
        examples = [self._example(split, number, row) for number, row in enumerate(self.rows(split))]
        if split != "dev" or not self.drop_dev_seen_in_train:
            return examples
        seen = {row["Questions"] for row in self.rows("train")}
        return [example for example in examples if example.metadata["question"] not in seen]

    def databases(self) -> list[Database]:
        """Return `original`, from the infoboxes of all splits but one, and `counterfactual`, from that one's."""
        return [build_database(name, infoboxes(contexts)[0]) for name, contexts in self.contexts().items()]

    def entity(self, example: Example) -> Entity | None:
        """Return the athlete of the question's infobox, None if it could not be read."""
        athlete = example.metadata["athlete"]
        return Entity("athlete", "name", athlete) if athlete else None

    def findings(self) -> Iterator[Finding]:
        """Yield what stands in the release: counts, repetitions, dirty answers, and what no parser can read."""
        from codegym_temptabqa.findings import describe

        yield from describe(self)

    def fetch(self) -> str:
        """Download the release into its folder, if it is not there, and return a sentence that says where it is."""
        from codegym_temptabqa.fetch import fetch

        return fetch(self.folder)

    def rows(self, split: str) -> Rows:
        """Return the rows of one split's file; raise `ConfigError` if they are not those of the release."""
        file = {**FILES, **EXTRA_FILES}.get(split)
        if not file:
            raise ConfigError(f"temptabqa: no split {split!r}; there are {', '.join(self.splits())}")
        rows = read_rows(self.folder, file)
        if self.check_counts and len(rows) != file.rows:
            raise ConfigError(
                f"temptabqa: {self.folder / file.path} has {len(rows)} rows, the release's {split} has {file.rows}. "
                "Type `codegym fetch temptabqa` for the release, or set `check_counts = false` to load it as it is"
            )
        return rows

    def contexts(self) -> dict[str, tuple[str, ...]]:
        """Return by database the different infobox texts it is built from, in the order of the files."""
        by_database: dict[str, dict[str, None]] = {"original": {}, COUNTERFACTUAL: {}}
        for split in self.splits():
            by_database[_database(split)].update((row["Context"], None) for row in self.rows(split))
        return {name: tuple(contexts) for name, contexts in by_database.items()}

    def _example(self, split: str, number: int, row: dict[str, str]) -> Example:
        metadata = {"question": row["Questions"], "kind": row["Types"], "athlete": _athlete(row["Context"])}
        prompt = build_prompt(self.prompt, row["Questions"], self.chat, self.system)
        return Example(f"{split}/{number}", prompt, row["Answers"], _database(split), metadata)


def _database(split: str) -> str:
    return COUNTERFACTUAL if split == COUNTERFACTUAL else "original"


@lru_cache(maxsize=4096)
def _athlete(context: str) -> str:
    infobox, _ = parse(context)
    return infobox.athlete if infobox else ""
