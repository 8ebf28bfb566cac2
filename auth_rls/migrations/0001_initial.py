import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('auth', '0012_alter_user_first_name_max_length'),
    ]

    operations = [
        migrations.CreateModel(
            name='Policy',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=200, unique=True, verbose_name='name')),
                ('audience', models.CharField(choices=[('permission', 'permission holders'), ('authenticated', 'logged-in users'), ('anyone', 'anyone')], default='permission', help_text='Who is concerned. Holders have the permission themselves or through a group.', max_length=13, verbose_name='audience')),
                ('mode', models.CharField(choices=[('permissive', 'permissive'), ('restrictive', 'restrictive')], default='permissive', help_text='One permissive policy is enough to let a row through; every restrictive one must agree as well.', max_length=11, verbose_name='mode')),
                ('using', models.JSONField(blank=True, default=None, help_text='The row as it stands: which rows may be viewed, changed or deleted.', null=True, verbose_name='using')),
                ('with_check', models.JSONField(blank=True, default=None, help_text='The new row of an add or a change. Empty: the same as “using”.', null=True, verbose_name='with check')),
                ('enabled', models.BooleanField(default=True, verbose_name='enabled')),
                ('permission', models.ForeignKey(help_text='View, add, change or delete of the model whose rows are meant.', on_delete=django.db.models.deletion.CASCADE, related_name='row_policies', to='auth.permission', verbose_name='permission')),
            ],
            options={
                'verbose_name': 'policy',
                'verbose_name_plural': 'policies',
                'ordering': ['permission__content_type__app_label', 'permission__codename', 'name'],
            },
        ),
    ]
