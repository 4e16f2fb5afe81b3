"""The model that the snippets of a key name."""

from catalog.models import Model
from keys.models import ApiKey


def example_model(*, key: ApiKey) -> str | None:
    """A chat model the key may call, of the basic tier if there is one: a first call should cost nothing."""
    models = Model.objects.filter(is_enabled=True, kind=Model.Kind.CHAT)
    if key.allowed_models:
        models = models.filter(slug__in=key.allowed_models)
    basic = models.filter(tier=Model.Tier.BASIC).order_by("slug").first()
    chosen = basic or models.order_by("slug").first()
    return None if chosen is None else chosen.slug
