
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("realtime", "0021_handler_permissions"),
    ]

    operations = [
        migrations.AddField(
            model_name="handler",
            name="tried_seq",
            field=models.BigIntegerField(
                help_text="The change that is tried alone, after a process ended that had the handler",
                null=True,
            ),
        ),
    ]
