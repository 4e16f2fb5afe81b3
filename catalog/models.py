"""Providers, models, what they cost from which moment, and the upstreams that serve them."""

from decimal import Decimal
from typing import ClassVar

from django.db import models
from django.utils import timezone


class Provider(models.Model):
    """A company that serves models, and where."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=80)
    base_url = models.URLField(help_text="Of its OpenAI-compatible API, without a trailing slash.")
    key_env = models.CharField(
        "key variable",
        max_length=80,
        blank=True,
        help_text="The environment variable that holds our key to it. The key itself is stored nowhere.",
    )
    output_limit_parameter = models.CharField(
        max_length=40,
        default="max_tokens",
        help_text="What it calls the limit of output tokens, where the client names none: OpenAI's newer models "
        "know only max_completion_tokens.",
    )

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name


class Model(models.Model):
    """A model that clients may ask for by its slug."""

    class Tier(models.TextChoices):
        BASIC = "basic", "Basic"
        PREMIUM = "premium", "Premium"

    class Kind(models.TextChoices):
        CHAT = "chat", "Chat"
        EMBEDDING = "embedding", "Embedding"

    slug = models.CharField(max_length=120, unique=True)
    name = models.CharField(max_length=120)
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="models")
    tier = models.CharField(max_length=16, choices=Tier, default=Tier.PREMIUM)
    kind = models.CharField(max_length=16, choices=Kind, default=Kind.CHAT)
    context_window = models.PositiveIntegerField(help_text="Tokens of input and output together.")
    max_output_tokens = models.PositiveIntegerField(
        null=True, blank=True, help_text="Empty: it writes no tokens."
    )
    is_enabled = models.BooleanField("enabled", default=True, help_text="A disabled model answers 404.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar = ["slug"]

    def __str__(self) -> str:
        return self.slug


class Price(models.Model):
    """What a model costs from a moment on, until the next price of the same model. USD per million tokens."""

    class Source(models.TextChoices):
        CATALOGUE = "catalogue", "Shipped with Tollgate"
        IMPORT = "import", "Imported"
        OPERATOR = "operator", "Operator"

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="prices")
    starts_at = models.DateTimeField(default=timezone.now)
    input_usd_per_mtok = models.DecimalField("input, USD per million tokens", max_digits=12, decimal_places=6)
    output_usd_per_mtok = models.DecimalField(
        "output, USD per million tokens", max_digits=12, decimal_places=6
    )
    cached_input_usd_per_mtok = models.DecimalField(
        "cached input, USD per million tokens",
        max_digits=12,
        decimal_places=6,
        null=True,
        blank=True,
        help_text="Empty: cached input costs what input costs.",
    )
    # A shipped price follows the shipped catalogue; one that somebody set is theirs to change.
    source = models.CharField(max_length=10, choices=Source, default=Source.OPERATOR, editable=False)

    class Meta:
        ordering: ClassVar = ["model", "-starts_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["model", "starts_at"], name="price_once_per_model_and_moment"),
            models.CheckConstraint(
                condition=models.Q(
                    input_usd_per_mtok__gte=0,
                    output_usd_per_mtok__gte=0,
                )
                & (models.Q(cached_input_usd_per_mtok=None) | models.Q(cached_input_usd_per_mtok__gte=0)),
                name="price_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} from {self.starts_at:%Y-%m-%d %H:%M} UTC"

    @property
    def figures(self) -> tuple[Decimal, Decimal, Decimal | None]:
        """Input, output and cached input, to compare two prices by."""
        return self.input_usd_per_mtok, self.output_usd_per_mtok, self.cached_input_usd_per_mtok


class Upstream(models.Model):
    """One way to serve a model: a provider and the name by which it knows the model. The first enabled one is used."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="upstreams")
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="upstreams")
    upstream_model = models.CharField(max_length=160, help_text="The model's name at the provider.")
    position = models.PositiveSmallIntegerField(default=1, help_text="Lower is tried first.")
    is_enabled = models.BooleanField("enabled", default=True)

    class Meta:
        ordering: ClassVar = ["model", "position", "id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["model", "provider"], name="upstream_once_per_model_and_provider"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} at {self.provider}"
