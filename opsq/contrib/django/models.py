"""The models, where Django looks for them."""

from opsq.contrib.django.results_models import ChordCounter as ChordCounter
from opsq.contrib.django.results_models import GroupResult as GroupResult
from opsq.contrib.django.results_models import TaskResult as TaskResult
from opsq.contrib.django.schedules_models import ClockedSchedule as ClockedSchedule
from opsq.contrib.django.schedules_models import CrontabSchedule as CrontabSchedule
from opsq.contrib.django.schedules_models import IntervalSchedule as IntervalSchedule
from opsq.contrib.django.schedules_models import PeriodicTask as PeriodicTask
from opsq.contrib.django.schedules_models import PeriodicTasks as PeriodicTasks
from opsq.contrib.django.schedules_models import SolarSchedule as SolarSchedule
