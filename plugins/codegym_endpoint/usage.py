"""Count what a server's answers cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Usage:
    """Requests that were answered and their tokens; those of failed attempts are not known.

    Prices are for a million tokens. `cut_off` completions ended at `max_tokens`; `uncounted` answers came without the
    number of their tokens.
    """

    price_per_million_input: float = 0.0
    price_per_million_output: float = 0.0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cut_off: int = 0
    uncounted: int = 0

    @property
    def cost(self) -> float:
        """What the tokens cost, in the currency of the prices."""
        prices = self.input_tokens * self.price_per_million_input + self.output_tokens * self.price_per_million_output
        return prices / 1e6

    def __str__(self) -> str:
        parts = [f"{self.requests} requests", f"{self.input_tokens} tokens in", f"{self.output_tokens} tokens out"]
        if self.price_per_million_input or self.price_per_million_output:
            parts.append(f"cost {self.cost:.4f}")
        if self.cut_off:
            parts.append(f"{self.cut_off} completions cut off at max_tokens")
        if self.uncounted:
            parts.append(f"{self.uncounted} answers did not say their tokens")
        return ", ".join(parts)
