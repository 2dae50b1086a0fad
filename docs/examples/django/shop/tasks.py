import time

from django.utils import timezone

from opsq import shared_task

from .models import Order


@shared_task(bind=True)
def pack(self, order_id):
    order = Order.objects.get(pk=order_id)
    for number in range(1, order.count + 1):
        self.update_state(state="PACKING", meta={"packed": number, "of": order.count})
        time.sleep(0.7)
    order.packed_at = timezone.now()
    order.save(update_fields=["packed_at"])
    return f"{order.count} of {order.item} are packed"


@shared_task
def count_packed():
    return Order.objects.exclude(packed_at=None).count()
