"""The admin's pages, where Django looks for them."""

from opsq.contrib.django.schedules_admin import PeriodicTaskAdmin as PeriodicTaskAdmin
