from django.http import JsonResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_POST

from opsq.result import AsyncResult

from .models import Order
from .tasks import pack


def index(request):
    return render(request, "shop/index.html", {"orders": Order.objects.order_by("-pk")[:20]})


@require_POST
def order(request):
    made = Order.objects.create(item=request.POST["item"])
    made.task_id = pack.delay(made.pk).id
    made.save(update_fields=["task_id"])
    return JsonResponse({"pk": made.pk, "item": made.item})


def state(request, pk):
    result = AsyncResult(get_object_or_404(Order, pk=pk).task_id)
    told = result.info if isinstance(result.info, dict) else str(result.info or "")
    return JsonResponse({"state": result.state, "told": told, "ready": result.ready()})
