"""Django settings of the benchmarks' tasks: results in a database, by opsq's tables or by django-celery-results."""

from __future__ import annotations

import json
import os

SECRET_KEY = "of benchmarks"
USE_TZ = True
DATABASES = {"default": json.loads(os.environ["BENCH_DATABASE"])}
INSTALLED_APPS = ["django_celery_results" if os.environ["BENCH_LIBRARY"] == "celery" else "opsq.contrib.django"]
