"""The admin's pages of results: find them, see what came of a task and what it belongs to, send it again, revoke it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from django.contrib import admin, messages
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from opsq import states
from opsq.backends.base import Format
from opsq.contrib.django import shown_time
from opsq.contrib.django.project import current_app
from opsq.contrib.django.results_calls import call_of
from opsq.contrib.django.results_models import GroupResult, TaskResult
from opsq.contrib.django.results_rows import Rows
from opsq.datastore.trouble import TROUBLE
from opsq.exceptions import OpsqError

#: Results that a page names.
MOST = 200


class ReadOnly(admin.ModelAdmin):
    """What is in the table is written by workers."""

    def has_add_permission(self, request: Any) -> bool:  # noqa: ARG002
        """Nobody makes rows by hand."""
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        """Nobody edits rows; who may change them may act on them."""
        return obj is None and bool(super().has_change_permission(request))

    def changelist_view(self, request: Any, extra_context: Any = None) -> Any:
        """The list is to be read: nothing is selected "to change"."""
        title = str(self.opts.verbose_name_plural).capitalize()
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    @admin.display(description="created", ordering="date_created")
    def created(self, row: Any) -> Any:
        """When its row was made."""
        return shown_time.html(row.date_created)

    @admin.display(description="done", ordering="date_done")
    def done(self, row: Any) -> Any:
        """When the row was last written."""
        return shown_time.html(row.date_done)


@admin.register(TaskResult)
class TaskResultAdmin(ReadOnly):
    """The results of tasks."""

    list_display = ("task_id", "task_name", "status", "done", "worker", "periodic_task_name")
    list_filter = ("status", "date_done", "task_name", "worker", "periodic_task_name")
    search_fields = ("task_id", "task_name", "task_args", "task_kwargs", "result", "worker")
    date_hierarchy = "date_done"
    show_full_result_count = False
    actions = ("retry", "revoke", "terminate")
    fieldsets = (
        (None, {"fields": ("task_id", "task_name", "periodic_task_name", "status", "worker")}),
        ("Call", {"fields": ("arguments", "named_arguments")}),
        ("Result", {"fields": ("value", "trace", "created", "started", "done")}),
        ("Chain", {"fields": ("root", "parent", "children", "group")}),
    )

    @admin.display(description="arguments")
    def arguments(self, row: TaskResult) -> str:
        """As the caller has put them into words."""
        return _shown(row, row.task_args)

    @admin.display(description="named arguments")
    def named_arguments(self, row: TaskResult) -> str:
        """The same for those with names."""
        return _shown(row, row.task_kwargs)

    @admin.display(description="result")
    def value(self, row: TaskResult) -> Any:
        """The value, or what is known of the error."""
        return _block(_error(row) or _shown(row, row.result))

    @admin.display(description="traceback")
    def trace(self, row: TaskResult) -> Any:
        """Of an error."""
        return _block(row.traceback or "-")

    @admin.display(description="started")
    def started(self, row: TaskResult) -> Any:
        """When a worker began it."""
        return shown_time.html(row.date_started)

    # -- what it belongs to --------------------------------------------------------------------------------------------

    @admin.display(description="first of the chain")
    def root(self, row: TaskResult) -> Any:
        """The task that was called first."""
        return _links([_place(row).get("root_id")])

    @admin.display(description="called by")
    def parent(self, row: TaskResult) -> Any:
        """The task that has sent it."""
        return _links([_place(row).get("parent_id")])

    @admin.display(description="has called")
    def children(self, row: TaskResult) -> Any:
        """The tasks that it has sent."""
        return _links(_ids(_place(row).get("children") or ()))

    @admin.display(description="group")
    def group(self, row: TaskResult) -> Any:
        """The group that it is a member of."""
        group_id = _place(row).get("group_id")
        if not group_id:
            return "-"
        found = GroupResult.objects.filter(group_id=group_id).first()
        return _link("groupresult", found.pk, group_id) if found else group_id

    # -- actions -------------------------------------------------------------------------------------------------------

    @admin.action(description="Send selected tasks again", permissions=["change"])
    def retry(self, request: Any, queryset: Any) -> None:
        """The same calls once more, as new tasks."""
        app = current_app()
        rows = Rows(Format.of(app.conf))
        for row in queryset:
            try:
                name, args, kwargs = call_of(rows, row)
                task = app.tasks.get(name)
                sent = app.send_task(name, args, kwargs) if task is None else task.apply_async(args, kwargs)
            except (OpsqError, TypeError, *TROUBLE) as error:
                hint = getattr(error, "hint", "")
                self.message_user(request, f"not sent again: {row.task_id}: {error}. {hint}".strip(), messages.ERROR)
            else:
                self.message_user(request, f"sent again: {row.task_id} as {sent.id}", messages.SUCCESS)

    @admin.action(description="Revoke selected tasks (what runs goes on)", permissions=["change"])
    def revoke(self, request: Any, queryset: Any) -> None:
        """What waits is not run; what runs goes on."""
        self._revoke(request, queryset, False)

    @admin.action(description="Revoke selected tasks and end what runs", permissions=["change"])
    def terminate(self, request: Any, queryset: Any) -> None:
        """The same, and what runs is ended (SIGTERM)."""
        self._revoke(request, queryset, True)

    def _revoke(self, request: Any, queryset: Any, terminate: bool) -> None:
        ids = list(queryset.exclude(status__in=states.READY_STATES).values_list("task_id", flat=True))
        over = queryset.count() - len(ids)
        try:
            if ids:
                current_app().control.revoke(ids, terminate=terminate)
        except (OpsqError, *TROUBLE) as error:
            self.message_user(request, f"not revoked: {error}", messages.ERROR)
            return
        if ids:
            self.message_user(request, f"{len(ids)} revoked", messages.SUCCESS)
        if over:
            self.message_user(request, f"{over} had ended already", messages.WARNING)


@admin.register(GroupResult)
class GroupResultAdmin(ReadOnly):
    """Groups that were saved."""

    list_display = ("group_id", "saved")
    list_filter = ("date_done",)
    search_fields = ("group_id",)
    date_hierarchy = "date_done"
    fieldsets = ((None, {"fields": ("group_id", "members", "created", "saved")}),)

    @admin.display(description="saved", ordering="date_done")
    def saved(self, row: GroupResult) -> Any:
        """When."""
        return shown_time.html(row.date_done)

    @admin.display(description="results")
    def members(self, row: GroupResult) -> Any:
        """The results of its tasks."""
        value = _value(row, row.result)
        return _links(_ids(value[1] if isinstance(value, list | tuple) and len(value) == 2 else ()))


def _value(row: Any, content: str | None) -> Any:
    """What a column holds; None when it cannot be read here."""
    try:
        return Rows(Format.of(current_app().conf)).value_of(row, content)
    except OpsqError:
        return None


def _place(row: TaskResult) -> dict[str, Any]:
    value = _value(row, row.meta)
    return value if isinstance(value, dict) else {}


def _error(row: TaskResult) -> str | None:
    """The error that a result stands for, as Python's tracebacks end; None if it is none, or none that can be read."""
    data = _value(row, row.result) if row.status in states.EXCEPTION_STATES else None
    if not isinstance(data, dict) or "exc_type" not in data:
        return None
    module, message = data.get("exc_module"), data.get("exc_message") or ()
    name = data["exc_type"] if module in (None, "builtins") else f"{module}.{data['exc_type']}"
    words = ", ".join(map(str, message)) if isinstance(message, list | tuple) else str(message)
    return f"{name}: {words}" if words else str(name)


def _shown(row: TaskResult, content: str | None) -> str:
    """A value for people: texts as they are, JSON with indents, what cannot be read as it is stored."""
    if content is None:
        return "-"
    value = _value(row, content)
    if isinstance(value, str):
        return value
    if value is None:
        return content
    return json.dumps(value, indent=2, default=repr, ensure_ascii=False)


def _block(text: str) -> Any:
    return format_html('<pre style="margin: 0; white-space: pre-wrap">{}</pre>', text)


def _ids(results: Iterable[Any]) -> Iterator[str]:
    """The ids of tasks among results as tuples."""
    for (own_id, _parent), nodes in results:
        if nodes is None:
            yield own_id
        else:
            yield from _ids(nodes)


def _links(ids: Iterable[str | None]) -> Any:
    """Links to results, as far as there are any; their ids else."""
    wanted: list[str] = [each for each in ids if each][:MOST]
    if not wanted:
        return "-"
    known: dict[str, Any] = dict(TaskResult.objects.filter(task_id__in=wanted).values_list("task_id", "pk"))
    return format_html_join(
        "\n", "{}<br>", ((_link("taskresult", known[each], each) if each in known else each,) for each in wanted)
    )


def _link(model: str, key: Any, text: str) -> Any:
    return format_html('<a href="{}">{}</a>', reverse(f"admin:opsq_{model}_change", args=[key]), text)
