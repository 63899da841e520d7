"""TEMPTABQA-C: its infoboxes, its databases, its questions and how it is fetched."""

import csv
import dataclasses
import hashlib
import os
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from codegym import ConfigError, Database, Entity
from codegym_temptabqa import codegym_datasets
from codegym_temptabqa.databases import build_database, infoboxes
from codegym_temptabqa.fetch import fetch
from codegym_temptabqa.files import EXTRA_FILES, FILES, ReleaseFile
from codegym_temptabqa.parse import Medal, parse
from codegym_temptabqa.release import Temptabqa

SHARED = next(
    (
        folder
        for folder in (
            Path(os.environ.get("CODEGYM_DATA", "")) / "temptabqa-c",
            Path(__file__).parents[3] / "shared" / "temptabqa-c",
        )
        if folder.is_dir()
    ),
    Path("no-such-folder"),
)
needs_release = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the release is neither in ../shared/temptabqa-c nor in $CODEGYM_DATA/temptabqa-c"
)

INFOBOX = """Ida Quill

Personal Information
Birth Date
1990-4-05\t

Birth Place
Port Ember, North Ova\t

Height

Country Representing: OVA
River Games
4x100 m relay\tMedalGold | 2012 | Port Ember, North Ova, MedalBronze | 2016 | Lund
Team \tMedalSilver | 2014 | Brevik

Lantern Cup (SC)
68 kg | open\tMedalGold | 2015 | Brevik

"""


def medals_of(context):
    infobox, _ = parse(context)
    return {
        (tournament, name): [(medal.type, medal.year, medal.location) for medal in medals]
        for tournament, formats in infobox.tournaments.items()
        for name, medals in formats.items()
    }


def problems_of(context):
    return [(problem.reason, problem.text) for problem in parse(context)[1]]


def test_an_infobox_becomes_an_athlete_a_birth_date_tournaments_formats_and_medals():
    infobox, problems = parse(INFOBOX)
    assert (infobox.athlete, infobox.birth, problems) == ("Ida Quill", (1990, 4, 5), [])
    assert medals_of(INFOBOX) == {
        ("River Games", "4x100 m relay"): [("Gold", 2012, "Port Ember, North Ova"), ("Bronze", 2016, "Lund")],
        ("River Games", "Team"): [("Silver", 2014, "Brevik")],
        ("Lantern Cup (SC)", "68 kg | open"): [("Gold", 2015, "Brevik")],
    }


def test_the_parts_of_an_infobox_may_come_in_either_order():
    name, personal, medals = INFOBOX.partition("Personal")[0], "Personal Information\nBirth Date\n1990-4-05\t", INFOBOX
    turned = f"{name}{medals[medals.index('Country') :]}{personal}\n"
    assert parse(turned) == parse(INFOBOX)


def test_carriage_returns_and_hard_spaces_change_nothing():
    assert parse(INFOBOX.replace("\n", "\r\n").replace("River Games", "River\xa0Games")) == parse(INFOBOX)


def test_formats_that_differ_in_a_trailing_blank_are_one():
    context = "Ida Quill\n\nCountry Representing: OVA\nRiver Games\nTeam\tMedalGold | 2010 | Lund\n"
    context += "Team \tMedalGold | 2010 | Lund, MedalSilver | 2011 | Oss\n"
    assert medals_of(context) == {
        ("River Games", "Team"): [("Gold", 2010, "Lund"), ("Gold", 2010, "Lund"), ("Silver", 2011, "Oss")]
    }


def test_a_tournament_under_two_countries_is_one():
    context = INFOBOX + "Country Representing: EST\nRiver Games\nTeam\tMedalGold | 2018 | Lund\n"
    assert medals_of(context)["River Games", "Team"] == [("Silver", 2014, "Brevik"), ("Gold", 2018, "Lund")]


def test_two_infoboxes_of_one_athlete_are_united_without_doubling_medals():
    later = INFOBOX.replace("MedalSilver | 2014 | Brevik", "MedalSilver | 2014 | Brevik, MedalGold | 2022 | Oss")
    (infobox,), problems = infoboxes([INFOBOX, later, INFOBOX])
    assert infobox.tournaments["River Games"]["Team"] == [Medal("Silver", 2014, "Brevik"), Medal("Gold", 2022, "Oss")]
    assert sum(len(medals) for formats in infobox.tournaments.values() for medals in formats.values()) == 5
    assert problems == []


@pytest.mark.parametrize(
    ("line", "problem", "medals"),
    [
        ("Team\tMedalGold | 1400 | Lund", ("a medal with an impossible year", "MedalGold | 1400 | Lund"), 1),
        ("Team\tMedalGold | 2001 | m crawl", ("a medal with a distance for a city", "MedalGold | 2001 | m crawl"), 1),
        ("Team\tMedalGold | 2001 | ", ("a medal without a city", "MedalGold | 2001 |"), 1),
        ("Team\tMedalGold |  | Lund", ("a medal without a year", "MedalGold |  | Lund"), 1),
        ("Team\tMedalGold | 2001 | Lund, MedalSil", ("a medal that cannot be read", "MedalSil"), 1),
        ("Team\tMedalTin | 2001 | Lund", ("a medal that cannot be read", "MedalTin | 2001 | Lund"), 0),
        ("Team \t", ("a format without medals", "Hill Cup, Team"), 0),
        ("", ("a tournament without formats", "Hill Cup"), None),
    ],
)
def test_what_cannot_be_read_is_told_with_its_reason(line, problem, medals):
    context = f"{INFOBOX}Hill Cup\n{line}\n"
    assert problem in problems_of(context)
    found = medals_of(context).get(("Hill Cup", "Team"))
    assert (None if found is None else len(found)) == medals


def test_a_line_of_medals_without_a_tournament_is_told():
    context = "Ida Quill\n\nCountry Representing: OVA\nTeam\tMedalGold | 2001 | Lund\n"
    assert problems_of(context)[0] == ("formats without a tournament", "Team\tMedalGold | 2001 | Lund")


def test_an_athlete_without_a_birth_date_or_medals_is_told():
    infobox, problems = parse("Ida Quill\n\nPersonal Information\nBirth Date\n\nBirth Place\nLund\t\n")
    assert infobox.birth is None
    assert [problem.reason for problem in problems] == ["an athlete without a birth date", "an athlete without medals"]


@pytest.mark.parametrize("context", ["", "\n", "Nothing here", "Nothing here\n\nOr here"])
def test_a_text_that_is_no_infobox_is_no_athlete(context):
    infobox, problems = parse(context)
    assert infobox is None
    assert [problem.reason for problem in problems] == ["a row without an infobox"]


def open_sqlite(database: Database) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(database.schema)
    for table, rows in database.tables.items():
        if rows:
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    return connection


def test_a_database_counts_its_ids_from_one_and_holds_its_foreign_keys():
    boxes, _ = infoboxes([INFOBOX, INFOBOX.replace("Ida Quill", "Bo Tarn").replace("1990-4-05\t", "")])
    database = build_database("original", boxes)
    assert database.tables["athlete"] == [(1, "Ida Quill"), (2, "Bo Tarn")]
    assert database.tables["personalinformation"] == [(1, 1, 1990, 4, 5)]
    assert database.tables["tournament"][2] == (3, 2, "River Games")
    assert database.tables["medal"][0] == (1, 1, "Gold", 2012, "Port Ember, North Ova")
    open_sqlite(database)
    assert database.fingerprint == build_database("original", boxes).fingerprint


@pytest.fixture
def small_release(tmp_path):
    """A release of the right layout with two or three invented rows in each file."""

    def write(split_file: ReleaseFile, questions):
        path = tmp_path / "temptabqa-c" / split_file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(["Types", "Questions", "Answers", "Context"])
            writer.writerows(["13", question, " 2", INFOBOX] for question in questions)

    for split, file in FILES.items():
        write(file, ["in both", "in both", f"only in {split}"])
    write(EXTRA_FILES["large_table"], ["extra"])
    return tmp_path / "temptabqa-c"


def test_a_file_with_another_number_of_rows_is_refused_unless_told_otherwise(small_release):
    with pytest.raises(ConfigError) as caught:
        Temptabqa(root=small_release).load("easy")
    path = small_release / "Test_Dataset_with_Splits" / "Easy.tsv"
    assert str(caught.value) == (
        f"temptabqa: {path} has 3 rows, the release's easy has 732. Type `codegym fetch temptabqa` for the release, "
        "or set `check_counts = false` to load it as it is"
    )
    assert len(Temptabqa(root=small_release, check_counts=False).load("easy")) == 3


def test_a_dev_question_of_train_is_dropped_and_the_others_keep_their_ids(small_release):
    dataset = Temptabqa(root=small_release, check_counts=False)
    assert [example.id for example in dataset.load("dev")] == ["dev/2"]
    kept = dataclasses.replace(dataset, drop_dev_seen_in_train=False)
    assert [example.id for example in kept.load("dev")] == ["dev/0", "dev/1", "dev/2"]
    assert [example.id for example in dataset.load("train")] == ["train/0", "train/1", "train/2"]


def test_an_example_holds_the_question_and_the_answer_as_they_stand_in_the_file(small_release):
    dataset = Temptabqa(root=small_release, check_counts=False)
    example = dataset.load("counterfactual")[2]
    assert example.answer == " 2"
    assert example.database == "counterfactual"
    assert example.metadata == {"question": "only in counterfactual", "kind": "13", "athlete": "Ida Quill"}
    assert "CREATE TABLE medal" in example.prompt
    assert "CREATE INDEX" not in example.prompt
    assert example.prompt.endswith("### Question\nonly in counterfactual\n\n### SQL\n")
    assert dataset.load("hard")[0].database == "original"


def test_a_question_is_about_the_athlete_of_its_infobox_if_that_can_be_read(small_release):
    dataset = Temptabqa(root=small_release, check_counts=False)
    example = dataset.load("hard")[0]
    assert dataset.entity(example) == Entity("athlete", "name", "Ida Quill")
    assert dataset.entity(dataclasses.replace(example, metadata={**example.metadata, "athlete": ""})) is None


def test_a_prompt_may_hold_other_braces_and_be_chat_messages(small_release):
    dataset = Temptabqa(root=small_release, check_counts=False, prompt='{"q": "{question}"} {x}', chat=True)
    system, user = dataset.load("hard")[0].prompt
    assert system == {"role": "system", "content": dataset.system}
    assert user == {"role": "user", "content": '{"q": "in both"} {x}'}
    assert len(dataclasses.replace(dataset, system="").load("hard")[0].prompt) == 1


def test_a_prompt_without_the_question_is_an_error(small_release):
    dataset = Temptabqa(root=small_release, check_counts=False, prompt="Write SQL.")
    errors = [finding.text for finding in dataset.findings() if finding.level == "error"]
    assert errors == ["temptabqa: the setting `prompt` has no {question}"]


def test_the_two_extra_files_are_splits_when_they_are_there(small_release):
    dataset = Temptabqa(root=small_release, check_counts=False)
    assert [*FILES, "large_table"] == dataset.splits()
    assert dataset.load("large_table")[0].id == "large_table/0"


def test_an_unknown_split_names_those_there_are(small_release):
    with pytest.raises(ConfigError, match="no split 'test'; there are train, dev, original, counterfactual, easy, "):
        Temptabqa(root=small_release).load("test")


def test_a_file_without_its_columns_is_refused(small_release):
    path = small_release / "Dev_set" / "dev_set.tsv"
    path.write_text("Questions\tAnswer\nq\ta\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has no column Answers, Context, Types; expected Questions, Answers"):
        Temptabqa(root=small_release, check_counts=False).load("dev")


def test_missing_data_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setenv("CODEGYM_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    advice = (
        "Type `codegym fetch temptabqa`, or set `root` in the table [dataset] to the folder of the release, "
        "or the environment variable CODEGYM_DATA to the folder that holds temptabqa-c"
    )
    with pytest.raises(ConfigError) as caught:
        Temptabqa().load("train")
    assert str(caught.value) == f"temptabqa: the release is not in {tmp_path / 'temptabqa-c'}. {advice}"
    findings = [(finding.level, finding.text) for finding in Temptabqa().findings()]
    assert findings == [("error", str(caught.value))]
    with pytest.raises(ConfigError, match=r"train_set\.tsv is not there\. Type `codegym fetch temptabqa`"):
        Temptabqa(root=tmp_path).load("train")


def test_the_folder_is_root_then_codegym_data_then_the_cache(tmp_path, monkeypatch, small_release):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CODEGYM_DATA", str(tmp_path))
    assert Temptabqa().folder == small_release
    assert Temptabqa(root=tmp_path).folder == tmp_path
    monkeypatch.delenv("CODEGYM_DATA")
    assert Temptabqa().folder == tmp_path / "cache" / "codegym" / "temptabqa-c"


def test_the_datasets_are_registered_by_name():
    assert codegym_datasets()["temptabqa"] is Temptabqa
    assert set(codegym_datasets()) == {"temptabqa", "temptabqa_sample", "temptabqa_pairs"}


@pytest.fixture
def repository(tmp_path, small_release):
    """A git repository that holds the small release and a file that nobody asked for."""
    (small_release / "LICENSE").write_text("Do as you like.\n")
    (small_release / "notes.txt").write_text("not part of it\n")
    return commit_all(small_release)


def commit_all(folder: Path) -> Path:
    for command in ("init --quiet", "add .", "-c user.name=a -c user.email=a@b.c commit --quiet -m all"):
        subprocess.run(["git", "-C", str(folder), *command.split()], check=True)
    return folder


def checksums(folder: Path) -> dict[str, ReleaseFile]:
    return {
        split: dataclasses.replace(file, sha256=hashlib.sha256((folder / file.path).read_bytes()).hexdigest())
        for split, file in FILES.items()
    }


def test_fetching_brings_the_files_their_license_and_nothing_else(tmp_path, repository):
    destination = tmp_path / "new" / "temptabqa-c"
    sentence = fetch(destination, str(repository), "HEAD", checksums(repository))
    assert sentence == f"The release (commit HEAD) is in {destination}; its 7 files have the right checksums."
    expected = {file.path for file in FILES.values()} | {"LICENSE", EXTRA_FILES["large_table"].path}
    assert {str(path.relative_to(destination)) for path in destination.rglob("*") if path.is_file()} == expected
    assert [path.name for path in destination.parent.iterdir()] == ["temptabqa-c"]


def test_fetching_twice_downloads_once(tmp_path, repository):
    files = checksums(repository)
    fetch(tmp_path / "copy", str(repository), "HEAD", files)
    sentence = fetch(tmp_path / "copy", str(tmp_path / "gone"), "HEAD", files)
    assert sentence == f"The release is already in {tmp_path / 'copy'}."


def test_a_file_with_another_checksum_is_refused_and_nothing_is_left_behind(tmp_path, repository):
    destination = tmp_path / "new" / "temptabqa-c"
    files = checksums(repository)
    files["dev"] = dataclasses.replace(files["dev"], sha256="0" * 64)
    files["easy"] = dataclasses.replace(files["easy"], path="Easy.tsv")
    with pytest.raises(ConfigError) as caught:
        fetch(destination, str(repository), "HEAD", files)
    reason = f"commit HEAD of {repository} is not the release"
    dev, easy = caught.value.problems
    assert dev.startswith("temptabqa: Dev_set/dev_set.tsv has SHA-256 ")
    assert dev.endswith(f", expected {'0' * 64}: {reason}")
    assert easy.startswith("temptabqa: Easy.tsv is missing from ")
    assert list(destination.parent.iterdir()) == []


def test_a_folder_with_other_files_is_left_alone(tmp_path, repository):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not lose me")
    with pytest.raises(ConfigError, match=r"train_set\.tsv is missing from .*mine: move .*mine away and fetch again"):
        fetch(tmp_path / "mine", str(repository), "HEAD", checksums(repository))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "do not lose me"


def test_a_repository_that_cannot_be_reached_is_the_users_to_mend(tmp_path):
    with pytest.raises(ConfigError, match=r"temptabqa: git clone failed: .*does not exist.*set `root` to a copy"):
        fetch(tmp_path / "copy", str(tmp_path / "no-repository"), "HEAD")


def test_a_commit_that_is_not_there_is_told(tmp_path, repository):
    with pytest.raises(ConfigError, match=r"temptabqa: git ls-tree failed: .*Not a valid object name 1234567"):
        fetch(tmp_path / "copy", str(repository), "1234567")


def test_a_missing_git_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="git is not installed; install it"):
        fetch(tmp_path / "copy", str(tmp_path))


def test_the_dataset_fetches_into_the_folder_that_it_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("CODEGYM_DATA", str(tmp_path))
    (tmp_path / "temptabqa-c").mkdir()
    (tmp_path / "temptabqa-c" / "thesis.txt").write_text("do not lose me")
    with pytest.raises(ConfigError, match=f"is missing from {tmp_path / 'temptabqa-c'}"):
        Temptabqa().fetch()
    with pytest.raises(ConfigError, match=f"is missing from {tmp_path}: move"):
        Temptabqa(root=tmp_path).fetch()


@needs_release
def test_the_release_loads_whole_in_two_seconds_with_the_published_counts():
    started = time.perf_counter()
    dataset = Temptabqa(root=SHARED, drop_dev_seen_in_train=False)
    counts = {split: len(list(dataset.load(split))) for split in FILES}
    dataset.databases()
    assert counts == {
        "train": 2961,
        "dev": 282,
        "original": 578,
        "counterfactual": 699,
        "easy": 732,
        "medium": 507,
        "hard": 719,
    }
    assert time.perf_counter() - started < 2
    assert len(Temptabqa(root=SHARED).load("dev")) == 282 - 109


@needs_release
def test_the_two_databases_have_the_documented_counts():
    counts = {
        database.name: {table: len(rows) for table, rows in database.tables.items()}
        for database in Temptabqa(root=SHARED).databases()
    }
    if any((SHARED / file.path).exists() for file in EXTRA_FILES.values()):
        pytest.skip("the two extra files are there too and may bring athletes of their own")
    assert counts == {
        "original": {"athlete": 423, "personalinformation": 399, "tournament": 2094, "format": 4175, "medal": 7446},
        "counterfactual": {
            "athlete": 234,
            "personalinformation": 216,
            "tournament": 1086,
            "format": 3461,
            "medal": 8742,
        },
    }


@needs_release
@pytest.mark.parametrize(
    ("kind", "words", "condition"),
    [
        ("13", ("How many International ", " Medals did ", " win throughout"), "medal.type = ? AND athlete.name = ?"),
        ("14", ("How many times has ", " won medals in ", " ?"), "athlete.name = ? AND tournament.name = ?"),
        ("52", ("How many International medals did ", " win in the  ", "  ?"), "athlete.name = ? AND medal.year = ?"),
    ],
)
def test_gold_counts_are_what_the_databases_say(kind, words, condition):
    dataset = Temptabqa(root=SHARED)
    connections = {database.name: open_sqlite(database) for database in dataset.databases()}
    query = (
        "SELECT COUNT(*) FROM medal JOIN format USING (format_id) JOIN tournament USING (tournament_id) "
        f"JOIN athlete USING (athlete_id) WHERE {condition}"
    )
    examples = [example for split in FILES for example in dataset.load(split) if example.metadata["kind"] == kind]
    agreeing = 0
    for example in examples:
        before, between, after = words
        first, second = example.metadata["question"].removeprefix(before).split(between)
        values = first, second[: second.index(after)].strip()
        agreeing += connections[example.database].execute(query, values).fetchone() == (int(example.answer),)
    assert len(examples) > 100
    assert agreeing >= len(examples) - 1, "one question of kind 14 names a tournament otherwise than its infobox"


@needs_release
def test_the_findings_count_the_dirt_of_the_release():
    findings = [(finding.level, finding.text.removeprefix("temptabqa: ")) for finding in Temptabqa(SHARED).findings()]
    assert ("warning", "questions that stand in their split already: train 185, dev 4, counterfactual 8") in findings
    assert (
        "note",
        "106 questions of dev (109 rows) also stand in train; they are left out, dev has 173 (drop_dev_seen_in_train)",
    ) in findings
    assert (
        "warning",
        "answers that begin with a blank: train 63, dev 6, original 11, counterfactual 10, easy 42",
    ) in findings
    assert any("a medal with an impossible year 63" in text for _, text in findings)
    assert not any(level == "error" for level, _ in findings)


@needs_release
def test_the_release_can_be_fetched_from_a_git_repository(tmp_path):
    for path in (*(file.path for file in FILES.values()), "LICENSE"):
        (tmp_path / "origin" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "origin" / path).write_bytes((SHARED / path).read_bytes())
    commit_all(tmp_path / "origin")
    fetch(tmp_path / "copy", str(tmp_path / "origin"), "HEAD")
    assert len(Temptabqa(root=tmp_path / "copy").load("train")) == 2961
