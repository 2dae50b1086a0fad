"""The admin's pages of schedules: edit, enable, disable, run now, and see when each runs next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.utils import timezone
from django.utils.html import format_html, format_html_join

from opsq import _state
from opsq.beat.beat import name_of
from opsq.beat.sending import send_now
from opsq.broker import schedules as store
from opsq.contrib.django import schedules_rows, shown_time
from opsq.contrib.django.project import current_app
from opsq.contrib.django.schedules_models import (
    KINDS,
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
    SolarSchedule,
)
from opsq.datastore.trouble import TROUBLE
from opsq.exceptions import OpsqError


class TaskInput(forms.TextInput):
    """A text with the names of the app's tasks to choose from."""

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> Any:
        """The field and its list."""
        field = super().render(name, value, {**(attrs or {}), "list": "opsq-tasks"}, renderer)
        names = sorted(each for each in current_app().tasks if not each.startswith("celery."))
        options = format_html_join("", '<option value="{}">', ((each,) for each in names))
        return format_html('{}<datalist id="opsq-tasks">{}</datalist>', field, options)


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(admin.ModelAdmin):
    """The entries."""

    list_display = ("name", "enabled", "schedule", "next_run", "last_run", "runs", "task")
    list_filter = ("enabled", "one_off", "task")
    list_select_related = KINDS
    search_fields = ("name", "task")
    actions = ("run_now", "enable", "disable")
    readonly_fields = ("next_run", "last_run", "runs")
    fieldsets = (
        (None, {"fields": ("name", "task", "enabled", "description")}),
        ("Schedule", {"fields": (*KINDS, "one_off", "start_time", "expires", *readonly_fields)}),
        ("Arguments", {"fields": ("args", "kwargs")}),
        ("Message", {"fields": ("queue", "priority", "expire_seconds", "headers", "exchange", "routing_key")}),
    )

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        """Names of tasks are offered."""
        if db_field.name == "task":
            kwargs["widget"] = TaskInput(attrs={"size": 60})
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def get_queryset(self, request: Any) -> Any:
        """The entries, and with them when each runs next: asked for once a page."""
        self._next = _next_runs()
        return super().get_queryset(request)

    def save_model(self, request: Any, obj: PeriodicTask, form: Any, change: bool) -> None:  # noqa: ARG002
        """Save what was entered: what the beat writes meanwhile is left to it."""
        if change:
            columns = {field.name for field in obj._meta.local_fields} - {"id", "last_run_at", "total_run_count"}
            obj.save(update_fields=columns)
        else:
            obj.save()

    @admin.display(description="next run")
    def next_run(self, row: PeriodicTask) -> Any:
        """As the beat that ticks knows it."""
        if not row.enabled or row.name not in self._next:
            return "-"
        facts = self._next[row.name]
        if not facts.enabled:
            return "paused by opsq schedule"
        if facts.next_run_unix is None:
            return "-"
        return shown_time.html(datetime.fromtimestamp(facts.next_run_unix, UTC))

    @admin.display(description="schedule")
    def schedule(self, row: PeriodicTask) -> str:
        """In words."""
        return str(row.scheduler or "-")

    @admin.display(description="last run", ordering="last_run_at")
    def last_run(self, row: PeriodicTask) -> Any:
        """When its task was last sent."""
        return shown_time.html(row.last_run_at)

    @admin.display(description="runs", ordering="total_run_count")
    def runs(self, row: PeriodicTask) -> int:
        """How often its task was sent."""
        return int(row.total_run_count)

    @admin.action(description="Run selected entries now")
    def run_now(self, request: Any, queryset: Any) -> None:
        """Send their tasks; schedules and counts stay as they are."""
        app = current_app()
        for row in queryset:
            try:
                task_id = send_now(app, schedules_rows.entry(app, row, None))
            except (*schedules_rows.BAD, *TROUBLE) as error:
                self.message_user(request, f"not sent: {row.name}: {error}", messages.ERROR)
            else:
                self.message_user(request, f"sent: {row.name} as {task_id}", messages.SUCCESS)

    @admin.action(description="Enable selected entries")
    def enable(self, request: Any, queryset: Any) -> None:
        """They run again; what they missed is not made up."""
        self._switch(request, queryset, True)

    @admin.action(description="Disable selected entries")
    def disable(self, request: Any, queryset: Any) -> None:
        """They rest."""
        self._switch(request, queryset, False)

    def _switch(self, request: Any, queryset: Any, on: bool) -> None:
        count = queryset.update(enabled=on, date_changed=timezone.now())
        PeriodicTasks.update_changed()
        self.message_user(request, f"{count} {'enabled' if on else 'disabled'}", messages.SUCCESS)


def _next_runs() -> dict[str, store.EntryFacts]:
    """What the beat has written down; nothing while the broker is away."""
    app = _state.get_current_app()
    try:
        return {facts.name: facts for facts in store.entries(app.broker, name_of(app))}
    except (OpsqError, *TROUBLE):
        return {}


admin.site.register((IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule))
