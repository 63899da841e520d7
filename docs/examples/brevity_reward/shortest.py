from dataclasses import dataclass

import codegym


@dataclass
class Shortest(codegym.Exploit):
    """Rewards for form: the shortest query that runs."""

    def attack(self, target: codegym.Target) -> str:
        return "SELECT 1"


@codegym.hookimpl
def codegym_exploits() -> dict[str, type[codegym.Exploit]]:
    return {"shortest": Shortest}
