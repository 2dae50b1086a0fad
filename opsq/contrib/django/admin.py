"""The admin's pages, where Django looks for them."""

from opsq.contrib.django.results_admin import GroupResultAdmin as GroupResultAdmin
from opsq.contrib.django.results_admin import TaskResultAdmin as TaskResultAdmin
from opsq.contrib.django.schedules_admin import PeriodicTaskAdmin as PeriodicTaskAdmin
