"""Handlers of changes: their cursors, and the changes that they could not handle."""
import django.db.models.functions.datetime
import django.db.models.manager
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('realtime', '0017_history'),
    ]

    operations = [
        migrations.CreateModel(
            name='Handler',
            fields=[
                ('name', models.CharField(max_length=200, primary_key=True, serialize=False)),
                ('epoch', models.CharField(help_text='Of the log that `seq` is a number of', max_length=32)),
                ('seq', models.BigIntegerField(help_text='Everything up to this number is done')),
                ('paused', models.BooleanField(default=False)),
                ('stopped', models.CharField(blank=True, choices=[('', 'no'), ('failed', 'a change failed at every attempt'), ('loop', 'its writes made it run again and again'), ('lost', 'changes it had yet to read are not kept any more'), ('epoch', 'the log began anew')], default='', help_text='Why, or nothing', max_length=8)),
                ('attempts', models.IntegerField(default=0, help_text='Failed ones, of the change it stands at')),
                ('failed_seq', models.BigIntegerField(help_text='The change that failed last, if any', null=True)),
                ('failed_at', models.DateTimeField(help_text='When an attempt failed last, if any did', null=True)),
                ('last_error', models.TextField(blank=True, default='', help_text='Why it stands, or why the last attempt failed')),
                ('handled', models.BigIntegerField(default=0, help_text='How many changes it has handled')),
                ('failures', models.BigIntegerField(default=0, help_text='How many attempts have failed')),
                ('term', models.BigIntegerField(default=0, help_text='Rises when the handler is taken, paused or moved, which voids older attempts')),
                ('owner', models.CharField(blank=True, default='', help_text='Who runs it, if any', max_length=64)),
                ('lease', models.DateTimeField(help_text="Until when it is the owner's", null=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('moved_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), help_text='When `seq` was written last')),
            ],
            options={
                'db_table': 'realtime_handler',
                'default_permissions': ('view',),
            },
            managers=[
                ('in_fixtures', django.db.models.manager.Manager()),
            ],
        ),
        migrations.CreateModel(
            name='DeadLetter',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('handler', models.CharField(max_length=200)),
                ('epoch', models.CharField(max_length=32)),
                ('seq', models.BigIntegerField()),
                ('change', models.JSONField()),
                ('error', models.TextField()),
                ('attempts', models.IntegerField()),
                ('failed_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'db_table': 'realtime_dead_letter',
                'default_permissions': ('view', 'delete'),
                'indexes': [models.Index(fields=['failed_at'], name='realtime_dead_letter_age')],
                'constraints': [models.UniqueConstraint(fields=('handler', 'epoch', 'seq'), name='realtime_dead_letter_once')],
            },
            managers=[
                ('in_fixtures', django.db.models.manager.Manager()),
            ],
        ),
        migrations.CreateModel(
            name='HandlerDone',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('handler', models.CharField(max_length=200)),
                ('seq', models.BigIntegerField()),
            ],
            options={
                'verbose_name': 'change done by a handler',
                'verbose_name_plural': 'changes done by handlers',
                'db_table': 'realtime_handler_done',
                'default_permissions': (),
                'constraints': [models.UniqueConstraint(fields=('handler', 'seq'), name='realtime_handler_done_once')],
            },
            managers=[
                ('in_fixtures', django.db.models.manager.Manager()),
            ],
        ),
    ]
