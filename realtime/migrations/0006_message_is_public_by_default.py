from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("realtime", "0005_actor")]

    operations = [
        migrations.AlterField(
            model_name="message",
            name="private",
            field=models.BooleanField(db_default=False),
        ),
    ]
