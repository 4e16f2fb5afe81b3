"""Providers, models, what they cost from which moment, the upstreams that serve them, and other names for them."""

from decimal import Decimal
from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

# The virtual model: the cheapest one that fits the request.
AUTO = "auto"
_MOST_WEIGHT = 1000


class Protocol(models.TextChoices):
    """A way to talk to a provider, by the shape of its requests and answers."""

    OPENAI_CHAT = "openai-chat", "OpenAI: chat completions, completions, embeddings"
    OPENAI_RESPONSES = "openai-responses", "OpenAI: responses"
    ANTHROPIC_MESSAGES = "anthropic-messages", "Anthropic: messages"


def openai_chat() -> list[str]:
    """What nearly every provider speaks."""
    return [Protocol.OPENAI_CHAT.value]


class Provider(models.Model):
    """A company that serves models, where, and in which protocols."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=80)
    # Where the gateway may connect is judged where it is written, in the admin, and where it is read, in `serving`.
    base_url = models.CharField(
        "base URL",
        max_length=200,
        help_text="Of its API, without a trailing slash, such as https://api.example.com/v1.",
    )
    protocols = ArrayField(
        models.CharField(max_length=24, choices=Protocol),
        default=openai_chat,
        help_text="What its base URL answers. A model is served at an endpoint if an upstream of it speaks the "
        "endpoint's protocol.",
    )
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

    slug = models.CharField(
        max_length=120,
        unique=True,
        help_text="What clients call it. With the provider's slug and a slash before it, it is understood too.",
    )
    name = models.CharField(max_length=120)
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="models")
    tier = models.CharField(max_length=16, choices=Tier, default=Tier.PREMIUM)
    kind = models.CharField(max_length=16, choices=Kind, default=Kind.CHAT)
    context_window = models.PositiveIntegerField(help_text="Tokens of input and output together.")
    max_output_tokens = models.PositiveIntegerField(
        null=True, blank=True, help_text="Empty: it writes no tokens."
    )
    supports_tools = models.BooleanField(
        "calls tools", default=True, help_text="The virtual model “auto” sends it requests with tools."
    )
    supports_images = models.BooleanField(
        "reads images", default=False, help_text="The virtual model “auto” sends it requests with images."
    )
    is_enabled = models.BooleanField("enabled", default=True, help_text="A disabled model answers 404.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar = ["slug"]

    def __str__(self) -> str:
        return self.slug

    def clean(self) -> None:
        """A name means one model: not the virtual one, and none that an alias already means."""
        if self.slug == AUTO:
            raise ValidationError({"slug": "“auto” is the virtual model that chooses the cheapest one."})
        if ModelAlias.objects.filter(name=self.slug).exists():
            raise ValidationError({"slug": "There is an alias of this name."})


class ModelAlias(models.Model):
    """Another name for a model, set by the operator. What is served, billed and allowed is the model."""

    name = models.CharField(
        max_length=120,
        unique=True,
        validators=[
            RegexValidator(
                r"^[A-Za-z0-9][A-Za-z0-9._:/-]*\Z",
                "Letters, digits and . _ : / - only, beginning with a letter or a digit.",
            )
        ],
        help_text="What clients may call the model beside its slug.",
    )
    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="aliases")

    class Meta:
        ordering: ClassVar = ["name"]
        verbose_name = "model alias"
        verbose_name_plural = "model aliases"
        constraints: ClassVar = [
            models.CheckConstraint(condition=~models.Q(name=AUTO), name="alias_is_not_auto"),
        ]

    def __str__(self) -> str:
        return f"{self.name} → {self.model}"

    def clean(self) -> None:
        """An alias may not hide a model's own names."""
        if self.name == AUTO:
            raise ValidationError({"name": "“auto” is the virtual model that chooses the cheapest one."})
        if Model.objects.filter(slug=self.name).exists():
            raise ValidationError({"name": "There is a model of this slug."})
        provider, _, slug = self.name.partition("/")
        if Model.objects.filter(provider__slug=provider, slug=slug).exists():
            raise ValidationError({"name": "This is a model's own name with its provider."})


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
    cache_write_usd_per_mtok = models.DecimalField(
        "cache write, USD per million tokens",
        max_digits=12,
        decimal_places=6,
        null=True,
        blank=True,
        help_text="Of input that the provider writes to a cache. Empty: it costs what input costs.",
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
                & (models.Q(cached_input_usd_per_mtok=None) | models.Q(cached_input_usd_per_mtok__gte=0))
                & (models.Q(cache_write_usd_per_mtok=None) | models.Q(cache_write_usd_per_mtok__gte=0)),
                name="price_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} from {self.starts_at:%Y-%m-%d %H:%M} UTC"

    @property
    def figures(self) -> tuple[Decimal, Decimal, Decimal | None, Decimal | None]:
        """Input, output, cached input and cache writes, to compare two prices by."""
        return (
            self.input_usd_per_mtok,
            self.output_usd_per_mtok,
            self.cached_input_usd_per_mtok,
            self.cache_write_usd_per_mtok,
        )


class Upstream(models.Model):
    """One way to serve a model: a provider and the name by which it knows the model.

    Upstreams of the same position are a group, tried in random order by their weights; groups are tried in turn.
    """

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="upstreams")
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="upstreams")
    upstream_model = models.CharField(max_length=160, help_text="The model's name at the provider.")
    position = models.PositiveSmallIntegerField(
        default=1, help_text="Lower is tried first. The same position shares the requests."
    )
    weight = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(_MOST_WEIGHT)],
        help_text="Its share of the requests among upstreams of the same position.",
    )
    is_enabled = models.BooleanField("enabled", default=True)

    class Meta:
        ordering: ClassVar = ["model", "position", "id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["model", "provider"], name="upstream_once_per_model_and_provider"
            ),
            models.CheckConstraint(condition=models.Q(weight__gte=1), name="upstream_weight_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.model} at {self.provider}"
