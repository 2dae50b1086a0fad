"""A project that runs on opsq where opsq is installed, and on Celery where it is not."""

import os

try:
    from opsq import Celery, chain, chord
    from opsq.utils.log import get_task_logger
except ImportError:
    from celery import Celery, chain, chord
    from celery.utils.log import get_task_logger

logger = get_task_logger(__name__)

app = Celery("shop", broker=os.environ.get("BROKER_URL", "redis://localhost:6379/0"))
app.conf.update(
    result_backend=os.environ.get("RESULTS_URL", "redis://localhost:6379/1"),
    task_acks_late=True,
    task_routes={"shop.bill": {"queue": "money"}},
    broker_connection_retry_on_startup=True,
)


@app.task
def price(item, count):
    return {"tea": 3, "cup": 7}[item] * count


@app.task
def total(prices):
    return sum(prices)


@app.task(bind=True, autoretry_for=(ConnectionError,), max_retries=3, retry_backoff=False, default_retry_delay=0)
def bill(self, amount, customer):
    if not self.request.retries:
        raise ConnectionError("the bank does not answer")  # it does the second time
    logger.info("billing %s", customer)
    return f"{customer}: {amount}"


def order(customer, items):
    """All items are priced at once, their sum is billed."""
    header = [price.s(item, count) for item, count in items.items()]
    return chain(chord(header, total.s()), bill.s(customer)).delay()
