"""Django made ready in a program that is not Django's own."""

from __future__ import annotations

import django
from django.apps import apps


def set_up() -> None:
    """Load the settings that DJANGO_SETTINGS_MODULE names, and the models; nothing when that was done."""
    if not apps.ready:
        django.setup()
