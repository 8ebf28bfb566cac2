from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('realtime', '0004_topics'),
    ]

    operations = [
        migrations.AddField(
            model_name='walentry',
            name='actor',
            field=models.TextField(help_text='Who wrote: the primary key of a user, or another name; or nobody', null=True),
        ),
    ]
