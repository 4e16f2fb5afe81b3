"""Names alone: the admin reads them."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("billing", "0018_told_in_any_order")]

    operations = [
        migrations.AlterModelOptions(name="autotopup", options={"verbose_name": "auto top-up"}),
        migrations.AlterModelOptions(name="topup", options={"ordering": ["-id"], "verbose_name": "top-up"}),
    ]
