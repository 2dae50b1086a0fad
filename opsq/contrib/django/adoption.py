"""Tables of packages whose place opsq takes: made where there are none, taken as they are where they exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.core.management import CommandError
from django.db import router
from django.db.migrations.operations.base import Operation
from django.db.migrations.recorder import MigrationRecorder
from django.db.migrations.state import ProjectState


class AdoptTables(Operation):
    """Make the tables of these (unmanaged) models as the package `owner` makes them, if there are none.

    Then `migrations`, the names of that package's own, are noted as done, so that it takes the tables over as they are
    when it comes back. No table that exists is touched, none is ever dropped.
    """

    reversible = True
    reduces_to_sql = False

    def __init__(self, owner: str, models: Sequence[str], migrations: Sequence[str]) -> None:
        self.owner, self.models, self.migrations = owner, models, migrations

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """The models are what they were."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: ProjectState) -> None:  # noqa: ARG002
        """Make what is not there. Raises CommandError when a table is older than the models."""
        if apps.is_installed(self.owner):
            return  # its own migrations see to them
        connection = schema_editor.connection
        if not router.allow_migrate(connection.alias, app_label):
            return
        with connection.cursor() as cursor:
            there = set(connection.introspection.table_names(cursor))
        found = [to_state.apps.get_model(app_label, name) for name in self.models]
        missing = [model for model in found if model._meta.db_table not in there]
        for model in found:
            if model in missing:
                model._meta.managed = True  # of this state's model: else its indexes were left out
                schema_editor.create_model(model)
            else:
                self._check(connection, model)
        if len(missing) == len(found):
            recorder = MigrationRecorder(connection)
            recorder.ensure_schema()
            done = set(recorder.applied_migrations())
            for name in self.migrations:
                if (self.owner, name) not in done:
                    recorder.record_applied(self.owner, name)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """What is in the tables stays."""

    def describe(self) -> str:
        """For `migrate --plan`."""
        return f"Make the tables of {self.owner} where there are none"

    def _check(self, connection: Any, model: Any) -> None:
        table = model._meta.db_table
        with connection.cursor() as cursor:
            there = {column.name for column in connection.introspection.get_table_description(cursor, table)}
        lacking = sorted({field.column for field in model._meta.local_fields} - there)
        if lacking:
            raise CommandError(
                f"cannot take over the table {table}: it is of an older {self.owner}, it has no {', '.join(lacking)}\n"
                f"hint: bring it up to date first: the newest {self.owner} in INSTALLED_APPS, then manage.py migrate"
            )
