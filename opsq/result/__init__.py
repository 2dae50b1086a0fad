"""Results of tasks: Celery's `celery.result`."""

from opsq.result.eager import EagerResult as EagerResult
from opsq.result.groups import GroupResult as GroupResult
from opsq.result.sets import ResultSet as ResultSet
from opsq.result.single import AsyncResult as AsyncResult
from opsq.result.single import ResultBase as ResultBase
from opsq.result.single import result_from_tuple as result_from_tuple
from opsq.result.waiting import allow_join_result as allow_join_result
from opsq.result.waiting import assert_will_not_block as assert_will_not_block
from opsq.result.waiting import denied_join_result as denied_join_result

__all__ = [
    *("AsyncResult", "EagerResult", "GroupResult", "ResultBase", "ResultSet", "allow_join_result"),
    *("assert_will_not_block", "denied_join_result", "result_from_tuple"),
]
