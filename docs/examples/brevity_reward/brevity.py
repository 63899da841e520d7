from dataclasses import dataclass

import codegym


@dataclass
class Brevity(codegym.Reward):
    """One point for code that runs and has at most `limit` characters."""

    limit: int = 80

    def score(self, rollout: codegym.Rollout) -> float:
        return float(rollout.execution.ok and len(rollout.code) <= self.limit)


@codegym.hookimpl
def codegym_rewards() -> dict[str, type[codegym.Reward]]:
    return {"brevity": Brevity}
