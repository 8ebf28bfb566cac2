import django.db.models.manager
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("realtime", "0006_message_is_public_by_default"),
    ]

    operations = [
        migrations.AddField(
            model_name="loghead",
            name="epoch_us",
            field=models.BigIntegerField(
                default=0, help_text="When the epoch began, if another one came before it"
            ),
        ),
        migrations.AddField(
            model_name="loghead",
            name="stamp",
            field=models.CharField(
                blank=True,
                default="",
                help_text="Which transaction wrote the row, and where: a restored row has another one's",
                max_length=128,
            ),
        ),
        migrations.AlterModelManagers(
            name='loghead',
            managers=[
                ('in_fixtures', django.db.models.manager.Manager()),
            ],
        ),
        migrations.AlterModelManagers(
            name='message',
            managers=[
                ('in_fixtures', django.db.models.manager.Manager()),
            ],
        ),
        migrations.AlterModelManagers(
            name='presencemember',
            managers=[
                ('in_fixtures', django.db.models.manager.Manager()),
            ],
        ),
        migrations.AlterModelManagers(
            name='process',
            managers=[
                ('in_fixtures', django.db.models.manager.Manager()),
            ],
        ),
        migrations.AlterModelManagers(
            name='walentry',
            managers=[
                ('in_fixtures', django.db.models.manager.Manager()),
            ],
        ),
        migrations.AlterModelManagers(
            name='walrelation',
            managers=[
                ('in_fixtures', django.db.models.manager.Manager()),
            ],
        ),
    ]
