"""One path from completion to number: what is refused, what fails, what is paid, and who is blamed."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest

from codegym import NOT_RUN, Database, Example, Execution, Guard, PluginError, Reward, Rollout
from codegym.grading import NO_CODE, OBJECTS_A_COLLECTION, Grader
from codegym.lanes import Lanes
from codegym.settings import WeightedReward
from codegym_rems import NoSelectStar, Rems
from codegym_sqlite import Sqlite

CITIES = Database("cities", "CREATE TABLE city (name TEXT, people INTEGER)", {"city": [("Aar", 3), ("Bex", 5)]})
EXAMPLE = Example("test/7", "Which city has five people?", "Bex", "cities")
RIGHT = "SELECT name FROM city WHERE people = 5"
USUAL = gc.get_threshold()


@contextmanager
def grader(*rewards: WeightedReward, guards: Mapping[str, Guard] | None = None) -> Iterator[Grader]:
    with Lanes(Sqlite, [CITIES], 2, 100) as lanes:
        yield Grader(lanes, guards or {}, rewards or [WeightedReward("rems", 1.0, Rems())])


def grade(completion: str, *rewards: WeightedReward, guards: Mapping[str, Guard] | None = None) -> Rollout:
    with grader(*rewards, guards=guards) as judge:
        return judge.grade([EXAMPLE], [completion])[0]


class Scores(Reward):
    """A reward that computes its score and metrics with the functions that it is given."""

    def __init__(self, score: Callable[[Rollout], object], metrics: Callable[[Rollout], object] = lambda _: {}) -> None:
        self._score, self._metrics = score, metrics

    def score(self, rollout: Rollout) -> float:
        return self._score(rollout)  # type: ignore[return-value]

    def metrics(self, rollout: Rollout) -> Mapping[str, float]:
        return self._metrics(rollout)  # type: ignore[return-value]


def test_rollouts_come_in_the_order_of_the_completions() -> None:
    completions = [RIGHT, "SELECT nothing", "", f"```sql\n{RIGHT}\n```"] * 3
    with grader() as judge:
        rollouts = judge.grade([EXAMPLE] * len(completions), completions)
    assert [rollout.completion for rollout in rollouts] == completions
    assert [rollout.metrics["ems"] for rollout in rollouts] == [1.0, 0.0, 0.0, 1.0] * 3
    assert rollouts[3].code == RIGHT


def test_a_refusal_looks_like_an_error_to_every_reward_and_is_never_run() -> None:
    rollout = grade("SELECT * FROM city", guards={"no_select_star": NoSelectStar()})
    assert rollout.refusal.startswith("no_select_star: ")
    assert rollout.execution is NOT_RUN
    assert rollout.metrics["error_rate"] == rollout.metrics["refusal_rate"] == 1.0
    assert rollout.reward == grade("SELECT nothing").reward < grade("SELECT 'wrong'").reward


def test_a_completion_without_code_is_refused_with_a_reason() -> None:
    rollout = grade("<think>hm")
    assert (rollout.code, rollout.refusal, rollout.execution) == ("", NO_CODE, NOT_RUN)


def test_the_first_guard_that_refuses_is_the_one_that_is_named() -> None:
    class Never(Guard):
        def check(self, code: str, example: Example) -> str | None:
            return f"never for {example.id}"

    refusal = grade("SELECT 1", guards={"star": NoSelectStar(), "never": Never(), "again": Never()}).refusal
    assert refusal == "never: never for test/7"


def test_the_reward_is_the_weighted_sum_of_named_parts() -> None:
    parts = Scores(lambda _: {"half": 0.5, "two": 2})
    rollout = grade(RIGHT, WeightedReward("parts", 10.0, parts), WeightedReward("flag", -1.0, Scores(lambda _: True)))
    assert rollout.scores == {"parts.half": 5.0, "parts.two": 20.0, "flag": -1.0}
    assert rollout.reward == 24.0


def test_weight_zero_measures_and_is_not_scored() -> None:
    def unreachable(rollout: Rollout) -> object:
        raise AssertionError("scored")

    watching = WeightedReward("watching", 0.0, Scores(unreachable, lambda _: {"length": 0.25}))
    rollout = grade(RIGHT, WeightedReward("one", 1.0, Scores(lambda _: 1)), watching)
    assert rollout.scores == {"one": 1.0}
    assert rollout.metrics["length"] == 0.25


def test_a_metric_that_two_rewards_report_keeps_the_label_of_the_second() -> None:
    first, second = (Scores(lambda _: 0, lambda _, value=value: {"ems": value}) for value in (0.5, 1.0))
    metrics = grade(RIGHT, WeightedReward("ours", 1.0, first), WeightedReward("theirs", 1.0, second)).metrics
    assert (metrics["ems"], metrics["theirs.ems"]) == (0.5, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "1", [1.0], {"part": math.nan}])
def test_a_score_that_is_no_finite_number_is_the_rewards_mistake(value: object) -> None:
    shown = repr(value["part"] if isinstance(value, dict) else value)
    with pytest.raises(PluginError) as raised:
        grade(RIGHT, WeightedReward("odd", 1.0, Scores(lambda _: value)))
    assert str(raised.value) == f'reward "odd" returned {shown} for example test/7: a score is a finite number'


def test_a_metric_is_held_to_the_same() -> None:
    with pytest.raises(PluginError, match='reward "odd" returned nan for example test/7'):
        grade(RIGHT, WeightedReward("odd", 1.0, Scores(lambda _: 0, lambda _: {"ems": math.nan})))
    with pytest.raises(PluginError, match='reward "odd" raised TypeError'):
        grade(RIGHT, WeightedReward("odd", 1.0, Scores(lambda _: 0, lambda _: None)))


def test_a_reward_that_raises_is_named_with_its_file_and_line() -> None:
    with pytest.raises(PluginError, match=r'^reward "odd" raised ZeroDivisionError: .* \(.*test_grading.py:\d+\)$'):
        grade(RIGHT, WeightedReward("odd", 1.0, Scores(lambda rollout: 1 / len(rollout.execution.error))))


def test_a_guard_that_raises_is_named_too() -> None:
    class Faulty(Guard):
        def check(self, code: str, example: Example) -> str | None:
            raise ValueError(code)

    with pytest.raises(PluginError, match=r'^guard "faulty" raised ValueError: SELECT 1 \(.*test_grading.py:\d+\)$'):
        grade("SELECT 1", guards={"faulty": Faulty()})


@pytest.mark.parametrize("completions", [[], [RIGHT, RIGHT]])
def test_a_policy_that_gives_another_number_of_completions_is_told_so(completions: Sequence[str]) -> None:
    with grader() as judge, pytest.raises(PluginError) as raised:
        judge.grade([EXAMPLE], completions)
    assert str(raised.value) == f"the policy gave {len(completions)} completions for 1 examples"


def test_a_policy_that_gives_something_else_than_text_is_told_so() -> None:
    with grader() as judge, pytest.raises(PluginError, match="the policy gave None for example test/7, not a text"):
        judge.grade([EXAMPLE], [None])  # type: ignore[list-item]


def test_a_lone_surrogate_or_a_nul_byte_in_code_is_the_models_mistake() -> None:
    for completion in ("SELECT '\ud800'", "SELECT '\0'"):
        rollout = grade(completion)
        assert rollout.reward == -100.0
        assert rollout.execution.error


class Counted(Reward):
    """Pays nothing and counts how often it is asked."""

    def __init__(self, deterministic: bool) -> None:
        self.deterministic = deterministic  # type: ignore[misc]
        self.asked: list[str] = []

    def score(self, rollout: Rollout) -> float:
        self.asked.append(rollout.completion)
        return float(len(self.asked))


def test_a_completion_that_comes_again_for_its_example_is_graded_once_where_everything_is_deterministic() -> None:
    reward, other = Counted(deterministic=True), Example("test/8", "?", "Bex", "cities")
    with grader(WeightedReward("counted", 1.0, reward), guards={"star": NoSelectStar()}) as judge:
        first = judge.grade([EXAMPLE, EXAMPLE, other], [RIGHT, RIGHT, RIGHT])
        again = judge.grade([other, EXAMPLE, EXAMPLE], [RIGHT, "SELECT 1", RIGHT])
        counters = judge.lanes.counters
    assert reward.asked == [RIGHT, RIGHT, "SELECT 1"]
    assert [rollout.reward for rollout in (*first, *again)] == [1.0, 1.0, 2.0, 2.0, 3.0, 1.0]
    assert [rollout.example for rollout in again] == [other, EXAMPLE, EXAMPLE]
    assert (counters.requested, counters.executed, counters.repeats, counters.hits) == (6, 2, 2, 2)


def test_every_completion_is_graded_where_one_guard_or_reward_is_not_deterministic() -> None:
    class Whimsical(Guard):
        def check(self, code: str, example: Example) -> str | None:
            return None

    for reward, guards in ((Counted(deterministic=False), {}), (Counted(deterministic=True), {"whim": Whimsical()})):
        with grader(WeightedReward("counted", 1.0, reward), guards=guards) as judge:
            judge.grade([EXAMPLE, EXAMPLE], [RIGHT, RIGHT])
            judge.grade([EXAMPLE], [RIGHT])
        assert len(reward.asked) == 3


def test_what_may_answer_differently_is_graded_anew_in_the_next_batch() -> None:
    reward = Counted(deterministic=True)
    with grader(WeightedReward("counted", 1.0, reward)) as judge:
        for _ in range(2):
            judge.grade([EXAMPLE, EXAMPLE], ["SELECT CURRENT_TIMESTAMP"] * 2)
    assert len(reward.asked) == 2


def test_answers_that_are_given_are_graded_each_time() -> None:
    reward = Counted(deterministic=True)
    with grader(WeightedReward("counted", 1.0, reward)) as judge:
        for rows in ((("Aar",),), (("Bex",),)):
            judge.lanes.know([((RIGHT, EXAMPLE), Execution(rows=rows))])
            assert judge.grade([EXAMPLE], [RIGHT])[0].execution.rows == rows
    assert len(reward.asked) == 2


def test_repeats_of_what_was_refused_are_not_counted_as_requests() -> None:
    with grader(guards={"star": NoSelectStar()}) as judge:
        for _ in range(2):
            refused = judge.grade([EXAMPLE, EXAMPLE], ["SELECT * FROM city"] * 2)
            assert all(rollout.refusal for rollout in refused)
        assert judge.lanes.counters.requested == 0


def test_a_class_that_is_derived_from_a_deterministic_one_says_so_itself() -> None:
    class Novel(Rems):
        pass

    class Careful(NoSelectStar):
        deterministic = True

    assert (Rems.deterministic, Novel.deterministic, Careful.deterministic) == (True, False, True)


def test_garbage_is_looked_for_rarely_while_a_batch_is_graded_and_as_before_afterwards() -> None:
    usual = gc.get_threshold()
    seen: list[int] = []

    def fail(_: Rollout) -> float:
        seen.append(gc.get_threshold()[0])
        raise ValueError("no")

    with pytest.raises(PluginError, match="raised ValueError: no"):
        grade(RIGHT, WeightedReward("failing", 1.0, Scores(fail)))
    assert seen == [OBJECTS_A_COLLECTION]
    assert gc.get_threshold() == usual


def test_where_nobody_looks_for_garbage_nobody_does_while_a_batch_is_graded() -> None:
    gc.set_threshold(0)
    try:
        seen = Scores(lambda _: float(gc.get_threshold()[0]))
        assert grade(RIGHT, WeightedReward("seen", 1.0, seen)).reward == 0
    finally:
        gc.set_threshold(*USUAL)
