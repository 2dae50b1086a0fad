"""opsq in a Django project; the only place where Django is imported."""
