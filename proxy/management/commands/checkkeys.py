"""`manage.py checkkeys`: ask the API about every key."""

from collections import Counter
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop
from tqdm import tqdm

from proxy.management.base import PoolCommand
from proxy.models import ApiKey
from proxy.pool.key_check import Verdict, check_keys


class Command(PoolCommand):
    help = gettext_noop("Ask the API about every key (this spends no quota), and mark what is bad.")

    def handle(self, *args: Any, **options: Any) -> None:
        keys = list(ApiKey.objects.present().order_by("id"))
        if not keys:
            raise CommandError(_("There are no keys yet: python manage.py importkeys key.txt"))
        verdicts: Counter[Verdict] = Counter()
        with tqdm(total=len(keys), unit=_("key"), disable=None) as progress:  # no bar when it is not a terminal
            for key, verdict, reason in check_keys(keys, timezone.now()):
                verdicts[verdict] += 1
                progress.update()
                if verdict is not Verdict.GOOD:
                    progress.clear()
                    self.stdout.write(f"{key.label}: {verdict.label}, {reason}")
        told = _(", ").join(f"{verdicts[verdict]} {verdict.label}" for verdict in Verdict)
        self.stdout.write(_("%(count)d keys: %(told)s.") % {"count": len(keys), "told": told})
        if verdicts[Verdict.UNKNOWN] == len(keys):
            raise CommandError(_("The API gave no useful answer about any key; see UPSTREAM_URL and the network."))
