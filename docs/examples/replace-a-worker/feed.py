"""A project whose tasks write down that they ran: on opsq where it is installed, on Celery where it is not."""

import os
import time

try:
    from opsq import Celery
except ImportError:
    from celery import Celery

app = Celery("feed", broker=os.environ.get("BROKER_URL", "redis://localhost:6379/0"))
app.conf.update(task_acks_late=True, task_ignore_result=True, broker_connection_retry_on_startup=True)


@app.task
def see(number):
    with open("seen", "a") as seen:
        seen.write(f"{number} {type(app).__module__.partition('.')[0]}\n")
    time.sleep(0.01)
