"""papermill's engine, as runs use it. Imported late: papermill takes most of a second."""

from __future__ import annotations

from typing import Any

from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines

NAME = "gmv"
_SAVED_EVERY_SECONDS = 2


class Engine(NBClientEngine):
    """papermill's own, which saves the notebook before and after each cell, but not as often."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, *args: Any, **options: Any) -> None:
        """Execute the notebook of `nb_man`; papermill saves it once more then, however it ended."""
        save = nb_man.save

        def save_now_and_then(**changed: Any) -> None:
            if (nb_man.now() - nb_man.last_save_time).total_seconds() >= _SAVED_EVERY_SECONDS:
                save(**changed)

        nb_man.save = save_now_and_then
        try:
            super().execute_managed_notebook(nb_man, *args, **options)
        finally:
            nb_man.save = save


papermill_engines.register(NAME, Engine)
