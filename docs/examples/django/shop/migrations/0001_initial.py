from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("item", models.CharField(max_length=50)),
                ("count", models.PositiveIntegerField(default=3)),
                ("task_id", models.CharField(blank=True, max_length=50)),
                ("packed_at", models.DateTimeField(blank=True, null=True)),
            ],
        )
    ]
