"""The items of Celery's guide, a function each, for the project that `guide_project` writes."""

from __future__ import annotations

ITEMS = '''
# -- how the items are told ------------------------------------------------------------------------------------------


def told(call):
    """The value of a call, or its error: class, arguments."""
    try:
        return plain(call())
    except Exception as error:
        return [type(error).__name__, str(error)]


def plain(value):
    if isinstance(value, BaseException):
        return [type(value).__name__, [str(word) for word in value.args]]
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def data(sig):
    """A signature as JSON, and its text."""
    return [text(sig), json.loads(json.dumps(sig))]


def text(sig):
    """Without brackets: a list of tasks may be a tuple."""
    return re.sub(r"[()\\[\\]]", "", repr(sig))


def each(*calls):
    return [told(call) for call in calls]


def of(sig, *args, **options):
    """The value of a signature that is sent."""
    return sig.apply_async(args, **options).get(timeout=PATIENCE_S)


def values(*sigs):
    results = [sig.delay() for sig in sigs]
    return [told(lambda result=result: result.get(timeout=PATIENCE_S)) for result in results]


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


def lines(path, count):
    """The lines of a file once there are so many; it is emptied."""
    until(lambda: os.path.exists(path) and len(open(path).read().splitlines()) >= count)
    with open(path, "r+") as file:
        found = sorted(file.read().splitlines())
        file.truncate(0)
    return found


# -- signatures and workflows as data --------------------------------------------------------------------------------


def signatures():
    partial = add.signature((2, 2), {"debug": True}, countdown=10)
    return [
        data(add.s(2, 2)),
        data(add.si(2, 2)),
        data(add.subtask((2, 2))),
        data(signature("p.add", args=(2, 2), countdown=1)),
        data(subtask("p.add", (1,))),
        data(add.s(1).set(countdown=1).set(immutable=True, queue="q")),
        partial.args,
        partial.kwargs,
        partial.options,
        partial.task,
        partial.name,
        partial.type.name,
        partial.id,
        partial.immutable,
        partial.subtask_type,
        add.s(2, 2)(),
        add.s(2)(4),
        add.s(2, y=3)(),
        add.s(1, y="a").reprcall(5),
        add.s(1) == dict(add.s(1)),
        add.s(1) == add.si(1),
        [add.s(1), 2, None] == [add.s(1), 2, None],
    ]


def clones_and_replacements():
    sig = add.s(2, y=1).set(queue="a")
    return [
        data(sig.clone(args=(4,), kwargs={"a": 1}, countdown=3)),
        data(add.si(2).clone(args=(4,), kwargs={"a": 1})),
        data(sig.replace(args=(1,))),
        data(sig.replace(kwargs={"x": 2})),
        data(sig.replace(options={"queue": "c"})),
        data(sig.replace()),
        data(sig),
    ]


def frozen():
    sig = add.s()
    sig.freeze("a", group_id="g", root_id="r", parent_id="p", group_index=3)
    sig.options.pop("reply_to", None)
    steps = chain(add.s(1, 1), add.s(2), add.s(3))
    result = steps.freeze()
    both = group(add.s(1), add.s(2))
    results = both.freeze()
    joined = chord([add.s(1, 1), add.s(2, 2)], xsum.s())
    last = joined.freeze()
    return [
        data(sig),
        result.id == steps.tasks[-1].id,
        result.parent.id == steps.tasks[1].id,
        result.parent.parent.id == steps.tasks[0].id,
        result.parent.parent.parent,
        result.as_list() == [step.id for step in reversed(steps.tasks)],
        results.id == both.id,
        [each.id for each in results.results] == [task.id for task in both.tasks],
        type(last.parent).__name__,
        last.id == joined.body.id,
        len(last.parent.results),
    ]


def kept_as_json_and_pickled():
    found = []
    for sig in (
        add.s(1, 2),
        add.s(1).set(link=add.s(2)),
        chain(add.s(1, 2), add.s(3)),
        group(add.s(1, 1), add.s(2, 2)),
        chord([add.s(1, 1)], xsum.s()),
        add.chunks([(1, 2)], 1),
        add.map([1, 2]),
        add.starmap([(1, 2)]),
        group(add.s(1, 1), add.s(2, 2)) | xsum.s(),
        chain(add.s(1, 1), group(add.s(1), add.s(2)), xsum.s()),
    ):
        text = json.dumps(sig)
        back = signature(json.loads(text), app=app)
        found += [json.loads(text), json.loads(json.dumps(back)) == json.loads(text)]
        again = pickle.loads(pickle.dumps(sig))
        found += [copy.deepcopy(sig) == sig, json.loads(json.dumps(again)) == json.loads(text)]
    return found


def piped():
    step, parts, end = add.s(1), group(add.s(1), add.s(2)), xsum.s()
    first = add.s(1, 1)
    return (
        [
            json.loads(json.dumps(sig))
            for sig in (
                first | step,
                first | step | step,
                (first | step) | (step | step),
                first | parts,
                parts | end,
                parts | parts,
                first | parts | end,
                chord([first], end) | step,
                group(first) | step,
                chain(first) | chord([step], end),
                chain(first, step),
                chain([first, step]),
                chain(each for each in [first, step]),
                chain(chain(first, step), step),
                chain(first),
                chain(group(first, group(first, first)), end),
                group(group(first)),
                group(each for each in [first]),
                chain(first, parts, end, parts),
            )
        ]
        + each(lambda: step | 1, lambda: step | None)
        + [text(first | step), text(group(first, first)), text(group())]
    )


def chords_and_groups_as_data():
    linked = chord([add.s(1, 1)], xsum.s())
    linked.link(add.s(1))
    linked.link_error(noop.s())
    still = chord([add.s(1, 1)], xsum.s())
    still.set_immutable(True)
    told_of = group(add.s(1), add.s(2))
    told_of.link(xsum.s())
    told_of.link_error(noop.s())
    return [
        data(linked),
        data(still),
        data(chord([add.s(1, 1)], xsum.s()).on_error(noop.s())),
        data(linked.clone()),
        data(chord(group(add.s(1, 1)), xsum.s())),
        data(chord([add.s(1, 1)], body=xsum.s())),
        data(told_of),
        data(group(add.s(1), add.s(2)).set(queue="x")),
        data(group(add.s(1)).set(immutable=True)),
        [part.options["countdown"] for part in group(add.s(1), add.s(2)).skew(start=1, stop=10, step=2).tasks],
        data(chord([group(add.s(1, 1), add.s(2, 2)), chain(add.s(1, 1), add.s(2))], xsum.s())),
    ]


def links():
    sig = add.s(2, 2)
    return [
        data(sig.link(add.s(4))),
        data(sig.link_error(noop.s())),
        sig.on_error(noop.s()) is sig,
        data(sig.link(add.s(4))),
        data(sig),
        [repr(linked) for linked in sig.flatten_links()],
    ]


def maps_as_data():
    return [
        data(xsum.map([[1], [2]])),
        data(add.starmap([(0, 0), (1, 1)])),
        data(add.chunks([(0, 0), (1, 1), (2, 2)], 2)),
        json.loads(json.dumps(add.chunks([(0, 0), (1, 1), (2, 2)], 2).group())),
        data(xmap(xsum.s(), [[1]])),
        data(xstarmap(add.s(), [(1, 2)])),
        data(chunks(add.s(), [(1, 2)], 1)),
    ]


# -- calls -----------------------------------------------------------------------------------------------------------


def calls():
    future = "2099-01-01T00:00:00+00:00"
    return each(
        lambda: add.delay(1, 2).get(timeout=PATIENCE_S),
        lambda: of(add.s(1, 2)),
        lambda: of(add.s(), 1, 2),
        lambda: add.apply_async(args=[1], kwargs={"y": 2}).get(timeout=PATIENCE_S),
        lambda: app.send_task("p.add", (1, 2)).get(timeout=PATIENCE_S),
        lambda: add(1, 2),
        lambda: ~add.s(1, 2),
        lambda: of(app.signature("p.add", args=(2, 3))),
        lambda: of(add.s(1, 2), countdown=0.1),
        lambda: of(add.s(1, 2), expires=60),
        lambda: of(add.s(1, 2), expires=future),
        lambda: of(add.s(1, 2), retry=False),
        lambda: of(add.s(1, 2), retry=True, retry_policy={"max_retries": 3, "interval_start": 0, "interval_step": 0.2}),
        lambda: of(add.s(1, 2), serializer="json", compression="zlib"),
        lambda: of(add.s(1, 2), queue="celery", priority=3),
        lambda: of(add.s(1, 2), shadow="other", time_limit=10, soft_time_limit=5, reply_to="x", correlation_id="z"),
        lambda: add.apply_async((1, 2), task_id="an-id").id,
        lambda: add.apply_async((1, 2), ignore_result=True).get(1),
        lambda: of(add.s(1, 2), link=add.s(3)),
        lambda: of(headers_of.s(), headers={"my_header": 5}),
        lambda: of(untyped.s(1)),
        lambda: of(shared.s(1)),
        lambda: of(current.s()),
    )


def wrong_calls():
    return [
        found[0]
        for found in each(
            lambda: add.delay(1),
            lambda: add.delay(1, 2, 3),
            lambda: add.delay(z=1),
            lambda: add.apply_async(1),
            lambda: add.delay(object(), 1),
            lambda: add.apply_async((1, 2), kwargs=3),
            lambda: 1 / 0,
        )
    ]


def expired():
    result = add.apply_async((1, 2), expires=-5)
    return [*each(lambda: result.get(timeout=PATIENCE_S)), result.state, result.successful(), result.failed()]


def the_request():
    options = {"headers": {"mine": 1}, "shadow": "s", "time_limit": 50, "soft_time_limit": 40}
    return [
        of(request_of.s(1, 2), task_id="c0ffee-request"),
        of(again.s(1), tint="red", stamped_headers=["tint"], **options),
    ]


def retries():
    found = []
    for sig in (
        retries_with_error.s(1),
        retries_plainly.s(1),
        retries_with_others.s(0),
        retries_by_itself.s(0),
        retries_by_itself.s(2),
        retries_not.s(1),
    ):
        result = sig.delay()
        value = told(lambda result=result: result.get(timeout=PATIENCE_S))
        found.append([re.sub(r"\\[.{36}\\]", "", json.dumps(value)), result.state, result.retries])
    silent = retries_silently.delay()  # both of its runs have a result: which one is met is chance
    value = silent.get(timeout=PATIENCE_S)
    return [*found, value in ("Retry", "second"), silent.state, silent.retries == (value == "second")]


def ends_of_other_kinds():
    ignored, rejected = ignores_itself.delay(), rejects.delay()
    until(lambda: ignored.state == "CUSTOM" and rejected.ready())
    return [ignored.state, ignored.info, rejected.state, told(lambda: rejected.get(timeout=PATIENCE_S))[0]]


def handlers(path):
    found = []
    for how, count in (("ok", 3), ("fail", 3), ("retry", 5)):
        told(lambda how=how: of(handled.s(how, path=path)))
        found.append(lines(path, count))
    return found


def errors():
    found = []
    for task in (fail, with_cause):
        result = task.delay()
        error = told(lambda result=result: result.get(timeout=PATIENCE_S))
        text = result.traceback.splitlines()
        found.append([error, result.state, text[0], text[-1], repr(result.result), repr(result.get(propagate=False))])
    return found


def errbacks(path):
    found = []
    for sig in (
        fail.s().on_error(errback.s(path)),
        chain(add.s(1, 1), fail.s().on_error(errback.s(path)), add.s(1)),
        chain(add.s(1, 1), fail.s(), add.s(1)).on_error(errback.s(path)),
        chord([add.s(1, 1)], fail.s().on_error(errback.s(path))),
        chord([fail.s()], add.s(1, y=2).on_error(errback.s(path))),
    ):
        result = sig.delay()
        noted = [re.sub("[-a-z0-9]{36}", "", line) for line in lines(path, 1)]
        found.append([told(lambda result=result: result.get(timeout=PATIENCE_S)), noted])
    rejected = rejects.s().on_error(errback.s(path)).delay()
    found.append([told(lambda: rejected.get(timeout=PATIENCE_S))[0], lines(path, 1)])
    part = group([fail.s(), add.s(1, 1)])
    part.link_error(errback.s(path))
    result = part.delay()
    return [*found, [told(lambda: result.get(timeout=PATIENCE_S)), lines(path, 1)]]


def results_nobody_wants():
    silent, failed = without_result.delay(), without_result_but_errors.delay()
    until(lambda: app.AsyncResult(failed.id).ready())
    return each(
        lambda: silent.get(timeout=1),
        lambda: silent.state,
        lambda: failed.get(timeout=1),
        lambda: app.AsyncResult(failed.id).get(timeout=PATIENCE_S),
        lambda: without_result.apply_async(ignore_result=False).get(timeout=PATIENCE_S),
    )


def inside_tasks():
    return each(lambda: of(waits.s()), lambda: of(waits_allowed.s()), lambda: of(waits_said.s())) + [
        of(chain(ends_its_chain.s(1), add.s(1)).tasks[0])
    ]


# -- workflows -------------------------------------------------------------------------------------------------------


def chains():
    flow = chain(add.s(4, 4), add.s(8), add.s(10))()
    found = [flow.get(timeout=PATIENCE_S), flow.parent.get(), flow.parent.parent.get(), flow.parent.parent.parent]
    broken = chain(add.s(1, 1), fail.s(), add.s(1))()
    error = told(lambda: broken.get(timeout=PATIENCE_S))
    return (
        found
        + [error, broken.parent.state, broken.state, broken.parent.parent.get(), chain()()]
        + each(
            lambda: (add.s(1, 1) | add.s(2))().get(timeout=PATIENCE_S),
            lambda: chain(add.s(1), add.s(2))(5).get(timeout=PATIENCE_S),
            lambda: of(chain(add.s(1), add.s(2)), 5),
            lambda: of(chain(add.s(1, 1))),
            lambda: of(chain(add.s(1, 1), add.si(5, 5), add.s(1))),
            lambda: of(add.s(2, 2) | add.s(4), queue="celery"),
        )
    )


def groups():
    result = group(add.s(number, number) for number in range(4))()
    found = [result.get(timeout=PATIENCE_S), result.ready(), result.successful(), result.failed(), result.waiting()]
    found += [result.completed_count(), result.join(timeout=PATIENCE_S), len(result), result[0].get()]
    found += [[part.get() for part in result], type(result).__name__, group([]).delay().get()]
    found += [sorted(meta["result"] for _id, meta in result.iter_native()), len(result.as_tuple()[1])]
    broken = group(add.s(1, 1), fail.s())()
    error = told(lambda: broken.get(timeout=PATIENCE_S))
    until(broken.ready)
    found += [error, broken.failed(), plain(broken.get(propagate=False)), broken.completed_count(), broken.successful()]
    inner = group(group(add.s(1, 1), add.s(2, 2)), add.s(3, 3))()
    found += [inner.get(timeout=PATIENCE_S), [type(part).__name__ for part in inner.results]]
    return found + each(
        lambda: group(add.s(1), add.s(2))(3).get(timeout=PATIENCE_S),
        lambda: group(add.s(1), add.s(2)).delay(3).get(timeout=PATIENCE_S),
    )


def groups_that_are_saved():
    result = group(add.s(1, 1), add.s(2, 2))()
    result.save()
    one, other = GroupResult.restore(result.id), app.GroupResult.restore(result.id)
    found = [one.get(timeout=PATIENCE_S), one == result, other == one, type(one).__name__, len(one)]
    found += [isinstance(add.delay(1, 1), app.AsyncResult), app.GroupResult(None, []).results]
    one.delete()
    return [*found, GroupResult.restore(result.id), result.forget(), result[0].state]


def sets_of_results():
    seen = []
    both = ResultSet([add.delay(number, number) for number in range(3)])
    found = [both.get(timeout=PATIENCE_S)]
    more = add.delay(9, 9)
    both.add(more)
    both.get(timeout=PATIENCE_S, callback=lambda _id, value: seen.append(value))
    found += [sorted(seen), len(both), both.join(timeout=PATIENCE_S), both.ready(), both.successful()]
    both.remove(more)
    both.discard("x")
    both.update([more])
    found += [len(both), ResultSet([]).get(), ResultSet([]).ready(), each(lambda: both.remove("x"))[0][0]]
    both.clear()
    return [*found, len(both)]


def chords():
    parts = [add.s(1, 1), add.s(2, 2)]
    found = each(
        lambda: chord([add.s(number, number) for number in range(5)])(xsum.s()).get(timeout=PATIENCE_S),
        lambda: chord((add.s(number, number) for number in range(5)), xsum.s())().get(timeout=PATIENCE_S),
        lambda: of(group(parts) | xsum.s()),
        lambda: of(group(parts) | xsum.s() | add.s(1)),
        lambda: chord([])(xsum.s()).get(timeout=PATIENCE_S),
        lambda: of(chord([], xsum.s())),
        lambda: of(chord([add.s(1), add.s(2)], xsum.s()), 5),
        lambda: of(chord(parts, xsum.s()), countdown=0.1),
        lambda: of(chord(group(add.s(1, 1)), tell.s(k=1))),
        lambda: of(chord(parts, xsum.si([5, 5]))),
    )
    result = chord([add.s(1, 1), fail.s()], xsum.s()).delay()
    until(lambda: app.AsyncResult(result.id).ready())
    raised = told(lambda: result.get(timeout=PATIENCE_S))
    return [*found, raised, result.state, re.sub("[-a-z0-9]{36}", "", repr(result.result))]


def chords_in_workflows():
    parts = [add.s(1, 1), add.s(2, 2)]
    return values(
        chord([chord(parts, xsum.s()), add.s(3, 3)], xsum.s()),
        chord([group(parts), add.s(3, 3)], xsum.s()),
        chord([chain(add.s(1, 1), add.s(2)), add.s(3, 3)], xsum.s()),
        chain(group(parts), group(xsum.s(), xsum.s()), xsum.s()),
        chain(add.s(1, 1), group(add.s(1), add.s(2)), xsum.s(), group(add.s(1), add.s(2))),
        chain(group(add.s(1, 1)), add.s(1)),
        group(chain(add.s(1, 1), group(add.s(1), add.s(2))), add.s(1, 1)),
        chain(chord([add.s(1, 1)], xsum.s()), add.s(1)),
        group(chord([add.s(1, 1)], xsum.s()), add.s(5, 5)),
        chord([tell.s(number) for number in range(12)], tell.s()),
    )


def maps():
    pairs = [(number, number) for number in range(5)]
    return values(
        xsum.map([[1, 2], [3, 4]]),
        add.starmap(pairs),
        add.chunks(pairs, 2),
        chain(add.starmap(pairs), xsum.s()),
        add.chunks(pairs, 2).group(),
        add.chunks(pairs, 2).group().skew(start=0, stop=0.2, step=0.1),
    )


def replacements():
    return values(
        becomes.s(1, 2),
        becomes_a_chain.s(1),
        becomes_a_group.s(1),
        becomes_a_chord.s(1),
        becomes_itself.s(3),
        chain(becomes.s(1, 2), add.s(10)),
        chain(add.s(1, 1), becomes.s(5, 5), add.s(10)),
        group(becomes.s(1, 2), add.s(1, 1)),
        chord([becomes.s(1, 2), add.s(1, 1)], xsum.s()),
        chord([becomes_a_chord.s(1), add.s(1, 1)], xsum.s()),
        chain(becomes_a_group.s(1), xsum.s()),
        chord([grows.s(3)], xsum.s()),
        chord([grows_later.s()], xsum.s()),
    ) + [told(lambda: of(grows.s(1)))]


def trees():
    result = sends.delay(3)
    result.get(timeout=PATIENCE_S)
    found = [len(result.children), [child.get(timeout=PATIENCE_S) for child in result.children], result.get_leaf()]
    found += [sorted(str(value) for _node, value in result.collect()), len(result.graph), len(result.graph.topsort())]
    found += [sorted(len(below) for _node, below in result.graph.items())]
    file = io.StringIO()
    result.graph.to_dot(file)
    found.append(file.getvalue().count("->"))
    grouped, silent = sends_a_group.delay(2), sends_without_trail.delay()
    grouped.get(timeout=PATIENCE_S), silent.get(timeout=PATIENCE_S)
    found += [
        [type(child).__name__ for child in grouped.children],
        grouped.children[0].get(timeout=PATIENCE_S),
        silent.children,
    ]
    last = chain(add.s(1, 1), add.s(2), add.s(3))()
    last.get(timeout=PATIENCE_S)
    first = last.parent.parent
    return [
        *found,
        first.get_leaf(),
        [value for _node, value in first.collect()],
        len(first.graph),
        len(first.children),
    ]


def results():
    result = add.delay(1, 2)
    result.get(timeout=PATIENCE_S)
    here, there = app.AsyncResult(result.id), AsyncResult("nobody-knows-it")
    found = [here == result, here == add.AsyncResult(result.id), hash(here) == hash(result), here.status, here.info]
    found += [
        here.ready(),
        here.successful(),
        here.failed(),
        here.name,
        here.args,
        here.kwargs,
        here.retries,
        here.queue,
    ]
    found += [here.date_done.tzinfo is not None, here.children, here.traceback, here.parent, here.get_leaf()]
    found += [
        str(here) == here.id,
        repr(here) == f"<AsyncResult: {here.id}>",
        here.as_tuple() == ((here.id, None), None),
    ]
    found += [
        here.maybe_throw(),
        here.maybe_reraise(),
        here.get(propagate=False),
        pickle.loads(pickle.dumps(here)) == here,
    ]
    found += [
        copy.copy(here) == here,
        there.state,
        there.result,
        there.ready(),
        there.name,
        there.date_done,
        there.children,
    ]
    found += [each(lambda: there.get(timeout=0.1))[0][0], each(lambda: AsyncResult(None))[0][0]]
    return [*found, here.forget(), AsyncResult(result.id).state]


def words_of_the_backend():
    backend, own = app.backend, "an-id-of-its-own"
    good, bad = add.delay(1, 2), fail.delay()
    good.get(timeout=PATIENCE_S), bad.get(timeout=PATIENCE_S, propagate=False)
    found = [backend.get_state(good.id), backend.get_result(good.id), backend.get_task_meta(good.id)["result"]]
    found += [type(backend.get_result(bad.id)).__name__, backend.get_traceback(bad.id).splitlines()[0]]
    found += [backend.get_state("nobody-knows-it"), backend.get_task_meta("nobody-knows-it")["status"]]
    found += [backend.store_result(own, {"at": 1}, "SENT"), app.AsyncResult(own).state, app.AsyncResult(own).info]
    found += [backend.store_result(own, 5, "SUCCESS"), backend.store_result(own, 6, "SENT")]
    found += [app.AsyncResult(own).get(timeout=PATIENCE_S), backend.client.ping(), backend.client.exists("nothing")]
    return found


def revocations():
    later, by_control = add.apply_async((1, 2), countdown=60), add.apply_async((1, 2), countdown=60)
    stamped = add.s(1, 2).set(countdown=60)
    stamped.stamp(mark="x")
    by_stamp = stamped.delay()
    found = [later.revoke(), app.control.revoke(by_control.id), app.control.revoke_by_stamped_headers({"mark": ["x"]})]
    return found


def stamps():
    one, flow, named = stamps_of.s(), chain(add.s(1, 1), stamps_of.si()), stamps_of.s().set(x=1, stamped_headers=["x"])
    one.stamp(a="b", stamped_headers=["a"])
    flow.stamp(foo="bar")
    return values(one, flow, named)


# -- without a worker ------------------------------------------------------------------------------------------------


def applied():
    good, bad = add.apply((1, 2)), fail.apply()
    ignored, rejected = ignores_itself.apply(), rejects.apply()
    context = request_of.apply((1, 2)).get
    return each(
        lambda: [good.get(), good.state, good.successful(), good.ready(), good.id == good.task_id],
        lambda: bad.get(),
        lambda: [bad.state, bad.failed(), bad.traceback.splitlines()[-1]],
        lambda: bad.get(propagate=False),
        lambda: fail.apply(throw=True),
        lambda: retries_with_error.apply((1,)).get(),
        lambda: retries_with_others.apply((0,)).get(),
        lambda: retries_with_error.apply((1,), throw=True),
        lambda: [bad.forget(), bad.revoke(), bad.state, bad.get(propagate=False), bad.traceback],
        lambda: bad.get(),
        lambda: chain(add.s(1, 1), add.s(2)).apply().get(),
        lambda: group(add.s(1, 1), add.s(2, 2)).apply().get(),
        lambda: chord([add.s(1, 1)], xsum.s()).apply().get(),
        lambda: xsum.map([[1]]).apply().get(),
        lambda: chain(group(add.s(1, 1), add.s(2, 2)), xsum.s()).apply().get(),
        lambda: [ignored.state, ignored.ready(), ignored.get()],
        lambda: [rejected.state, rejected.ready(), rejected.get()],
        lambda: retries_by_itself.apply((0,)).get(),
        lambda: current.apply().get(),
    )


def always_eager():
    app.conf.task_always_eager = True
    try:
        found = each(
            lambda: add.delay(1, 2).get(),
            lambda: type(add.delay(1, 2)).__name__,
            lambda: fail.delay().get(),
            lambda: chain(add.s(1, 1), add.s(2))().get(),
            lambda: group(add.s(1, 1), add.s(2, 2))().get(),
            lambda: chord([add.s(1, 1), add.s(2, 2)], xsum.s())().get(),
            lambda: chord([], xsum.s())().get(),
            lambda: (add.s(1, 1) | group(add.s(1), add.s(2)) | xsum.s())().get(),
            lambda: chain(fail.s(), add.s(1))().state,
            lambda: add.apply_async((1, 2), link=add.s(2)).get(),
            lambda: retries_with_error.delay(1).get(),
            lambda: add.delay(1),
            lambda: tell.delay((1, 2)).get(),
            lambda: tell.delay({1: 2}).get(),
            lambda: group(add.s(1, 1), fail.s())().failed(),
            lambda: add.apply_async((1, 2), countdown=100).get(),
            lambda: waits_allowed.delay().get(),
            lambda: sends.delay(2).get(),
            lambda: xsum.map([[1]]).delay().get(),
        )
        app.conf.task_eager_propagates = True
        return found + [
            error[0]
            for error in each(
                fail.delay,
                lambda: chain(fail.s(), add.s(1))(),
                lambda: group(fail.s())(),
                lambda: chord([fail.s()], xsum.s())(),
                lambda: retries_with_error.delay(1),
            )
        ]
    finally:
        app.conf.update(task_always_eager=False, task_eager_propagates=False)


# -- declarations ----------------------------------------------------------------------------------------------------


def another(**options):
    return Celery("another", broker="redis://", backend="redis://", set_as_current=False, **options)


def declared_tasks():
    own = another()

    @own.task
    def plain_one(x):
        "What it does."
        return x

    @own.task(name="n", bind=True, max_retries=5, rate_limit="1/m", time_limit=5, acks_late=True, queue="q", errback_=3)
    def bound(self, x):
        return self.name, x

    class Double(Task):
        name = "t.Double"

        def run(self, x):
            return x * 2

    double = own.register_task(Double())

    @own.task(base=Double, name="of_base")
    def of_base():
        pass

    names = (
        "max_retries default_retry_delay rate_limit time_limit soft_time_limit ignore_result acks_late track_started"
    )
    more = "serializer priority send_events throws trail reject_on_worker_lost store_errors_even_if_ignored expires"
    return each(
        lambda: [plain_one.name, plain_one.__name__, plain_one.__doc__, plain_one.__wrapped__(3), plain_one.run(4)],
        lambda: [getattr(plain_one, name) for name in (names + " " + more).split()],
        lambda: [bound.max_retries, bound.rate_limit, bound.time_limit, bound.acks_late, bound.queue, bound.errback_],
        lambda: [plain_one(5), bound(6), double(4), double.name, isinstance(of_base, Double), "n" in own.tasks],
        lambda: sorted(name for name in own.tasks if name.startswith("celery.")),
        lambda: [
            own.gen_task_name("n", "m"),
            plain_one.request.called_directly,
            plain_one.request.id,
            own.current_task,
        ],
        lambda: own.task(5),
    )


def settings_of_an_app():
    class Source:
        timezone = "Europe/London"
        result_expires = 5

    named, old, mixed = another(), another(), another(changes={"task_serializer": "yaml"})
    named.config_from_object({"CELERY_RESULT_EXPIRES": 7, "OTHER": 1}, namespace="CELERY")
    old.config_from_object({"CELERY_TASK_RESULT_EXPIRES": 9, "CELERYD_CONCURRENCY": 2})
    own = another()
    own.config_from_object(Source)
    own.conf.update(enable_utc=True, broker_password="secret-word")
    own.conf["worker_concurrency"] = 3
    return each(
        lambda: [own.conf.timezone, own.conf.result_expires, own.conf.worker_concurrency, str(own.timezone)],
        lambda: [named.conf.result_expires, old.conf.result_expires, old.conf.worker_concurrency],
        lambda: [mixed.conf.task_serializer, own.conf.get("nobody", 4), own.conf.CELERY_TASK_SERIALIZER],
        lambda: [own.conf.table()["worker_concurrency"], "worker_concurrency: 3" in own.conf.humanize()],
        lambda: ["secret-word" in own.conf.humanize(), "secret-word" in own.conf.humanize(censored=False)],
        lambda: [own.conf.accept_content, own.conf.task_default_queue, own.conf.imports, own.conf.include],
        lambda: ["task_serializer" in own.conf, own.conf.task_queues, own.conf.task_routes],
    )


def schedules():
    now = datetime(2026, 5, 17, 10, 31, tzinfo=timezone.utc)
    found = []
    for words in (
        {},
        {"minute": 0, "hour": 0},
        {"minute": 0, "hour": "*/3"},
        {"minute": 0, "hour": "0,3,6,9,12,15,18,21"},
        {"minute": "*/15"},
        {"day_of_week": "sunday"},
        {"minute": "*", "hour": "*", "day_of_week": "sun"},
        {"minute": "*/10", "hour": "3,17,22", "day_of_week": "thu,fri"},
        {"minute": 0, "hour": "*/2,*/3"},
        {"minute": 0, "hour": "*/5"},
        {"minute": 0, "hour": "*/3,8-17"},
        {"minute": 0, "hour": 0, "day_of_month": "2"},
        {"minute": 0, "hour": 0, "day_of_month": "2-30/2"},
        {"minute": 0, "hour": 0, "day_of_month": "1-7,15-21"},
        {"minute": 0, "hour": 0, "day_of_month": "11", "month_of_year": "5"},
        {"minute": 0, "hour": 0, "month_of_year": "*/3"},
    ):
        when = crontab(**words, nowfun=lambda: now)
        found.append([repr(when), str(when.remaining_estimate(now)), plain(when.is_due(now))])
    return found + each(
        lambda: [
            crontab(1, 2) == crontab("1", "2"),
            crontab(1, 2) != crontab(1, 3),
            sorted(crontab(minute="*/20").minute),
        ],
        lambda: pickle.loads(pickle.dumps(crontab(1))) == crontab(1),
        lambda: [crontab("*/5", 3)._orig_minute, crontab(0, 3, "mon", 2, "*/3")._orig_hour],
        lambda: [getattr(crontab(0, 3, "mon", 2, "*/3"), f"_orig_{name}") for name in ("day_of_week", "day_of_month")],
        lambda: repr(crontab.from_string("*/5 * * * *")),
        lambda: [repr(schedule(10)), schedule(120).human_seconds, schedule(120).seconds, schedule(5) == schedule(5)],
    )


def periodic_tasks():
    own = another()

    @own.task(name="tick")
    def tick(x):
        pass

    @own.on_after_configure.connect
    def setup(sender, **_):
        sender.add_periodic_task(10.0, tick.s("hello"), name="every 10")
        sender.add_periodic_task(30.0, tick.s("world"), expires=10)
        sender.add_periodic_task(crontab(hour=7, minute=30, day_of_week=1), tick.s("Happy Mondays!"))

    @own.on_after_finalize.connect
    def more(sender, **_):
        sender.add_periodic_task(crontab(minute=0), tick.s(1), name="hourly")

    own.conf.beat_schedule = {"by settings": {"task": "tick", "schedule": crontab(minute="*/15"), "args": (16,)}}
    own.finalize()
    entries = own.conf.beat_schedule
    return [[name, plain(entries[name]["args"]), repr(entries[name]["schedule"])] for name in sorted(entries)]


def queues_and_exchanges():
    media = Queue("videos", Exchange("media", type="topic"), routing_key="media.video")
    both = Queue("b", [binding(Exchange("e1"), routing_key="x"), binding(Exchange("e2"), routing_key="y")])
    told = Queue(
        "a", Exchange("e", durable=False), routing_key="k", max_priority=9, queue_arguments={"x-max-priority": 10}
    )
    every = Broadcast("news")
    return [
        [media.name, media.exchange.name, media.exchange.type, media.routing_key, media.durable, media.auto_delete],
        [told.max_priority, told.queue_arguments, told.exchange.durable, Exchange("e").type, Exchange("e").durable],
        [len(both.bindings), Queue("x", exchange="text").exchange.name, Queue("z", "ex", "key").routing_key],
        [media == Queue("videos", Exchange("media", type="topic"), routing_key="media.video"), media == told],
        [
            copy.copy(media) == media,
            pickle.loads(pickle.dumps(media)).exchange.name,
            hash(Queue("a")) == hash(Queue("a")),
        ],
        [every.exchange.type, every.exchange.name, every.alias, Broadcast(name="news", queue="mine").name],
    ]


def signals_of_a_call():
    heard = []

    def before(sender=None, headers=None, body=None, declare=None, **more):
        heard.append(["before", sender, sorted(headers), headers["argsrepr"], plain(body[:2]), sorted(more)])
        heard.append([queue.name for queue in declare])

    def after(sender=None, headers=None, body=None, **more):
        heard.append(["after", sender, sorted(headers), plain(body[:2]), sorted(more)])

    def around(sender=None, signal=None, task_id=None, **more):
        heard.append([signal.name, sender.name, sorted(more)])

    run = (signals.task_prerun, signals.task_postrun, signals.task_success, signals.task_failure)
    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after, sender="p.add")
    for each_of in run:
        each_of.connect(around)
    try:
        add.delay(1, 2)
        app.send_task("p.xsum", ([1],))
        app.send_task("p.xsum", ([1],), queue="celery", priority=3)
        add.apply((1, 2))
        fail.apply()
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after, sender="p.add")
        for each_of in run:
            each_of.disconnect(around)
    add.apply((1, 2))
    return heard
'''
