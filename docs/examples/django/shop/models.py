from django.db import models


class Order(models.Model):
    item = models.CharField(max_length=50)
    count = models.PositiveIntegerField(default=3)
    task_id = models.CharField(max_length=50, blank=True)
    packed_at = models.DateTimeField(null=True, blank=True)
