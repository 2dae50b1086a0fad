"""The admin's pages of results, asked as a browser asks."""

from __future__ import annotations

from support.django_fixture import migrated
from support.django_results import ResultsProject

CLIENT = """
import html, re
from django.test import Client
from django.contrib.auth.models import Permission, User
from proj.celery import *
def browser_of(name, *permissions):
    user = User.objects.filter(username=name).first() or User.objects.create_user(name, is_staff=True)
    user.is_superuser = not permissions
    user.save()
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    made = Client()
    made.force_login(User.objects.get(pk=user.pk))
    return made
browser = browser_of("boss")
LIST = "/admin/opsq/taskresult/"
def words(page):
    return re.sub(r"\\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page.content.decode())))
def row(**what):
    return model("TaskResult").objects.get(**what)
def page_of(**what):
    return browser.get(f"{LIST}{row(**what).pk}/change/")
def act(action, *rows, by=browser):
    chosen = {"action": action, "_selected_action": [each.pk for each in rows]}
    return words(by.post(LIST, chosen, follow=True))
"""


project = migrated(ResultsProject)


def test_results_are_found_and_shown_with_what_they_belong_to(project: ResultsProject) -> None:
    project.worker()
    project.ask("""
family.apply_async(task_id="family").get(timeout=30)
app.AsyncResult("family-child").get(timeout=30)
answer = fail.delay("<b>no</b>").get(timeout=30, propagate=False).args
""")
    found = project.do(
        CLIENT
        + """
queries = ("", "?status__exact=FAILURE", "?q=family-child", "?worker=nobody")
lists = [words(browser.get(LIST + query)) for query in queries]
answer = [[name in page for name in ("proj.tasks.add", "proj.tasks.fail", "family-child")] for page in lists]
child, parent = page_of(task_id="family-child").content.decode(), page_of(task_id="family").content.decode()
answer.append(f'<a href="{LIST}{row(task_id="family").pk}/change/">family</a>' in child)
answer.append(f'<a href="{LIST}{row(task_id="family-child").pk}/change/">family-child</a>' in parent)
answer.append("(1, 2)" in words(page_of(task_id="family-child")))
failed = page_of(task_name="proj.tasks.fail").content.decode()
answer += ["raise ValueError(text)" in failed, "<b>no</b>" in failed, 'name="_save"' in failed]
read = words(page_of(task_name="proj.tasks.fail"))
answer += ["Result: ValueError: <b>no</b> Traceback:" in read, "/opsq/" in read]
answer.append(re.search(r" 20[-\\d]{8} [:\\d]{8} ", lists[0]) is not None)
answer.append("Select" in lists[0])
"""
    )
    assert found[0] == [True, True, True]
    assert not found[1][2]
    assert found[2][2]
    assert not found[3][2]
    assert found[4:] == [True, True, True, True, False, False, True, False, True, False]


def test_a_call_is_sent_again_or_it_is_said_why_not(project: ResultsProject) -> None:
    worker = project.worker()
    project.ask("""
add.apply_async((2,), {"y": 3}, task_id="plain").get(timeout=30)
add.apply_async((2,), task_id="of-objects", argsrepr="(<Thing>,)").get(timeout=30)
worded.apply_async(("x" * 5000,), task_id="long").get(timeout=30)
model("TaskResult").objects.create(task_id="bare", status="FAILURE")
""")
    assert worker.stop() == 0
    told = project.do(
        CLIENT + 'answer = act("retry", *(row(task_id=name) for name in ("plain", "of-objects", "long", "bare")))'
    )
    assert "ent again: plain as " in told
    assert "of-objects: its arguments cannot be read back: (<Thing>,)" in told
    assert "long: its arguments are too long: the row has only their beginning" in told
    assert "bare: its row does not say which task it was" in told
    [message] = project.messages()
    assert (message["headers"]["task"], message["headers"]["argsrepr"]) == ("proj.tasks.add", "(2,)")
    assert message["headers"]["kwargsrepr"] == "{'y': 3}"


def test_a_task_is_revoked_and_ended_by_whom_permissions_allow(project: ResultsProject) -> None:
    project.worker()
    project.ask(
        'stages.apply_async(task_id="runs"); model("TaskResult").objects.create(task_id="over", status="SUCCESS")'
    )
    project.wait_for(lambda: "began" in project.marks(), 30, "it runs")
    seen = project.do(
        CLIENT
        + """
guest = browser_of("guest", "view_taskresult")
act("terminate", row(task_id="runs"), by=guest)
answer = [guest.get(LIST).status_code, "Revoke" in words(guest.get(LIST)), row(task_id="runs").status]
helper = browser_of("helper", "view_taskresult", "change_taskresult")
answer.append(act("terminate", row(task_id="runs"), row(task_id="over"), by=helper))
"""
    )
    assert seen[:3] == [200, False, "STARTED"]
    assert "1 revoked" in seen[3]
    assert "1 had ended already" in seen[3]
    project.wait_for(lambda: (project.found("runs") or {})["status"] == "REVOKED", 30, "it is ended")


def test_saved_groups_lead_to_their_results(project: ResultsProject) -> None:
    project.worker()
    found = project.do(
        CLIENT
        + """
from opsq import group
made = group(add.s(1), add.s(2)).apply_async()
made.save()
made.get(timeout=30)
saved = model("GroupResult").objects.get(group_id=made.id)
page = browser.get(f"/admin/opsq/groupresult/{saved.pk}/change/").content.decode()
answer = [page.count("/admin/opsq/taskresult/"), saved.group_id in words(page_of(task_id=made.results[0].id))]
"""
    )
    assert found[0] >= 2
    assert found[1]
