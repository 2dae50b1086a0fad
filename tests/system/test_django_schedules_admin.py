"""The admin's pages of schedules, asked as a browser asks; and their models, as programs use them."""

from __future__ import annotations

import re

from support.django_beat import DjangoProject
from support.django_fixture import migrated

CLIENT = """
from django.test import Client
from django.contrib.auth.models import User
user = User.objects.filter(username="boss").first() or User.objects.create_superuser("boss", password="x")
browser = Client()
browser.force_login(user)
LIST = "/admin/opsq/periodictask/"
def act(name, action):
    row = model("PeriodicTask").objects.get(name=name)
    page = browser.post(LIST, {"action": action, "_selected_action": [row.pk]}, follow=True)
    assert page.status_code == 200
    return page.content.decode()
def entered(**more):
    row = {"name": "made", "task": "proj.tasks.who", "enabled": "on", "args": "[]", "kwargs": "{}", "headers": "{}"}
    return {**row, **more}
def add(**more):
    return browser.post(LIST + "add/", entered(**more), follow=True).content.decode()
"""


project = migrated(DjangoProject)


def test_an_entry_is_made_sent_at_once_disabled_and_enabled_in_the_admin(project: DjangoProject) -> None:
    project.beat()
    project.do(
        CLIENT
        + """
hourly = model("IntervalSchedule").objects.create(every=1, period="hours")
page = add(interval=hourly.pk, args='[1, 2]', kwargs='{"to": "all"}')
assert "was added successfully" in page, page
assert '<option value="proj.tasks.who">' in browser.get(LIST + "add/").content.decode()
"""
    )
    project.wait_for(lambda: project.schedule().get("made", {}).get("next"), 30, "the beat knows it")
    shown = project.do(CLIENT + "answer = browser.get(LIST).content.decode()")
    columns = re.findall(r"column-(\w+)", shown)
    assert columns == ["name", "enabled", "schedule", "next_run", "last_run", "runs", "task"]
    assert re.search(r'field-next_run"><span[^>]*>20[-\d]{8}</span> <span[^>]*>[:\d]{8}<', shown), shown
    assert "ent: made as " in project.do(CLIENT + 'answer = act("made", "run_now")')
    [message] = project.messages()
    assert message["headers"]["periodic_task_name"] == "made"
    assert message["headers"]["kwargsrepr"] == "{'to': 'all'}"
    assert project.row("made")["total_run_count"] == 0
    project.do(CLIENT + 'act("made", "disable")')
    project.wait_for(lambda: project.schedule()["made"]["paused"], 30, "it rests")
    project.do(CLIENT + 'act("made", "enable")')
    project.wait_for(lambda: not project.schedule()["made"]["paused"], 30, "it runs again")


def test_what_no_beat_could_understand_cannot_be_entered(project: DjangoProject) -> None:
    told = project.do(
        CLIENT
        + """
hourly = model("IntervalSchedule").objects.create(every=1, period="hours")
clock = model("ClockedSchedule").objects.create(clocked_time=now())
answer = [
    add(), add(interval=hourly.pk, clocked=clock.pk), add(clocked=clock.pk), add(interval=hourly.pk, args="{no"),
    add(interval=hourly.pk, kwargs="[1]"),
    browser.post("/admin/opsq/crontabschedule/add/", {
        "minute": "61", "hour": "*", "day_of_week": "*", "day_of_month": "*", "month_of_year": "*", "timezone": "UTC",
    }).content.decode(),
    browser.post("/admin/opsq/intervalschedule/add/", {"every": 2**31 - 1, "period": "days"}).content.decode(),
    browser.post("/admin/opsq/intervalschedule/add/", {"every": "", "period": "x"}).content.decode(),
]
noon = datetime.fromisoformat("2026-07-01T10:00:00+00:00")
answer.append(str(model("ClockedSchedule").objects.create(clocked_time=noon)))
"""
    )
    assert told.pop() == "2026-07-01 12:00:00", "a point in time is shown in the project's zone"
    words = ("choose one of interval", "not 2", "is a one-off", "this is no JSON", "this is no JSON object", "61")
    words += ("so long a time", "is required")
    for page, word in zip(told, words, strict=True):
        assert "errornote" in page
        assert word in page
    assert project.row("made") == {}


def test_a_form_that_was_opened_before_a_run_does_not_undo_its_count(project: DjangoProject) -> None:
    project.do('every(1, "tick")')
    project.beat()
    project.wait_sent("tick", 2)
    project.wait_for(lambda: project.row("tick")["total_run_count"] >= 2, 30, "the row counts")
    project.do("""
stale = model("PeriodicTask").objects.get(name="tick")
stale.total_run_count, stale.last_run_at = 0, now() - timedelta(hours=1)
stale.save()
""")
    project.wait_for(lambda: project.row("tick")["total_run_count"] >= 3, 30, "the count is right again")


def test_programs_write_schedules_by_the_names_that_they_have_always_used(project: DjangoProject) -> None:
    told = project.do(
        """
import importlib
from opsq.cli.codemod import django_apps
for module, names in django_apps.SAME.items():
    own = importlib.import_module(django_apps.OWN + "." + module.partition(".")[2])
    assert not [name for name in names if not hasattr(own, name)], module
from opsq.contrib.django.models import CrontabSchedule, IntervalSchedule, PeriodicTask, PeriodicTasks
periods = [getattr(IntervalSchedule, name) for name in "DAYS HOURS MINUTES SECONDS MICROSECONDS".split()]
assert periods == [name for name, _shown in IntervalSchedule.PERIOD_CHOICES]
every, _made = IntervalSchedule.objects.get_or_create(every=10, period=IntervalSchedule.SECONDS)
entry, _made = PeriodicTask.objects.update_or_create(
    name="made", defaults={"interval": every, "task": "proj.tasks.who", "kwargs": json.dumps({"to": "all"})}
)
before = PeriodicTasks.last_change()
PeriodicTasks.changed(entry)
answer = [repr(entry.schedule), PeriodicTasks.last_change() > before, PeriodicTask(name="none").schedule]
"""
    )
    assert told == ["<freq: 10.00 seconds>", True, None]
