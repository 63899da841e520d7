"""Try backends with what models write: a hostile corpus, a database to run it on, a kit of tests for plugin authors.

A plugin's author derives a class of tests from the kit, which brings its sentences and the hostile items:

    from codegym.testing.kit import BackendKit

    class TestMine(BackendKit):
        engine = "mine"  # an engine of the corpus whose own items run too, or nothing

        def new_backend(self) -> codegym.Backend:
            return Mine(time_limit=0.5)

A backend that runs no SQL overrides `databases`, `right`, `mistaken`, `example` and `items`.

Only `codegym.testing.kit` needs pytest. `corpus(engine)` gives the items, `games()` the database they run on, and
`examine(backend, item)` tries one; `codegym check FILE --hostile` does so with the backend of a run file.
"""

from codegym.testing.examining import Outcome, examine
from codegym.testing.example_database import games
from codegym.testing.items import CLASSES, Item, corpus, engines

__all__ = ["CLASSES", "Item", "Outcome", "corpus", "engines", "examine", "games"]
