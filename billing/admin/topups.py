"""Top-ups: what was bought, and what became of it."""

import contextlib
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse

from billing import topping_up
from billing.admin import asking
from billing.admin.read_only import ReadOnly, usd
from billing.admin.refunds import is_refund_offered, refund_topup
from billing.models import TopUp

if TYPE_CHECKING:
    TopUpModelAdmin = admin.ModelAdmin[TopUp]
else:  # Django's classes take no type arguments at run time.
    TopUpModelAdmin = admin.ModelAdmin

_EFFECT = (
    "They are canceled, and auto top-up may buy again. Do this only if the payment company shows no payment for them:"
    " whoever has paid would pay twice. A payment that comes all the same is credited."
)


@admin.register(TopUp)
class TopUpAdmin(ReadOnly, TopUpModelAdmin):
    # What fits beside the filters on a laptop: the fee, and when it was paid, are on the page of one.
    list_display = ("id", "account", "status", "credit", "total", "provider", "created_at")
    fields = (
        "account",
        "created_by",
        "status",
        "credit",
        "fee",
        "total",
        "rate",
        "provider",
        "provider_reference",
        "provider_payment",
        "method",
        "failure",
        "created_at",
        "paid_at",
    )
    list_filter = ("status", "origin", "provider")
    search_fields = ("account__name", "account__members__email", "provider_reference", "provider_payment")
    list_select_related = ("account",)
    date_hierarchy = "created_at"
    actions = ("cancel",)

    def get_urls(self) -> list[URLPattern]:
        refund = self.admin_site.admin_view(refund_topup)
        return [path("<int:topup_id>/refund/", refund, name="billing_topup_refund"), *super().get_urls()]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        topup = self.get_object(request, unquote(object_id))
        is_offered = request.user.has_perm("billing.add_refund") and topup and is_refund_offered(topup)
        context = {**(extra_context or {}), "is_refund_offered": is_offered}
        return super().change_view(request, object_id, form_url, context)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_topup")

    @admin.action(
        description="Cancel what waits: the payment company shows no payment", permissions=["operate"]
    )
    def cancel(self, request: HttpRequest, queryset: QuerySet[TopUp]) -> HttpResponse | None:
        """For a payment of which its company will never say more. Should it come all the same, it is credited."""
        actor = asking.operator(request, "billing.change_topup")
        form = _ChosenForm(request.POST, among=queryset)
        chosen = form.cleaned_data["_selected_action"] if form.is_valid() else queryset.none()
        waiting = list(chosen.filter(status=TopUp.Status.PENDING))
        if waiting and not asking.is_confirmed(request, form):
            return asking.page(
                request,
                title="Cancel what waits",
                facts=[_fact(topup) for topup in waiting],
                effect=_EFFECT,
                form=form,
                back=reverse("admin:billing_topup_changelist"),
                about=TopUp,
            )
        canceled = 0
        for topup in waiting:
            with contextlib.suppress(topping_up.AlreadyPaid):
                canceled += topping_up.cancel(topup=topup, actor=actor).status == TopUp.Status.CANCELED
        self.message_user(request, f"{canceled} canceled.", messages.SUCCESS)
        return None

    @admin.display(ordering="credit_nanousd")
    def credit(self, topup: TopUp) -> str:
        return usd(topup.credit_nanousd)

    @admin.display(ordering="fee_nanousd")
    def fee(self, topup: TopUp) -> str:
        return usd(topup.fee_nanousd)

    @admin.display(description="Fee rate")
    def rate(self, topup: TopUp) -> str:
        return f"{topup.fee_percent}\u00a0%"

    @admin.display(ordering="total_nanousd")
    def total(self, topup: TopUp) -> str:
        return usd(topup.total_nanousd)


class _ChosenForm(forms.Form):
    """The action, and what was chosen for it: as Django's list sends them, to be sent again once they are confirmed."""

    action = forms.CharField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, among: QuerySet[TopUp], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["_selected_action"] = forms.ModelMultipleChoiceField(
            queryset=among, widget=forms.MultipleHiddenInput
        )


def _fact(topup: TopUp) -> str:
    of = "An automatic purchase" if topup.origin == TopUp.Origin.AUTOMATIC else "A top-up"
    return (
        f"{of}, number {topup.pk}, of {asking.named(topup.account)}:"
        f" {usd(topup.total_nanousd)} through {topup.provider}, begun at {topup.created_at:%Y-%m-%d %H:%M} UTC."
    )
