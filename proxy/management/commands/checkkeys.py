"""`manage.py checkkeys`: check every key with Google."""

from collections import Counter
from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop
from tqdm import tqdm

from proxy.management.base import PoolCommand
from proxy.models import ApiKey, database_now
from proxy.pool.key_check import Verdict, check_keys


class Command(PoolCommand):
    help = gettext_noop("Check every key with Google, and mark the bad ones. This uses no quota.")

    def handle(self, *args: Any, **options: Any) -> None:
        keys = list(ApiKey.objects.present().order_by("id"))
        if not keys:
            raise CommandError(_("There are no keys yet. Import some: python manage.py importkeys key.txt"))
        verdicts: Counter[Verdict] = Counter()
        with tqdm(total=len(keys), unit=_("key"), disable=None) as progress:  # None: a bar only in a terminal
            for key, verdict, reason in check_keys(keys, database_now()):
                verdicts[verdict] += 1
                progress.update()
                if verdict is not Verdict.GOOD:
                    progress.clear()
                    self.stdout.write(f"{key.label}: {verdict.label}, {reason}")
        counts = _(", ").join(f"{verdicts[verdict]} {verdict.label}" for verdict in Verdict)
        self.stdout.write(_("%(count)d keys: %(counts)s.") % {"count": len(keys), "counts": counts})
        if verdicts[Verdict.UNKNOWN] == len(keys):
            raise CommandError(_("No key could be checked. Check UPSTREAM_URL and the network."))
