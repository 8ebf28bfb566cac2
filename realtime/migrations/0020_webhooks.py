"""Webhooks, and what became of their deliveries."""

import django.db.models.deletion
import django.db.models.functions.datetime
import django.db.models.manager
import realtime.models
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('realtime', '0019_receipts'),
    ]

    operations = [
        migrations.CreateModel(
            name='Webhook',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=100, unique=True)),
                ('url', models.CharField(help_text='Where requests are sent: https://…, without a user name. Redirects are not followed.', max_length=2000, verbose_name='URL')),
                ('tables', models.JSONField(default=list, help_text='Published tables, as a list of names.')),
                ('events', models.JSONField(default=realtime.models.every_webhook_event, help_text='INSERT, UPDATE, DELETE and TRUNCATE, as a list.')),
                ('filter', models.TextField(blank=True, default='', help_text='Send rows that fit alone, such as status=eq.paid,total=gt.100. An UPDATE is judged by its new row, a DELETE by its old one.')),
                ('columns', models.JSONField(blank=True, default=list, help_text='Send these columns alone, as a list of names. The key always comes too. Empty: all published columns.')),
                ('headers', models.JSONField(blank=True, default=dict, help_text='Sent with each request, as an object: {"Authorization": "Bearer …"}.')),
                ('secret', models.CharField(default=realtime.models.webhook_secret, help_text='Signs each request, so that the receiver knows who sent it. Give it to the receiver and to nobody else.', max_length=128)),
                ('enabled', models.BooleanField(default=True, help_text='Changes that are committed while it is off are not sent.')),
                ('disabled_reason', models.TextField(blank=True, default='', editable=False)),
                ('former_secret', models.CharField(blank=True, default='', editable=False, max_length=128)),
                ('former_until', models.DateTimeField(editable=False, help_text='Until when the former secret signs, too', null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('failures', models.IntegerField(default=0, editable=False, help_text='Requests that failed since the last that did not')),
                ('failing_since', models.DateTimeField(editable=False, null=True)),
                ('rests_until', models.DateTimeField(editable=False, help_text='Until when no request is sent, after a failure', null=True)),
                ('sender', models.CharField(blank=True, default='', editable=False, help_text='Id of who sends now', max_length=64)),
                ('sender_until', models.DateTimeField(editable=False, help_text='Until when that one alone sends', null=True)),
            ],
            options={
                'db_table': 'realtime_webhook',
            },
            managers=[
                ('in_fixtures', django.db.models.manager.Manager()),
            ],
        ),
        migrations.CreateModel(
            name='WebhookDelivery',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('delivery_id', models.CharField(help_text='The header webhook-id: the same for each attempt, and when it is sent again', max_length=100, unique=True)),
                ('seq', models.BigIntegerField(help_text='The number of the change in the log', null=True)),
                ('table', models.CharField(max_length=255)),
                ('event', models.CharField(max_length=8)),
                ('body', models.TextField()),
                ('state', models.CharField(choices=[('pending', 'Pending'), ('delivered', 'Delivered'), ('failed', 'Failed')], default='pending', max_length=9)),
                ('by_hand', models.BooleanField(default=False, help_text='Asked for in the admin: sent once, also while disabled')),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('due_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), help_text='When it is sent or sent again')),
                ('finished_at', models.DateTimeField(null=True)),
                ('failures', models.IntegerField(default=0)),
                ('attempts', models.JSONField(default=list, help_text='What came of each attempt, the last ones: at, status, error, excerpt, seconds')),
                ('webhook', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='realtime.webhook')),
            ],
            options={
                'verbose_name': 'webhook delivery',
                'verbose_name_plural': 'webhook deliveries',
                'db_table': 'realtime_webhook_delivery',
                'default_permissions': ('view', 'change'),
                'indexes': [models.Index(fields=['webhook', 'state', 'id'], name='realtime_webhook_state'), models.Index(fields=['finished_at'], name='realtime_webhook_finished')],
            },
            managers=[
                ('in_fixtures', django.db.models.manager.Manager()),
            ],
        ),
    ]
