from django.contrib import admin
from django.urls import path
from shop import views

urlpatterns = [
    path("", views.index),
    path("orders", views.order),
    path("orders/<int:pk>", views.state),
    path("admin/", admin.site.urls),
]
