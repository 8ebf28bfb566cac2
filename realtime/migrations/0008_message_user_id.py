from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("realtime", "0007_head_identity")]

    operations = [
        migrations.AddField(
            model_name="message",
            name="user_id",
            field=models.TextField(
                blank=True,
                help_text="The user who sent it to a private topic, if any",
                null=True,
            ),
        ),
    ]
